"""Finding images: names, hidden files, links in circles, tars, and what is said where there are none."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from latentcap.data.errors import UserError
from latentcap.data.listing import iter_images


def picture(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path, "PNG")
    return path


def pack(path: Path, names: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "blue").save(data, "PNG")
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(data.getvalue())
            archive.addfile(member, io.BytesIO(data.getvalue()))
    return path


def names(*paths: str | Path) -> list[str]:
    return [listed.name for listed in iter_images(paths)]


def test_a_folder_is_read_to_its_end_sorted_and_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/er/c.webp", ".hidden.png", ".folder/d.png", "deep/._c.webp", "notes.txt"):
        picture(tmp_path / name)
    assert names(tmp_path) == ["a.JPG", "b.png", "deep/er/c.webp"]


def test_names_begin_with_what_was_given_where_it_is_several_paths(tmp_path: Path) -> None:
    one, other, single = tmp_path / "one", tmp_path / "other", picture(tmp_path / "photo")
    picture(one / "x.png")
    picture(other / "x.png")
    assert names(one, other, single) == [f"{one}/x.png", f"{other}/x.png", str(single)]
    assert names(single) == [str(single)]
    assert names(tmp_path / "o*") == [f"{one}/x.png", f"{other}/x.png"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside" / "far.png").parent
    root = picture(tmp_path / "root" / "near" / "z.png").parents[1]
    (root / "near" / "up").symlink_to(root)
    (root / "away").symlink_to(outside)
    (root / "again").symlink_to(root / "near")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    (root / "self.png").symlink_to(root / "self.png")
    assert names(root) == ["away/far.png", "gone.png", "near/z.png", "self.png"]


def test_pipes_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    picture(tmp_path / "x.png")
    assert names(tmp_path) == ["x.png"]


def test_tars_are_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    tar = pack(tmp_path / "set" / "shard.tar", ["b.png", "a.v2.png"])
    other = pack(tmp_path / "other.tar", ["./c.png", "._c.png", "c.txt"])
    assert names(tar) == ["b.png", "a.v2.png"]
    assert names(tmp_path / "set") == ["shard.tar:b.png", "shard.tar:a.v2.png"]
    assert names(tar, other) == [f"{tar}:b.png", f"{tar}:a.v2.png", f"{other}:c.png"]
    assert [listed.image.open().getpixel((0, 0)) for listed in iter_images(tar)] == [(0, 0, 255)] * 2


def test_the_rest_of_a_broken_tar_is_listed_as_an_error(tmp_path: Path) -> None:
    tar = pack(tmp_path / "set" / "x.tar", ["a.png", "b.png"])
    picture(tmp_path / "set" / "z.png")
    tar.write_bytes(tar.read_bytes()[: 1024 + 100])
    listed = list(iter_images(tmp_path / "set"))
    assert [one.name for one in listed] == ["x.tar:a.png", "x.tar", "z.png"]
    assert "not a complete, uncompressed tar" in listed[1].error
    assert not listed[2].error


def test_it_begins_before_all_is_found(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "x.png")
    picture(tmp_path / "b" / "y.png")
    found = iter_images(tmp_path)
    assert next(found).name == "a/x.png"
    picture(tmp_path / "b" / "z.png")
    assert [listed.name for listed in found] == ["b/y.png", "b/z.png"]


def test_the_order_is_that_of_the_paths(tmp_path: Path) -> None:
    given = ["a.png", "a/z.png", "a b/c.png", "a/b/c.png", "a0.png", "a-.png"]
    for name in given:
        picture(tmp_path / name)
    assert names(tmp_path) == sorted(given)


def test_links_to_hidden_folders_are_followed(tmp_path: Path) -> None:
    picture(tmp_path / "root" / ".store" / "x.png")
    (tmp_path / "root" / "shown").symlink_to(tmp_path / "root" / ".store")
    assert names(tmp_path / "root") == ["shown/x.png"]


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    picture(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")))
    assert os.fsencode(names(tmp_path)[0]) == b"caf\xe9.png"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("empty", r"no images in .*empty'\. Looked .*\.jpeg.*\.tar"),
        ("emtpy", r"does not exist.*Did you mean 'empty'"),
        ("x" * 4096, "too long for a file name"),
        ("x/" * 2048, "too long for a file name"),
    ],
)
def test_what_is_said_where_there_is_nothing(tmp_path: Path, path: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=said):
        list(iter_images(f"{tmp_path}/{path}"))
