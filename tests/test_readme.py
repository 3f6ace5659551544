"""README's commands are executed as they stand, on small data."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from latentcap.data.scenes import render_scenes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALLER = (  # the same command, on a network and a schedule for tests
    "--trainer.max_epochs=1 --trainer.enable_progress_bar=false --model.model.backbone.name=test_efficientnet "
    "--model.model.backbone.weights=random --model.model.backbone.image_size=64 "
    "--trainer.check_val_every_n_epoch=1 --data.batch_size=8 --data.cache_dir=cache"
)


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [line.split("#")[0].split()[1] for line in commands() if line.startswith("make ")]
    assert targets[:2] == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def studies(folder: Path, images: Path) -> None:
    """README's two studies, each twelve times, with stand-in images: findings that are rarer are not learned."""
    lines = re.search(r"## Medical reports.*?```json\n(.*?)```", README, re.DOTALL)
    assert lines
    folder.mkdir()
    pictures, rows = sorted(images.glob("*.jpg")), []
    for place in range(24):
        row = json.loads(lines[1].splitlines()[place % 2])
        row["file_name"] = [name.replace(str(place % 2 + 1), str(place + 1), 1) for name in row["file_name"]]
        row["patient_id"] = f"p{place + 1}"
        rows.append(json.dumps(row))
        for view, name in enumerate(row["file_name"]):
            shutil.copy(pictures[(2 * place + view) % len(pictures)], folder / name)
    (folder / "metadata.jsonl").write_text("\n".join(rows))


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path) -> None:
    render_scenes(tmp_path / "my_images", train=16, val=4, test=4, size=64)
    shutil.copytree(tmp_path / "my_images" / "val", tmp_path / "photos")
    shutil.copytree(tmp_path / "my_images" / "val", tmp_path / "new_images")
    studies(tmp_path / "my_reports", tmp_path / "my_images" / "train")
    ran = 0
    for command in commands():
        if not command.startswith("latentcap ") or command.startswith("latentcap serve"):  # which goes on
            continue
        command = command.replace("latentcap", f"{sys.executable} -m latentcap.cli.main", 1)
        if " train " in command:
            command += " " + SMALLER
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 9
    assert len((tmp_path / "captions.jsonl").read_text().splitlines()) == 4


def test_the_project_speaks_of_itself_alone() -> None:
    """No path of one machine in anything that is shipped."""
    pattern = re.compile(r"(?<![\w.])/(?:work|root|home)/[a-z]")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    texts = [ROOT / name for name in names if name.endswith((".py", ".md", ".yaml", ".toml", ".json", "Makefile"))]
    found = [str(path) for path in texts if path.is_file() and pattern.search(path.read_text(encoding="utf-8"))]
    assert not found or found == ["tests/test_readme.py"]
