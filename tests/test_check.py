from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from latentcap.cli.prepare import main
from latentcap.data.check.examples import check_examples
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef

ROOT = Path(__file__).parents[1]


def jpeg(color: str, size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "JPEG")
    return buffer.getvalue()


def example(name: str, data: bytes, *captions: str, **rest: object) -> Example:
    return Example(id=name, images=(ImageRef(name, data=data),), captions=captions, **rest)  # type: ignore[arg-type]


def test_clean_data() -> None:
    steps: list[tuple[int, int]] = []
    report = check_examples(
        [
            example("a", jpeg("red"), "A dog.", "a small dog"),
            example("b", jpeg("blue", (20, 30)), "the dog", split="val"),
        ],
        progress=lambda done, total: steps.append((done, total)),
    )
    assert report.clean
    assert steps == [(2, 2)]
    assert (report.splits["train"].examples, report.splits["train"].references) == (1, 2)
    assert report.splits["train"].missing_context is None
    assert report.caption_words == {"min": 2, "median": 2, "mean": 7 / 3, "p95": 3, "max": 3}
    assert (report.width["max"], report.height["min"]) == (20, 6)
    once, twice = report.vocabulary[:2]
    assert (once.size, once.coverage) == (3, {"train": 1.0, "val": 0.5})
    assert (twice.min_frequency, twice.size, twice.coverage) == (2, 2, {"train": 0.8, "val": 0.5})


def test_problems_are_found_and_named() -> None:
    same = jpeg("red")
    report = check_examples(
        [
            example("a", same, "x", numbers={"age": None}, categories={"sex": "F"}, context="cough"),
            example("b", same, "x", numbers={"age": 3.0}, categories={"sex": "F"}),
            example("c", same, "x", split="test"),
            example("broken", jpeg("blue")[:60], "x"),
            example("silent", jpeg("blue"), split="val"),
            example("dots", jpeg("green"), "fine", " ... ", split="val"),
            Example(id="gone", images=(ImageRef("/nowhere/gone.jpg"),), captions=("x",)),
        ]
    )
    assert not report.clean
    assert [file for file, _ in report.unreadable] == ["broken", "/nowhere/gone.jpg"]
    assert report.empty_captions == ("silent", "dots")
    assert [leak.examples for leak in report.leaks] == [("a (train)", "b (train)", "c (test)")]
    assert report.splits["train"].missing_context == 3
    assert report.splits["val"].missing_captions == 1
    assert {name: sum(missing.values()) for name, missing in report.missing_fields.items()} == {"age": 6, "sex": 5}
    assert report.missing_fields["age"]["val"] == report.splits["val"].examples
    text = report.to_text(limit=1)
    assert "... and 1 more" in text
    assert "a (train) = b (train) = c (test)" in text
    assert json.loads(json.dumps(report.to_dict()))["clean"] is False


def test_a_leak_between_examples_of_the_same_id_is_seen() -> None:
    same = jpeg("red")
    assert check_examples([example("a", same, "x"), example("a", same, "x", split="val")]).leaks


def test_a_repeat_within_a_split_is_counted_and_no_problem() -> None:
    same = jpeg("red")
    report = check_examples([example("a", same, "x"), example("b", same, "x")])
    assert report.clean
    assert len(report.duplicates) == 1
    assert "within a split: 1" in report.to_text()


def test_no_examples_at_all() -> None:
    assert check_examples([]).to_text().endswith("clean")


@pytest.mark.parametrize(
    ("captions", "language", "length"),
    [
        (["一只红色的猫坐在桌子上", "两个男人。"], "Chinese", 11),
        (["赤いネコ", "テーブルの上"], "Japanese", 6),
        (["สุนัขนั่ง"], "Thai", 5),  # marks stay with their letters
        (["नमस्ते दुनिया"], None, 2),
        (["two dogs", "a dog named 猫"], None, 4),
    ],
)
def test_scripts_without_spaces_are_counted_by_character_with_the_right_advice(
    captions: list[str], language: str | None, length: int
) -> None:
    report = check_examples([example("a", jpeg("red"), *captions)])
    assert report.unspaced == language
    assert report.caption_words["max"] == length
    assert ("--data.tokenizer.kind bpe" in report.to_text()) is (language is not None)
    assert (f"captions in {language}" in report.to_text()) is (language is not None)


# the program


def test_program_on_clean_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg("red"))
    (tmp_path / "a.txt").write_text("a dog")
    assert main(["check", str(tmp_path), "--json", str(tmp_path / "report.json")]) == 0
    assert "1 examples" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["images"] == 1


def test_program_takes_the_names_of_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg("red"))
    (tmp_path / "t.csv").write_text("image,Findings,age,weight\na.jpg,clear,70,\n")
    table = str(tmp_path / "t.csv")
    assert main(["check", table, "--field", "caption=Findings", "--field", "numbers=age,weight"]) == 0
    assert "field 'weight': missing in train 1 of 1" in capsys.readouterr().out
    with pytest.raises(UserError, match="Did you mean 'caption'"):
        main(["check", table, "--field", "captoin=Findings"])


def test_program_exit_codes_and_messages(tmp_path: Path) -> None:
    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "latentcap.cli.main", "prepare", "check", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    (tmp_path / "t.csv").write_text("image,caption\nnowhere.jpg,a dog\n")
    problems = program(str(tmp_path / "t.csv"))
    assert problems.returncode == 1
    assert "nowhere.jpg: No such file" in problems.stdout
    unreadable = program(str(tmp_path / "nothing"))
    assert unreadable.returncode == 2
    assert unreadable.stderr.startswith("error: the path does not exist")
    assert "Traceback" not in unreadable.stderr


@pytest.mark.slow
def test_program_on_rsicd(capsys: pytest.CaptureFixture[str]) -> None:
    if "LATENTCAP_DATA" not in os.environ:
        pytest.skip("LATENTCAP_DATA does not name a folder with the RSICD data")
    assert main(["check", str(Path(os.environ["LATENTCAP_DATA"], "rsicd"))]) == 1  # three blank captions, as published
    printed = capsys.readouterr().out
    assert "43,670 captions" in printed
    assert "unreadable images: 0" in printed
    assert "images in more than one split: 0" in printed


def test_everything_seen_is_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "silent"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg("red" if name == "a" else "blue" if name == "b" else "green"))
    for name in ("a", "b", "broken", "lost"):
        (tmp_path / f"{name}.txt").write_text(f"a {name} dog")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "v.mp4").write_bytes(b"")
    assert main(["check", str(tmp_path), "--json", str(tmp_path / "report.json")]) == 1
    printed = capsys.readouterr().out
    assert "seen: 6 = 2 used + 3 skipped + 1 failed" in printed
    assert "lost.txt: a caption without an image" in printed
    assert "v.mp4: a video" in printed
    assert "no val split: training takes 1 of the examples of train as val" in printed
    assert json.loads((tmp_path / "report.json").read_text())["tally"] == {"used": 2, "skipped": 3, "failed": 1}
    (tmp_path / "v.mp4").unlink()
    for name in ("silent.jpg", "broken.jpg", "broken.txt", "lost.txt"):
        (tmp_path / name).unlink()
    assert main(["check", str(tmp_path)]) == 0
    (tmp_path / "c.avi").write_bytes(b"")
    assert main(["check", str(tmp_path)]) == 1
