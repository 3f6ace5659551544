"""The program that scores captions: matching, the table, the floor, and messages for what does not fit."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from latentcap.cli.evaluate import main
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.evaluation.matching import match
from latentcap.evaluation.predictions import Caption
from latentcap.evaluation.report import evaluate
from latentcap.metrics import caption_scores


def example(
    id: str, path: str, *, name: str = "", split: str = "val", captions: tuple[str, ...] = ("a road",)
) -> Example:
    return Example(id=id, images=(ImageRef(path, name=name),), captions=captions, split=split)


def caption(file: str = "", *, id: str = "", line: int = 1) -> Caption:
    return Caption(text="a road", file=file, id=id, line=line)


def matched(captions: list[Caption], examples: list[Example]) -> dict[int, str]:
    return {given.line: found.id for given, found in match(captions, examples, "captions.jsonl").pairs}


def write_lines(path: Path, records: list[object]) -> Path:
    path.write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A table of four images in two splits. The most frequent training caption is "some trees"."""
    rows = [
        {"file_name": "train/1.jpg", "captions": ["some trees", "Some trees."], "split": "train"},
        {"file_name": "train/2.jpg", "captions": ["a river", "some trees"], "split": "train"},
        {"file_name": "val/1.jpg", "captions": ["a road near a river", "a road"], "split": "val"},
        {"file_name": "val/2.jpg", "captions": ["two planes parked in a row"], "split": "val"},
    ]
    return write_lines(tmp_path / "table.jsonl", rows)


# --- matching ---------------------------------------------------------------------------------------------------


def test_ids_come_before_paths_and_long_paths_before_names() -> None:
    examples = [example("one", "/data/a/1.jpg"), example("two", "/data/b/1.jpg"), example("three", "/data/c/3.jpg")]
    captions = [caption("a/1.jpg", id="two"), caption("elsewhere/a/1.jpg", line=2), caption("/old/3.jpg", line=3)]
    assert matched(captions, examples) == {1: "two", 2: "one", 3: "three"}


def test_members_of_archives_match_by_name_and_with_the_archive() -> None:
    examples = [example("x", "/data/val-0.tar", name="x.jpg"), example("y", "/data/val-1.tar", name="x.jpg")]
    captions = [caption("val-1.tar/x.jpg"), caption("/data/val-0.tar:x.jpg", line=2)]
    assert matched(captions, examples) == {1: "y", 2: "x"}
    assert matched([caption("x.jpg")], examples[:1]) == {1: "x"}


def test_a_worse_match_does_not_take_an_image_that_another_caption_fits() -> None:
    found = match([caption("val/1.jpg"), caption("train/1.jpg", line=2)], [example("1", "/d/val/1.jpg")], "c.jsonl")
    assert [given.line for given, _ in found.pairs] == [1]
    assert [given.line for given in found.unmatched_captions] == [2]


def test_what_is_left_over_is_counted_in_the_splits_that_were_captioned() -> None:
    examples = [example(f"{n}", f"/d/{n}.jpg") for n in range(3)] + [example("t", "/d/t.jpg", split="train")]
    examples.append(example("no references", "/d/9.jpg", captions=()))
    found = match([caption("1.jpg")], examples, "c.jsonl")
    assert found.splits == ["val"]
    assert found.unmatched_examples == ["0", "2"]
    assert found.notes() == ["left out: 2 images with references, for which there is no caption: 0, 2"]


def test_ambiguous_and_repeated_captions_are_errors() -> None:
    examples = [example("a/1.jpg", "/d/a/1.jpg"), example("b/1.jpg", "/d/b/1.jpg", split="test")]
    with pytest.raises(UserError, match=r"line 7 \(1.jpg\): may be any of 2 examples: a/1.jpg, b/1.jpg.*--split"):
        matched([caption("1.jpg", line=7)], examples)
    with pytest.raises(UserError, match=r"line 3 .* and line 5 .*both are captions of the example 'a/1.jpg'"):
        matched([caption("a/1.jpg", line=3), caption("a/1.jpg", line=5)], examples)


def test_nothing_in_common_is_an_error_that_shows_both_sides() -> None:
    with pytest.raises(UserError, match=r"none of its 1 captions.*cat.png.*dog.*by id, then by relative path"):
        matched([caption("cat.png")], [example("dog", "/d/dog.jpg")])
    with pytest.raises(UserError, match=r"hold no captions.*--field caption=COLUMN"):
        matched([caption("cat.png")], [example("cat", "/d/cat.png", captions=())])


