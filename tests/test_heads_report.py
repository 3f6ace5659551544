"""``heads.py report``: table, page, CSV and JSON of a model folder and a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentcap.cli.heads import PROGRAMS, main
from latentcap.data.errors import UserError
from latentcap.data.scenes import render_scenes
from tests.helpers import real_data, tiny_captioner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    render_scenes(folder / "scenes", train=4, val=6, test=2, size=64)
    tiny_captioner().save(folder / "model")
    return folder


def report(folder: Path, *more: str) -> int:
    given = ["--model", folder / "model", "--data", folder / "scenes", "--output", folder / "heads.html"]
    return main(["report", *map(str, given), *more])


def test_everything_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scenes" / "val" / "00001.jpg").write_bytes(b"broken")
    files = ["--csv", str(folder / "heads.csv"), "--json", str(folder / "heads.json")]
    assert report(folder, *files) == 0
    shown = capsys.readouterr()
    assert "visual head" in shown.out
    assert "skipped" in shown.err
    assert "5 examples" in shown.out
    page = (folder / "heads.html").read_text()
    assert page.count("<article>") == 4
    assert "http" not in page.replace("http-equiv", "")
    assert len((folder / "heads.csv").read_text().splitlines()) == 5
    content = json.loads((folder / "heads.json").read_text())
    assert content["examples"] == 5
    assert len(content["heads"]) == 4


def test_a_part_of_another_split(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(folder, "--split", "train", "--limit", "2") == 0
    assert "2 examples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--limit", "0"], "--limit 0"),
        (["--split", "tset"], "tset"),
        (["--csv", "nowhere/heads.csv"], "folder nowhere does not exist"),
    ],
)
def test_mistakes_are_told(folder: Path, more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        report(folder, *more)


def test_every_program_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in PROGRAMS)


@pytest.mark.slow
def test_a_model_of_photographs(tmp_path: Path) -> None:
    source = real_data("rsicd") / "val-00000.tar"
    page = tmp_path / "heads.html"
    given = ["--model", "models/rsicd", "--data", source, "--limit", "8", "--output", page]
    assert main(["report", *map(str, given)]) == 0
    assert page.read_text().count("<article>") == 8
