"""Verdicts in words, the ablations of examples, the program with a model, and the table over several runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.cli.evaluate import main
from latentcap.cli.evaluate_seeds import main as seeds
from latentcap.data.batches.context import ContextFields
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.evaluation.baselines import ablations, nearest, places_of_others
from latentcap.evaluation.comparison import compare
from latentcap.model.caption_model import CaptionModel
from tests.helpers import tiny_captioner, tiny_config

RIGHT = [f"a red circle number {n}" for n in range(30)]
WRONG = ["a blue square"] * 30


def test_a_model_that_is_better_is_told_so_and_one_that_is_not_too() -> None:
    references = [[text] for text in RIGHT]
    settings = {"tokenizer": "words", "groups": range(30), "samples": 200}
    good = compare({"model": RIGHT, "floor": WRONG}, references, **settings)  # type: ignore[arg-type]
    bad = compare({"model": WRONG, "floor": WRONG, "nearest": RIGHT}, references, **settings)  # type: ignore[arg-type]
    assert [text.split(":")[0] for text in good.verdicts] == ["BLEU-4", "METEOR exact", "ROUGE-L", "CIDEr-D"]
    assert all("the model beats the best baseline, floor" in text for text in good.verdicts)
    assert all("the model does not beat the best baseline, nearest" in text for text in bad.verdicts)
    assert good.systems["floor"].behind_model["CIDEr-D"].low > 0


def test_another_patient_is_never_the_same_patient() -> None:
    keys = ["a"] * 10 + ["b"] * 5 + ["c"]
    places = places_of_others(keys, seed=0)
    assert all(keys[place] != keys[other] for place, other in enumerate(places))
    assert places == places_of_others(keys, seed=0) != places_of_others(keys, seed=1)
    assert places_of_others(["a", "a"], seed=0) == [0, 1]


def test_ablations_change_one_thing() -> None:
    examples = [
        Example(str(n), (ImageRef(f"{n}.png"),), ("x",), context=f"patient {n}", numbers={"age": n}) for n in range(4)
    ]
    changed = {name: make() for name, make in ablations(examples, 0).items()}
    for place, example in enumerate(examples):
        shuffled, none, other = (
            changed[name][place] for name in ("shuffled images", "no context", "another's context")
        )
        assert shuffled.images != example.images
        assert shuffled.context == example.context
        assert (none.context, dict(none.numbers), none.images) == (None, {}, example.images)
        assert other.context != example.context
        assert other.images == example.images
        assert shuffled.captions == none.captions == other.captions == example.captions


def test_the_nearest_is_found_after_centring() -> None:
    keys = torch.tensor([[10.0, 11.0], [11.0, 10.0], [10.0, 9.0]])
    assert nearest(torch.tensor([[10.1, 10.8], [10.9, 10.0]]), keys) == [0, 1]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    rows = []
    for n in range(12):
        Image.new("RGB", (64, 64), (n * 20, 255 - n * 20, 60)).save(tmp_path / f"{n}.png")
        text = f"a {'red' if n % 2 else 'green'} circle"
        split = "train" if n < 8 else "val"
        rows.append({"file_name": f"{n}.png", "captions": [text], "split": split, "context": f"patient {n}"})
    (tmp_path / "table.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path / "table.jsonl"


def test_the_program_with_a_model_prints_all_baselines(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentcap.metrics.coco.why_unavailable", lambda: "not installed")
    tiny_captioner().save(tmp_path / "model")
    blind = tiny_captioner(sees_image=False)
    blind.save(tmp_path / "blind")
    outs = [tmp_path / "one.json", tmp_path / "two.json"]
    for out in outs:
        arguments = ["--model", str(tmp_path / "model"), "--references", str(dataset), "--tokenizer", "words"]
        arguments += ["--context-only", str(tmp_path / "blind"), "--ablate", "context", "--json", str(out)]
        arguments += ["--cache-dir", str(tmp_path / "cache"), "--samples", "50", "--clinical", "chexpert", "imaging"]
        assert main(arguments) == 0
    printed = capsys.readouterr().out
    for words in (
        "constant",
        "nearest",
        "image only",
        "context only",
        "shuffled",
        "another's context",
        "not beat the best baseline",
    ):
        assert words in printed, words
    report = json.loads(outs[0].read_text())
    assert list(report["comparison"]["systems"]) == [
        "model", "floor", "constant", "nearest", "image only", "context only", "shuffled",
    ]  # fmt: skip
    assert report["protocol"] == "plain"
    assert set(report["findings"]) == set(report["comparison"]["systems"])
    assert set(report["worth"]) == {"image", "context"}
    assert "image worth: the references cost " in printed
    assert [example["nearest"] for example in report["examples"]] != []
    assert len({example["context only"] for example in report["examples"]}) >= 1
    assert set(report["ablation"]["systems"]) == {"with context", "no context", "another's context"}
    assert seeds([*map(str, outs), "--cases", "2", "--seed", "3"]) == 0
    table = capsys.readouterr().out
    assert "4 images, 4 references (val), 2 seeds" in table
    assert "| same model | CIDEr-D |" in table
    assert "above image only" not in table  # it was not trained without context
    assert "2 cases of run 1, chosen by `random.Random(3).sample`" in table


def test_findings_of_the_label_head_stand_beside_those_of_the_captions(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentcap.metrics.coco.why_unavailable", lambda: "not installed")
    plain = tiny_captioner()
    names = {"findings": ["Edema", "No Finding"]}
    model = CaptionModel(
        tiny_config(), vocab_size=len(plain.tokenizer), labels=names, label_lists={"findings": [0.1, 0.7]}
    )
    assert model.labels is not None
    model.labels.thresholds.copy_(torch.tensor([1.0, 0.0]))  # never edema, always nothing
    Captioner(model, tokenizer=plain.tokenizer, image=plain.image).save(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--references", str(dataset), "--protocol", "r2gen"]
    arguments += ["--cache-dir", str(tmp_path / "cache"), "--samples", "10", "--clinical", "chexpert"]
    assert main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["findings"]["label head"] == {
        "No Finding": {"precision": 1, "recall": 1, "F1": 1, "references": 4, "said": 4, "found": 4}
    }
    assert report["protocol"] == "r2gen"
    assert {example["composed"] for example in report["examples"]} == {
        example["constant"] for example in report["examples"]
    }
    printed = capsys.readouterr().out
    assert "label head" in printed
    assert "all texts are cut at 60 words" in printed


def test_mistakes_are_explained(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to score"):
        main(["--references", str(dataset)])
    with pytest.raises(UserError, match="add --model"):
        main(["captions.jsonl", "--references", str(dataset), "--ablate", "context"])
    with pytest.raises(UserError, match="give --protocol alone"):
        main(["captions.jsonl", "--references", str(dataset), "--protocol", "coco", "--tokenizer", "words"])
    with pytest.raises(UserError, match="--samples has to be 1 or more"):
        main(["captions.jsonl", "--references", str(dataset), "--samples", "0"])
    captioner = tiny_captioner(fields=ContextFields())
    captioner.save(tmp_path / "model")
    with pytest.raises(UserError, match=r"sees images\. Train it with"):
        main(["--model", str(tmp_path / "model"), "--references", str(dataset), "--context-only",
              str(tmp_path / "model"), "--cache-dir", str(tmp_path / "cache")])  # fmt: skip
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"not written by latentcap evaluate"):
        seeds([str(tmp_path / "x.json")])