@pytest.mark.parametrize(
    ("given", "id", "aliases"),
    [
        ("139", "a.jpg", ("139",)),
        ("000139", "a.jpg", ("139",)),
        ("139", "x/COCO_val2014_000000000139.jpg", ()),
        ("a", "a.jpg", ()),
        ("b/a.jpg", "c/b/a.jpg", ()),
        ("007", "007", ()),
    ],
)
def test_ids_are_compared_as_text_then_as_numbers_then_as_paths(given: str, id: str, aliases: tuple[str, ...]) -> None:
    right = replace(example(id, f"/d/{id}"), aliases=aliases)
    others = [replace(example("140.jpg", "/d/140.jpg"), aliases=("140",)), example("1390", "/d/1390.jpg")]
    assert matched([caption(id=given)], [*others, right]) == {1: id}


def test_equal_numbers_do_not_hide_which_text_is_meant() -> None:
    examples = [example("7", "/d/x.jpg"), example("007", "/d/y.jpg")]
    assert matched([caption(id="007"), caption(id="7", line=2)], examples) == {1: "007", 2: "7"}
    with pytest.raises(UserError, match="may be any of 2 examples"):
        matched([caption(id="07")], examples)


def test_a_name_without_suffix_is_that_of_the_image() -> None:
    examples = [example("a/1.jpg", "/d/a/1.jpg"), example("b/1.png", "/d/b/1.png")]
    texts = [Caption("x", "out/b/1", "", 1, stem=True), Caption("x", "a/1", "", 2, stem=True)]
    assert matched(texts, examples) == {1: "b/1.png", 2: "a/1.jpg"}


def test_all_captions_of_one_example_too_many_are_counted() -> None:
    captions = [caption("1.jpg", line=n) for n in range(1, 4)]
    with pytest.raises(UserError, match="2 captions are a second one like that"):
        matched(captions, [example("1", "/d/1.jpg")])


