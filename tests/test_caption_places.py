"""Captioning folders: what comes in from where, and where what goes out may lie."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from latentcap.cli.caption import main
from latentcap.data.errors import UserError
from tests.helpers import Program


def test_tables_bring_contexts(caption: Program, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("image,context\nphotos/red.png,the left circle\nphotos/red.png,\nphotos/gone.png,x\n")
    assert caption(table) == 3
    assert [line["file"] for line in caption.lines] == ["photos/red.png", "photos/red.png#2"]
    assert caption.lines[0]["context"] == "the left circle"
    assert "context" not in caption.lines[1]
    assert caption.errors == [{"file": "photos/gone.png", "error": "No such file or directory"}]


def test_lists_and_standard_input(
    caption: Program, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [photos / name for name in ("red.png", "gone.png", "deep", "deep/black.png")]  # a folder is an error
    listing = "\n".join(map(str, files)) + "\n"
    (tmp_path / "list.txt").write_text(listing)
    assert caption(f"@{tmp_path / 'list.txt'}") == 3
    names = [line["file"] for line in caption.lines]
    assert names == [str(photos / name) for name in ("red.png", "deep/black.png")]
    for text in (listing, listing.replace("\n", "\0")):
        stream = io.TextIOWrapper(io.BytesIO(text.encode()))
        monkeypatch.setattr("sys.stdin", stream)
        assert caption("-", "--overwrite", "--gallery", tmp_path / "g.html") == 3
        assert [line["file"] for line in caption.lines] == names
    assert (tmp_path / "g.html").read_text().count('"caption": ') == 4


def test_what_is_captioned_is_never_the_output(caption: Program, photos: Path, tmp_path: Path) -> None:
    table, listing = tmp_path / "rows.jsonl", tmp_path / "list"
    table.write_text('{"file": "photos/red.png"}\n')
    listing.write_text(f"{photos / 'red.png'}\n")
    for source, path in ((table, table), (f"@{listing}", listing), (photos, photos / "red.png")):
        caption.output, before = path, path.read_bytes()
        with pytest.raises(UserError, match="is what is to be captioned"):
            caption(source, "--overwrite")
        assert path.read_bytes() == before


def test_lines_that_somebody_else_wrote_are_not_added_to(caption: Program, photos: Path) -> None:
    caption.output.parent.mkdir()
    caption.output.write_text('{"file": "red.png", "caption": "mine"}\n')
    with pytest.raises(UserError, match=r"there is no captions\.jsonl\.run beside it"):
        caption(photos)
    assert [line["caption"] for line in caption.lines] == ["mine"]
    caption.output.write_text("")
    assert caption(photos) == 0


@pytest.mark.parametrize("where", ["beside", "the folder", "its parent"])
def test_images_with_texts_stay_inputs_and_get_other_texts(
    where: str, caption: Program, model: Path, photos: Path, tmp_path: Path
) -> None:
    more = {"beside": [], "the folder": ["--output", photos], "its parent": ["--output", tmp_path]}[where]
    for kind in ("txt", "xmp"):
        assert main([str(word) for word in (photos, "--model", model, "--format", kind, *more)]) == 0
    assert main([str(photos / "red.png"), "--model", str(model), "--embed"]) == 0
    assert caption(photos) == 0
    assert len(caption.lines) == 5
    assert caption(photos, photos / "deep", "--overwrite") == 0
    assert len(caption.lines) == 5
    assert caption(tmp_path, "--overwrite") == 0
    assert len(caption.lines) == 5


def test_sidecars_beside_the_images_and_below_another_folder(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "red.txt").write_text("mine\n")
    command = [str(photos), "--model", str(model), "--format", "txt", "--batch-size", "2"]
    assert main(command) == 0
    assert "4 captioned, 1 skipped" in capsys.readouterr().err
    assert (photos / "red.txt").read_text() == "mine\n"
    caption = (photos / "deep" / "white.txt").read_text()
    assert caption.strip()
    assert (tmp_path / "photos.txt.run" / "manifest.json").is_file()
    more = ["--output", str(tmp_path / "texts"), "--suffix", ", style"]
    assert main([*command, *more]) == 0
    assert (tmp_path / "texts" / "deep" / "white.txt").read_text() == caption.rstrip("\n") + ", style\n"
    (tmp_path / "texts" / "red.txt").write_text("mine")
    again = ["--overwrite", "--existing", "append", "--separator", "; "]
    assert main([*command, *more, *again]) == 0
    assert (tmp_path / "texts" / "red.txt").read_text().startswith("mine; ")


def test_shards_do_not_share_an_output_that_is_the_folder_of_the_images(model: Path, photos: Path) -> None:
    command = [str(photos), "--model", str(model), "--format", "parts", "--output", str(photos), "--quiet"]
    for index in range(2):
        assert main([*command, "--num-shards", "2", "--shard-index", str(index)]) == 0
    names = [f"{photos.name}-{index:05d}-of-00002" for index in range(2)]
    files = [row["file"] for name in names for row in pq.read_table(photos.with_name(name)).to_pylist()]
    assert sorted(files) == sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    assert not list(photos.rglob("*.parquet"))
    assert all(photos.with_name(f"{name}.run").is_dir() for name in names)


def test_shards_share_the_work_and_merge(
    caption: Program, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = caption.output.parent
    for index in range(2):
        code = caption(photos, "--num-shards", "2", "--shard-index", str(index))
        assert code == 0
    assert not caption.output.exists()
    with pytest.raises(UserError, match="go together"):
        caption(photos, "--num-shards", "2")
    assert main(["merge", str(caption.output)]) == 0
    assert sorted(line["file"] for line in caption.lines) == sorted(
        str(path.relative_to(photos)) for path in photos.rglob("*.png")
    )
    (whole / "captions-00001-of-00002.jsonl.run" / "manifest.json").write_text(
        (whole / "captions-00001-of-00002.jsonl.run" / "manifest.json").read_text().replace("complete", "running")
    )
    with pytest.raises(UserError, match=r"captions-00001-of-00002\.jsonl: is not complete"):
        main(["merge", str(caption.output)])
