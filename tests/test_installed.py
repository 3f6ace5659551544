"""The wheel, installed in an environment of its own, used from a folder whose files have the names of our folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
HOSTILE = ("data.py", "pipeline.py", "configs.py", "scripts/__init__.py", "data/__init__.py", "models/__init__.py")
Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what the package is made of, for a build leaves files beside its sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("pipeline", "data", "configs", "models"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, source)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of the new environment are. It has the wheel, and beyond it the packages that run this test.

    A line in a .pth adds those without what their own .pth files do, so an editable install of ours is not among them.
    """
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    programs = next(path for path in (environment / "bin", environment / "Scripts") if path.is_dir())
    pip("--python", programs / "python", "install", "--no-deps", wheel)
    site = next(path.parent for path in environment.rglob("latentcap") if path.is_dir())
    (site / "others.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    return programs


@pytest.fixture(scope="module")
def program(bin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Run a program of the environment in a folder with hostile files. Anything but exit code 0 fails."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in HOSTILE:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise SystemExit('imported what belongs to somebody else')\n")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(bin_folder / name), *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    return run


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *map(str, arguments)]
    subprocess.run(command, check=True)


@pytest.mark.slow
def test_the_wheel_holds_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"latentcap"}
    needed = ("cli/main.py", "data/readers/read.py", "configs/scenes.yaml", "models/photos/model.safetensors")
    assert {f"latentcap/{name}" for name in needed} <= set(names)
    assert any(name.endswith("page.js") for name in names)
    assert wheel.stat().st_size < 31e6


@pytest.mark.slow
def test_it_is_imported_from_where_it_is_installed(program: Program, bin_folder: Path) -> None:
    code = "import latentcap, latentcap.data; from latentcap import Captioner; print(latentcap.__file__)"
    assert Path(program("python", "-c", code).stdout.strip()).is_relative_to(bin_folder.parent)


@pytest.mark.slow
def test_it_captions_and_explains_with_the_model_in_the_box(program: Program, tmp_path: Path) -> None:
    (tmp_path / "drawn").mkdir()
    for name, colour in (("one", "green"), ("two", "grey")):
        image = Image.new("RGB", (300, 300), colour)
        ImageDraw.Draw(image).rectangle((100, 0, 140, 300), fill="white")
        image.save(tmp_path / "drawn" / f"{name}.jpg")
    output, page = tmp_path / "captions.jsonl", tmp_path / "report.html"
    program("latentcap", "caption", tmp_path / "drawn", "--output", output)
    captions = [json.loads(line)["caption"] for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(captions) == 2
    assert all(captions)
    program("latentcap", "explain", tmp_path / "drawn", "--model", "photos", "--limit", 1, "--output", page)
    assert "<script" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_trains_by_the_name_of_a_recipe(program: Program, tmp_path: Path) -> None:
    scenes, root = tmp_path / "scenes", tmp_path / "run"
    program("python", "-m", "latentcap.data.scenes", scenes, "--train", 64, "--val", 4, "--test", 1)
    given = ["--data.train", scenes, "--data.cache_dir", tmp_path / "cache", "--trainer.default_root_dir", root]
    given += ["--trainer.max_steps", 2, "--trainer.check_val_every_n_epoch", 1]
    program("latentcap", "train", "fit", "--config", "scenes", *given)
    assert (root / "model" / "config.json").is_file()
