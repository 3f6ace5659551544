"""A training in stages: what each stage is told, and how it goes on where it was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from latentcap.captioner import Captioner
from latentcap.cli.train import main, stages
from latentcap.data.errors import UserError
from latentcap.data.scenes import render_scenes
from tests.test_train import TINY


class Fits:
    """In place of trainings: what they were told, and the code that they end with."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.codes: list[int] = []

    def __call__(self, arguments: list[str]) -> int:
        self.told.append(list(arguments))
        folder = Path(arguments[arguments.index("--trainer.default_root_dir") + 1])
        code = self.codes.pop(0) if self.codes else 0
        for name in ("checkpoints/last.ckpt", *(["model/config.json"] if not code else [])):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return code

    def value(self, number: int, option: str) -> str:
        return self.told[number][self.told[number].index(option) + 1]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    found = Fits()
    monkeypatch.setattr(stages, "_fit", found)
    return found


def test_what_each_stage_is_told(fits: Fits, tmp_path: Path) -> None:
    root = tmp_path / "a run"
    given = ["--config", "rsicd", "--data.train", "x", "--trainer.max_epochs=3", f"--trainer.default_root_dir={root}"]
    assert main(["stages", "--teachers=2", "--seed_everything=4", *given]) == 0
    recipes = [[argument for before, argument in pairwise(told) if before == "--config"] for told in fits.told]
    assert recipes == [["rsicd", "words"]] * 3 + [["rsicd", "sentences"]]
    assert [fits.value(number, "--seed_everything") for number in range(4)] == ["5", "6", "4", "4"]
    taught = yaml.safe_load(fits.value(2, "--model.optim.teachers"))
    assert taught == [str(root / "words-1" / "model"), str(root / "words-2" / "model")]
    assert fits.value(3, "--model.start_from") == str(root / "words" / "model")
    assert fits.value(3, "--trainer.default_root_dir") == str(root)
    for told in fits.told:  # what is given counts more than what a recipe or a stage says
        assert told.index("--trainer.max_epochs=3") > max(told.index(name) for name in told if name == "--config")
        assert "--trainer.max_epochs" not in told[told.index("--trainer.max_epochs=3") :]


def test_the_recipe_of_photographs_where_none_is_named_and_a_model_to_start_from(fits: Fits, tmp_path: Path) -> None:
    main(["stages", f"--trainer.default_root_dir={tmp_path}", "--model.start_from=photos", "--data.train=x"])
    assert [told[:4] for told in fits.told] == [
        ["--config", "photos", "--config", "words"],
        ["--config", "photos", "--config", "sentences"],
    ]
    assert fits.value(0, "--model.start_from") == "photos"
    assert fits.told[1].count("--model.start_from") == 1


def test_the_same_command_goes_on(fits: Fits, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["stages", f"--trainer.default_root_dir={tmp_path / 'run'}", "--data.train=x"]
    fits.codes = [0, 143]
    assert main(command) == 143
    assert "stage sentences is not done" in capsys.readouterr().err
    assert main([*command, "--ckpt_path", "last"]) == 0  # as an interrupted training advises
    assert [told[-2:] == ["--ckpt_path", "last"] for told in fits.told] == [False, False, True]
    assert "stage 1 of 2, words: done before" in capsys.readouterr().out
    assert main(command) == 0
    assert len(fits.told) == 3
    with pytest.raises(UserError, match=r"begun with other options: .*--data.train=x"):
        main([*command[:-1], "--data.train=y"])


def test_a_folder_of_another_run_is_left_alone(fits: Fits, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="not trained in stages"):
        main(["stages", f"--trainer.default_root_dir={tmp_path}"])
    (tmp_path / "words" / "checkpoints").mkdir(parents=True)
    (tmp_path / "checkpoints").rmdir()
    with pytest.raises(UserError, match="words holds a run that was not trained in stages"):
        main(["stages", f"--trainer.default_root_dir={tmp_path}"])
    (tmp_path / "stages.json").write_text("[")
    with pytest.raises(UserError, match="cannot be read"):
        main(["stages", f"--trainer.default_root_dir={tmp_path}"])
    assert not fits.told


def test_one_teacher_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["stages", "--teachers=1"])
    assert "a mean of one teaches nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_in_stages_that_is_terminated_goes_on(tmp_path: Path) -> None:
    render_scenes(tmp_path / "scenes", train=40, val=10, test=0, size=64)
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [sys.executable, "-m", "latentcap.cli.main", "train", "stages", "--config", "photos"]
    command += [
        "--config",
        "tiny.yaml",
        "--data.train",
        "scenes",
        "--data.cache_dir",
        "cache",
        "--data.batch_size",
        "8",
    ]
    command += [
        "--trainer.max_epochs=2",
        "--data.least_steps=0",
        "--data.variants=1",
        "--trainer.default_root_dir",
        "run",
    ]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    while not (tmp_path / "run" / "words" / "checkpoints" / "last.ckpt").is_file() and running.poll() is None:
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGTERM)
    said = running.communicate()[1]
    assert running.returncode in (0, 128 + signal.SIGTERM), said  # it may have been done
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    captioner = Captioner.from_pretrained(tmp_path / "run" / "model")
    assert captioner.model.labels is not None
    assert captioner.caption([next((tmp_path / "scenes" / "val").glob("*.jpg"))])[0].labels