# --- the report -------------------------------------------------------------------------------------------------


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without the extra: the tests of the metrics run the Java programs."""
    for module in ("latentcap.metrics.coco", "latentcap.cli.evaluate"):
        monkeypatch.setattr(f"{module}.why_unavailable", lambda: "not installed")


@pytest.mark.usefixtures("no_java")
def test_report_without_training_captions_takes_the_floor_from_the_references() -> None:
    report = evaluate(["A road.", ""], [["a road", "a river"], ["a river"]], tokenizer="words")
    assert report.floor_caption == "a river"
    assert not report.floor_from_training
    assert report.captions["novel share"] is None
    assert report.captions["distinct captions"] == 2
    assert report.captions["mean length"] == 1
    assert report.floor["ROUGE-L"] == pytest.approx(1)
    assert report.captions["METEOR"] is None
    assert report.reasons["METEOR"] == "not installed"
    assert (report.images, report.references) == (2, 3)


@pytest.mark.usefixtures("no_java")
def test_program_prints_the_table_and_writes_everything(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"file": "val/1.jpg", "caption": "A road.", "score": -1.0}, {"file": "val/2.jpg", "caption": "some trees"}]
    captions = write_lines(tmp_path / "captions.jsonl", lines)
    assert main([str(captions), "--references", str(dataset), "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "2 images, 3 references (val)" in printed
    assert "the most frequent training caption, given to every image: 'some trees'" in printed
    assert "protocol plain: our own words" in printed
    assert "METEOR: not installed" in printed
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["splits"] == ["val"]
    assert written["tokenizer"] == "words"
    assert written["captions"]["novel share"] == 0.5
    assert written["captions"]["BLEU-1"] > written["floor"]["BLEU-1"]
    assert written["floor"]["distinct captions"] == 1


@pytest.mark.usefixtures("no_java")
def test_program_says_what_it_left_out(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"file": "val/1.jpg", "caption": "a road"}, {"file": "cat.jpg", "caption": "a cat"}]
    captions = write_lines(tmp_path / "captions.jsonl", lines)
    main([str(captions), "--references", str(dataset), "--split", "validation"])
    printed = capsys.readouterr().out
    assert "1 captions without references: line 2 (cat.jpg)" in printed
    assert "1 images with references, for which there is no caption: val/2.jpg" in printed
    with pytest.raises(UserError, match="no examples in the split 'test'"):
        main([str(captions), "--references", str(dataset), "--split", "test"])


@pytest.mark.usefixtures("no_java")
def test_one_image_has_no_cider_and_no_intervals_and_is_told_why(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_lines(tmp_path / "captions.jsonl", [{"file": "val/1.jpg", "caption": "a road"}])
    assert main([str(captions), "--references", str(dataset), "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "CIDEr: none for one image: CIDEr weighs words by how few of the images' references share them" in printed
    assert "intervals and tests: none, for there is one image only" in printed
    assert "does not beat" not in printed
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["captions"]["CIDEr-D"] is None
    assert written["captions"]["BLEU-1"] == pytest.approx(1)
    assert written["unmatched_examples"] == ["val/2.jpg"]


@pytest.mark.usefixtures("no_java")
def test_captions_in_chinese_are_scored_by_character_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["一只红色的猫坐在桌子上", "两个男人在海滩上踢足球", "一架飞机停在机场"]
    rows = [{"file_name": f"{n}.jpg", "text": text, "split": "val"} for n, text in enumerate(texts)]
    table = write_lines(tmp_path / "refs.jsonl", list(rows))
    captions = write_lines(
        tmp_path / "same.jsonl", [{"file": f"{n}.jpg", "caption": f"{text}。"} for n, text in enumerate(texts)]
    )
    assert main([str(captions), "--references", str(table), "--json", str(tmp_path / "out.json")]) == 0
    assert "Chinese is written without spaces between words: scored by character" in capsys.readouterr().out
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["captions"]["BLEU-4"] == pytest.approx(1)
    assert written["captions"]["mean length"] == pytest.approx(10)


@pytest.mark.usefixtures("no_java")
def test_full_stops_are_words_where_text_is_taken_as_it_is() -> None:
    """A constant report of lower-case sentences, as published medical numbers count it: more than without its stops."""
    references = [["the heart is normal . the lungs are clear ."], ["no effusion . the heart is large ."], ["clear ."]]
    constant = ["the heart is normal . the lungs are clear . no effusion ."] * 3
    stops = evaluate(constant, references, tokenizer="whitespace").captions
    plain = evaluate(constant, references, tokenizer="words").captions
    assert stops["mean length"] == 13
    assert plain["mean length"] == 10
    wanted = caption_scores(constant, references)  # on what blanks separate
    assert {name: stops[name] for name in wanted} == pytest.approx(wanted)
    assert stops["BLEU-1"] > plain["BLEU-1"]  # type: ignore[operator]
    assert stops["CIDEr (plain)"] > stops["CIDEr-D"]  # type: ignore[operator]


@pytest.mark.slow
def test_other_images_captions_on_rsicd_score_as_in_cocos_evaluation(tmp_path: Path) -> None:
    """Each image of RSICD's val split gets the next one's first caption; numbers are those of pycocoevalcap 1.2."""
    folder = os.environ.get("LATENTCAP_DATA")
    if folder is None:
        pytest.skip("needs real data: set LATENTCAP_DATA")
    pytest.importorskip("pycocoevalcap.bleu.bleu", reason="needs the coco extra")
    source = Path(folder, "rsicd", "val-00000.tar")
    with tarfile.open(source) as tar:
        records = [(m.name, json.load(tar.extractfile(m))) for m in tar if m.name.endswith(".json")]  # type: ignore[arg-type]
    texts = [record["captions"][0] for _, record in records]
    names = [name.replace(".json", ".jpg") for name, _ in records]
    lines: list[object] = [
        {"file": name, "caption": text} for name, text in zip(names, texts[1:] + texts[:1], strict=True)
    ]
    captions, out = write_lines(tmp_path / "captions.jsonl", lines), tmp_path / "out.json"
    train = str(source.with_name("train-{00000..00002}.tar"))
    main([str(captions), "--references", str(source), "--train", train, "--tokenizer", "ptb", "--json", str(out)])
    report = json.loads(out.read_text(encoding="utf-8"))
    expected = {
        "BLEU-1": 0.2915729735517409,
        "BLEU-2": 0.12960600014796916,
        "BLEU-3": 0.0690245882133393,
        "BLEU-4": 0.04038328557887702,
        "METEOR": 0.08783170477342292,
        "ROUGE-L": 0.20268731690295885,
        "CIDEr-D": 0.10421142004497845,
    }
    assert {name: report["captions"][name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert (report["images"], report["references"]) == (1094, 5470)
    assert report["floor_caption"] == "many buildings and green trees are in a dense residential area"
