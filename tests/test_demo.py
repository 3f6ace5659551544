"""The demo on a few scenes: what it leaves, and that it goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentcap.cli import demo
from latentcap.data.errors import UserError


def scene(number: int, split: str, captions: list[str], **more: object) -> demo.Scene:
    return {"file_name": f"{split}/{number:05d}.jpg", "split": split, "captions": captions, "held_out": False, **more}


def test_scores_of_each_part() -> None:
    scenes = [
        scene(0, "train", ["a red star"] * 5),
        scene(0, "test", ["a blue ring on the left", "a blue ring"], context="what is on the left?"),
        scene(1, "test", ["a red star above a green heart"], held_out=True),
    ]
    captions = {
        demo.MODEL: {"00000.jpg": "a blue ring on the left", "00001.jpg": "a red star above a green heart"},
        demo.WITHHELD: {"00000.jpg": "a blue ring and a cross", "00001.jpg": "a red star above a green heart"},
        demo.FREQUENT: {"00000.jpg": "a red star", "00001.jpg": "a red star"},
    }
    scores = demo.score(scenes, captions)
    assert [part["images"] for part in scores.values()] == [2, 1, 1, 1]
    everything, asked, plain, _ = scores.values()
    assert everything[demo.MODEL]["BLEU-4"] == pytest.approx(1)  # type: ignore[index]
    assert asked[demo.WITHHELD]["ROUGE-L"] < 1  # type: ignore[index,operator]
    assert demo.WITHHELD not in plain
    assert everything[demo.FREQUENT]["ROUGE-L"] < everything[demo.WITHHELD]["ROUGE-L"]  # type: ignore[operator,index]


def test_it_goes_on_only_with_the_same_settings(tmp_path: Path) -> None:
    first = demo.State(tmp_path, {"train": 8})
    assert not first.resumed
    (tmp_path / "captions.jsonl").write_text("")
    first.finish_training()
    again = demo.State(tmp_path, {"train": 8})
    assert (again.resumed, again.trained) == (True, True)
    assert (tmp_path / "captions.jsonl").exists()
    other = demo.State(tmp_path, {"train": 9})
    assert (other.resumed, other.trained) == (False, False)
    assert not (tmp_path / "captions.jsonl").exists()
    other.clear()
    assert not demo.State(tmp_path, {"train": 9}).resumed


def test_scenes_are_drawn_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = demo.draw(tmp_path, train=3, test=2)
    assert len(lines) == 7
    image = tmp_path / "test" / "00001.jpg"
    image.unlink()
    assert demo.draw(tmp_path, train=3, test=2) == lines
    assert not image.exists()
    assert "there already" in capsys.readouterr().out
    assert len(demo.draw(tmp_path, train=4, test=2)) == 8


@pytest.mark.parametrize("arguments", [["--train", "0"], ["--epochs", "-1"]])
def test_numbers_that_cannot_be(arguments: list[str]) -> None:
    with pytest.raises(UserError, match="give 1 or more"):
        demo.main(arguments)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        demo.main(["--folder", str(tmp_path / "file" / "demo")])


@pytest.mark.slow
def test_interrupted_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentcap.training.module import CaptionModule

    folder, original, steps = tmp_path / "demo", CaptionModule.training_step, []

    def stop_at_the_third(self: CaptionModule, batch: object, index: int) -> object:
        steps.append(index)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return original(self, batch, index)  # type: ignore[arg-type]

    monkeypatch.setattr(CaptionModule, "training_step", stop_at_the_third)
    arguments = ["--folder", str(folder), "--train", "70", "--test", "6", "--epochs", "2"]
    with pytest.raises(KeyboardInterrupt):
        demo.main(arguments)
    assert demo.main(arguments) == 0
    said = capsys.readouterr().out
    assert "going on from the last checkpoint" in said
    for name in ("model/config.json", "captions.jsonl", "gallery.html"):
        assert (folder / name).is_file()
    assert len((folder / "captions.jsonl").read_text().splitlines()) == 6
    scores = json.loads((folder / "scores.json").read_text())
    assert set(scores["all test scenes"][demo.MODEL]) == {"BLEU-4", "ROUGE-L", "CIDEr-D"}
    assert not (folder / "unfinished.json").exists()
    for command in demo.next_commands(folder):
        assert "latentcap" in command
