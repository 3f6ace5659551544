"""The budget report from the command line; what parts of a caption's time are; which budgets there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentcap.cli.heads import budget
from latentcap.config import FusionConfig
from latentcap.data.errors import UserError
from latentcap.data.readers import read_examples
from latentcap.data.scenes import render_scenes
from latentcap.heads import budgets
from latentcap.heads.latency import caption_latency, head_counts
from tests.helpers import tiny_captioner


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    render_scenes(folder, train=1, val=5, test=1, size=64)
    return folder


def test_the_report(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_captioner(fusion=FusionConfig(visual_heads=2, text_heads=1, head_dim=8, latent_dim=8)).save(tmp_path / "a")
    alone = FusionConfig(visual_heads=1, text_heads=1, head_dim=8, latent_dim=8)
    tiny_captioner(fusion=alone).save(tmp_path / "alone")
    given = ["--model", str(tmp_path / "a"), str(tmp_path / "a"), "--beside", str(tmp_path / "alone")]
    given += ["--data", str(scenes), "--cache", str(tmp_path / "cache"), "--images", "2", "--repeats", "1"]
    assert budget.main([*given, "--output", str(tmp_path / "budget.json")]) == 0
    report = json.loads((tmp_path / "budget.json").read_text())
    first, second = report["quality"]["rows"]
    assert (first["heads"], second["heads"]) == ("1+1", "2+1")
    assert "±" in first["CIDEr-D"]  # two seeds
    assert first["trained alone"]
    assert second["trained alone"] is None
    assert second["of 2+1"] in ("100.0%", None)
    fast, whole = report["latency"]["rows"]
    assert all(fast[f"{part} ms"] > 0 for part in ("read", "backbone", "fusion", "search"))
    assert fast["x 1+1"] == 1 != whole["x 1+1"]
    assert len(report["scores"]["nested"]["2+1"]) == 2
    assert [row["heads"] for row in report["steps"]["rows"]] == ["1+0", "1+1", "2+1"]
    text = (tmp_path / "budget.md").read_text()
    assert "| 1+1 |" in text
    assert "196 regions" in text
    shown = capsys.readouterr().out
    assert "Head budgets" in shown
    tables = [line for line in shown.splitlines() if line.startswith(("┃", "│"))]
    assert max(map(len, tables)) <= 100


def test_parts_add_up_and_the_model_is_left_as_it_was(scenes: Path) -> None:
    captioner = tiny_captioner()
    examples = [example for example in read_examples(str(scenes)) if example.split == "val"]
    (found,) = caption_latency({"all": captioner}, examples[:3], beam_size=2).values()
    assert [len(times) for times in found.parts.values()] == [3, 3, 3, 3]
    assert all(min(times) > 0 for times in found.parts.values())
    row = found.row()
    assert row["p95 ms"] >= row["p50 ms"] > max(row["backbone ms"], row["fusion ms"])
    assert row["words"] == sum(found.words) / 3
    assert "attend" not in vars(captioner.model.decoder.fusion)


def test_latency_is_of_captions_of_one_length(scenes: Path) -> None:
    captioner = tiny_captioner()
    examples = [example for example in read_examples(str(scenes)) if example.split == "val"]
    (found,) = caption_latency({"all": captioner}, examples[:3], min_length=5, max_length=5).values()
    assert found.words == [5, 5, 5]


def test_which_budgets_there_are() -> None:
    sizes = FusionConfig(visual_heads=3, text_heads=2)
    assert budgets.budgets(None, sizes) == ["1+1", "2+2", "3+2"]
    assert budgets.budgets(["every"], sizes) == ["1+1", "1+2", "2+1", "2+2", "3+1", "3+2"]
    assert budgets.budgets(["3+2", "1+0"], sizes) == ["1+0", "3+2"]
    assert budgets.budgets(["every"], FusionConfig(visual_heads=2, text_heads=0)) == ["1+0", "2+0"]
    with pytest.raises(UserError, match=r"--heads 4\+1: the model has 3\+2"):
        budgets.budgets(["4+1"], sizes)
    with pytest.raises(UserError, match=r"such as 1\+1"):
        budgets.budgets(["all"], sizes)


def test_numbers_of_heads_grow_by_one() -> None:
    assert head_counts(2, 2) == [(1, 0), (1, 1), (2, 1), (2, 2)]
    assert head_counts(3, 1) == [(1, 0), (1, 1), (2, 1), (3, 1)]
    assert head_counts(0, 2) == [(0, 1), (0, 2)]


@pytest.mark.parametrize(
    ("args", "message"),
    [(["--images", "0"], "--images 0"), (["--output", "budget.txt"], "give a .json file"), ([], "does not exist")],
)
def test_mistakes(args: list[str], message: str, tmp_path: Path) -> None:
    given = ["--model", "nowhere", "--data", "nowhere", "--output", str(tmp_path / "budget.json"), *args]
    with pytest.raises(UserError, match=message):
        budget.main(given)
