"""The embedded data set: the same from the same seed, true to its images, and context that is needed."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.scenes import RESERVED, Group, Scene, render_scenes, sample_scene
from latentcap.data.scenes.__main__ import main
from latentcap.data.scenes.paint import paint_scene
from latentcap.data.scenes.words import NUMBERS, ask, describe, plural
from latentcap.data.scenes.world import BACKGROUNDS, COLOURS, SHAPES, TEXTURES, UNSEEN

LARGE_RED_SQUARE = Group(1, "large", "plain", "red", "square")
SMALL_BLUE_STARS = Group(2, "small", "plain", "blue", "star")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_scenes(tmp_path_factory.mktemp("scenes"), train=300, val=100, test=100).parent


@pytest.fixture(scope="module")
def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def scenes(number: int, *, held_out: bool = False) -> list[Scene]:
    return [sample_scene(Random(seed), held_out=held_out) for seed in range(number)]


def texts(record: dict[str, Any]) -> list[str]:
    return [*record["captions"], record.get("context", "")]


def names_pair(text: str) -> bool:
    return any(re.search(rf"\b{colour} {shape}(e?s)?\b", text) for colour, shape in RESERVED)


def test_files_and_metadata_agree(folder: Path, records: list[dict[str, Any]]) -> None:
    assert Counter(record["split"] for record in records) == {"train": 300, "val": 100, "test": 100}
    assert {record["file_name"] for record in records} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")
    }
    for record in records[::50]:
        with Image.open(folder / record["file_name"]) as image:
            assert (image.size, image.mode) == ((128, 128), "RGB")


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    counts = {"train": 6, "val": 3, "test": 3}
    first, again, other, larger = (
        render_scenes(tmp_path / name, **numbers, seed=seed).parent
        for name, numbers, seed in (
            ("a", counts, 5),
            ("b", counts, 5),
            ("c", counts, 6),
            ("d", {**counts, "train": 9}, 5),
        )
    )
    files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert len(files) == 13
    assert all((first / file).read_bytes() == (again / file).read_bytes() for file in files)
    assert all((first / file).read_bytes() != (other / file).read_bytes() for file in files)
    assert all((first / file).read_bytes() == (larger / file).read_bytes() for file in files if file.suffix == ".jpg")


def test_reserved_pairs_are_only_in_val_and_test(records: list[dict[str, Any]]) -> None:
    train = [record for record in records if record["split"] == "train"]
    rest = [record for record in records if record["split"] != "train"]
    assert not any(record["held_out"] for record in train)
    assert not any(names_pair(text) for record in train for text in texts(record))
    assert 0.2 < np.mean([record["held_out"] for record in rest]) < 0.4
    assert any(names_pair(text) for record in rest if record["held_out"] for text in texts(record))
    assert not any(names_pair(text) for record in rest if not record["held_out"] for text in texts(record))


def test_sampling_keeps_the_promise_about_reserved_pairs() -> None:
    assert all(scene.held_out for scene in scenes(300, held_out=True))
    assert not any(scene.held_out for scene in scenes(300))
    assert {colour for colour, _ in RESERVED} == set(COLOURS)
    assert {shape for _, shape in RESERVED} == set(SHAPES)


def test_references_are_five_lower_case_sentences_of_a_small_vocabulary(records: list[dict[str, Any]]) -> None:
    words = Counter(word for record in records for text in texts(record) for word in re.findall("[a-z]+", text))
    assert len(words) < 150
    for record in records:
        assert len(record["captions"]) == 5
        assert all(re.fullmatch("[a-z]+( [a-z]+)*", caption) for caption in record["captions"])


def test_articles_and_numbers_agree(records: list[dict[str, Any]]) -> None:
    adjectives = "|".join(("small", "large", *TEXTURES, *COLOURS))
    one, many = "|".join(SHAPES), "|".join(plural(shape, 2) for shape in SHAPES)
    wrong = re.compile(
        rf"\ba orange|\ban (?!orange)|\b(two|three|four|no) (({adjectives}) )*({one})\b"
        rf"|\b(a|an|one) (({adjectives}) )*({many})\b|there is (two|three|four|no) |there are (a|an|one) "
    )
    captions = [caption for record in records for caption in record["captions"]]
    assert [caption for caption in captions if wrong.search(caption)] == []


def test_half_of_the_images_have_a_context(records: list[dict[str, Any]]) -> None:
    assert 0.42 < np.mean(["context" in record for record in records]) < 0.58
    assert all(record.get("context", "some") for record in records)


def test_descriptions_name_every_group_and_differ_in_detail() -> None:
    for seed, scene in enumerate(scenes(200)):
        captions = describe(scene, Random(seed))
        for group in scene.groups:
            assert all(f"{group.colour} {plural(group.shape, group.count)}" in caption for caption in captions)
        assert sum("background" in caption for caption in captions) == 1
        assert not any(texture in min(captions, key=len) for texture in TEXTURES)


def test_large_is_said_only_where_it_tells_something() -> None:
    alike = Scene("beside", (LARGE_RED_SQUARE, Group(1, "large", "plain", "blue", "star")), "grey")
    differ = Scene("beside", (LARGE_RED_SQUARE, SMALL_BLUE_STARS), "grey")
    said = [" ".join(describe(scene, Random(seed))) for scene in (alike, differ) for seed in range(20)]
    assert not any("large" in text for text in said[:20])
    assert all("large" in text for text in said[20:])


def test_answers_are_about_what_is_asked() -> None:
    """The same scene, asked differently, has answers that do not share the objects they name."""
    scene = Scene("beside", (LARGE_RED_SQUARE, SMALL_BLUE_STARS), "white")
    seen = set()
    for seed in range(400):
        context, answers = ask(scene, Random(seed))
        assert len(answers) == 5
        if "left" in context or "est object" in context or re.search(r"\bred\b", context):
            expected, forbidden = "red square", "star"
        elif "right" in context or "blue" in context:
            expected, forbidden = "two( small)? blue stars", "square"
        elif "stars" in context or "squares" in context:
            expected, forbidden = ("two stars", "square") if "stars" in context else ("one square", "star")
        else:
            asked = next(word for word in (*COLOURS, *SHAPES) if word in context)
            expected = f"nothing.*{asked}|{asked}.*nothing" if asked in COLOURS else f"no {plural(asked, 2)}"
            forbidden = "red|blue|star|square"
        assert all(re.search(expected, answer) for answer in answers), (context, answers)
        assert not any(re.search(forbidden, answer) for answer in answers), (context, answers)
        seen.add(context)
    assert len(seen) > 30


def test_depth_is_asked_of_overlapping_objects() -> None:
    scene = Scene("front", (LARGE_RED_SQUARE, Group(1, "large", "plain", "blue", "star")), "white")
    asked = [ask(scene, Random(seed)) for seed in range(100)]
    front = [answers for context, answers in asked if "front" in context]
    behind = [answers for context, answers in asked if "behind" in context or "back" in context]
    assert front
    assert behind
    assert all("red square" in answer for answers in front for answer in answers)
    assert all("blue star" in answer for answers in behind for answer in answers)


def test_equal_shapes_are_counted_together() -> None:
    scene = Scene("beside", (SMALL_BLUE_STARS, Group(1, "small", "plain", "red", "star")), "grey")
    counted = [ask(scene, Random(seed)) for seed in range(200)]
    answers = [answer for context, five in counted if re.search("count|many|number", context) for answer in five]
    assert set(re.findall("|".join(NUMBERS), " ".join(answers))) == {"no", "three"}


@pytest.mark.parametrize(("colour", "background"), sorted({*itertools.product(COLOURS, BACKGROUNDS)} - UNSEEN))
def test_images_show_the_colours_where_the_words_say(colour: str, background: str) -> None:
    scene = Scene("alone", (Group(1, "large", "plain", colour, "square"),), background, "left")
    pixels = np.asarray(paint_scene(scene, Random(1)), dtype=np.float32)
    shown = pixels[54:74, 24:42].mean(axis=(0, 1))
    assert min(COLOURS, key=lambda name: np.abs(shown - COLOURS[name]).sum()) == colour
    right = pixels[54:74, 90:110].mean(axis=(0, 1))
    assert min(BACKGROUNDS, key=lambda name: np.abs(right - BACKGROUNDS[name]).sum()) == background


@pytest.mark.parametrize(("front", "back"), itertools.product(SHAPES, SHAPES))
def test_the_object_in_front_covers_some_of_the_one_behind(front: str, back: str) -> None:
    """Painted over a red object, the blue one in front hides a part of it; most of it remains to be seen."""

    def red(layout_front: str) -> int:
        groups = Group(1, "large", "plain", layout_front, front), Group(1, "large", "plain", "red", back)
        pixels = np.asarray(paint_scene(Scene("front", groups, "white"), Random(4)), dtype=np.int32)
        return int(((pixels[..., 0] - pixels[..., 1]) > 80).sum())

    blue_in_front, both = red("blue"), red("red")
    assert blue_in_front > 0.2 * both


def test_progress_is_reported(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    render_scenes(tmp_path, train=2, val=1, test=0, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("wrong", [{"train": -1}, {"train": 0, "val": 0, "test": 0}, {"size": 8}])
def test_mistakes_are_explained(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="scenes: "):
        render_scenes(tmp_path, **wrong)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "out"), "--train", "2", "--val", "1", "--test", "1", "--seed", "3"]) == 0
    assert (tmp_path / "out" / "metadata.jsonl").read_text().count("\n") == 4
    assert main([str(tmp_path / "out"), "--train", "-2"]) == 1
    assert "error: scenes: train=-2" in capsys.readouterr().err
