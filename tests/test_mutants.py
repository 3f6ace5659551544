"""What the benchmarks of reliability are made of: files broken on purpose, and outputs read back strictly."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image

from latentcap.batch.inputs import Input, Inputs
from latentcap.batch.outputs import FORMATS, REPORTS, make_output
from latentcap.bench.mutants import IMAGES, PICTURES, TEXTS, mutants, sample
from latentcap.bench.read_back import read_back
from latentcap.data.image import ImageRef, decode_image
from latentcap.data.listing import iter_images

COLOURS = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]


@pytest.mark.parametrize("kind", [*PICTURES, "dcm"])
def test_a_sample_of_each_kind_is_whole(kind: str) -> None:
    if kind == "dcm":
        pytest.importorskip("pydicom")
    assert min(decode_image(sample(kind, COLOURS), name=f"x.{kind}").size) >= 18


@pytest.mark.parametrize("kind", ["tar", "zip", "jsonl", "csv", "tsv", "parquet"])
def test_a_sample_of_what_holds_several_images(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(sample(kind, COLOURS))
    assert len(list(iter_images(path) if kind in ("tar", "zip") else Inputs([str(path)]))) in (3, 5)


def test_broken_images_are_errors_of_one_kind_and_the_same_ones_come_again() -> None:
    made = list(mutants(IMAGES, COLOURS, 300, random.Random(7)))
    assert made == list(mutants(IMAGES, COLOURS, 300, random.Random(7)))
    assert {kind for kind, _ in made} == set(IMAGES)
    whole = 0
    for kind, data in made:
        try:
            decode_image(data, name=f"x.{kind}", side=64)
            whole += 1
        except OSError:
            pass
    assert 30 < whole < 200
    assert {kind for kind, _ in mutants(TEXTS, COLOURS, 10, random.Random(7))} == set(TEXTS)


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - {*REPORTS, "srt", "vtt"}))
def test_outputs_are_read_back(kind: str, tmp_path: Path) -> None:
    photos, path = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    image = photos / "7.jpg"
    image.write_bytes(sample("jpg", COLOURS))
    assert read_back(kind, path, photos) == []
    output = make_output(None if kind == "embed" else path, tmp_path / "out.run", kind)
    item = Input("7.jpg", (ImageRef(str(image)),))
    assert output.prepare(item, known=False) == item
    with output.journal:
        output.append([{"file": "7.jpg", "caption": "a dog", "score": 0.0, "_images": [[str(image), None, None, ""]]}])
    output.finish(quiet=True)
    ((_, text),) = read_back(kind, path, photos)
    assert text == "a dog"
    if kind == "jsonl":
        return
    files = [image] if kind == "embed" else [path, *path.rglob("*.*")]
    file = next(file for file in files if file.is_file() and file.name != "README.md")
    file.write_bytes(file.read_bytes()[: -1 if kind in ("txt", "caption") else -30])
    with pytest.raises((ValueError, KeyError, OSError)):
        read_back(kind, path, photos)
