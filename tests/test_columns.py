"""Examples as columns: equal to the list that they stand for, whatever is done with them, in any process."""

from __future__ import annotations

import gc
import io
import json
import pickle
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from latentcap.data.arrow import encode_rows, write_batches
from latentcap.data.columns import ExampleColumns, each, gather, take, with_field
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers import Fields, collect, read_examples, webdataset
from latentcap.data.readers.fields import Skipped
from latentcap.data.readers.splits import in_split, share_for_validation
from tests.helpers import picture

ODD = [
    Example(
        "a\udcff",  # names of files may be no text
        (ImageRef("p\udcff/é.jpg"), ImageRef("t.zip", 5, 7, "n.png", 9, "middle")),
        ("x", "half of 🌈: \ud83c"),
        ("another",),
        None,
        {"age": None, "weight": 1.5},
        {"sex": None, "site": "knie"},
        "val",
        {"findings": "a;b"},
        ("frontal", "lateral"),
        "patient 1",
        ("7",),
    ),
    Example("b", (ImageRef("row 2", data=b"\0\xff"),)),
    Example("ü 🌈", (), ("",), context="c", numbers={"age": -1.0}),
]


def columns(folder: Path, examples: list[Example]) -> ExampleColumns:
    folder.mkdir(exist_ok=True)
    half = len(examples) // 2
    for name, part in (("1", examples[:half]), ("2", examples[half:])):
        write_batches(folder / name, encode_rows(part))
    return ExampleColumns([folder / "1", folder / "2"])


def test_a_sequence_of_examples_equal_to_those_put_in(tmp_path: Path) -> None:
    examples = ODD * 700
    held = columns(tmp_path, examples)
    assert len(held) == 2100
    assert list(held) == examples
    assert held == examples
    assert held != examples[:-1]
    assert [held[0], held[-1], held[1500]] == [examples[0], examples[-1], examples[1500]]
    assert held[5:2000:7] == examples[5:2000:7]
    assert held[1040:1060] == examples[1040:1060]
    with pytest.raises(IndexError):
        held[2100]


def test_what_is_done_with_a_list_can_be_done_with_columns(tmp_path: Path) -> None:
    examples = ODD * 4
    held = columns(tmp_path, examples)
    for field in Example.__dataclass_fields__:
        assert list(each(held, field)) == list(each(examples, field))
    places = [11, 0, 7, 7, 6]
    assert gather(held, places) == gather(examples, places) == take(held, places)
    assert take(take(held, places), [4, 0]) == [examples[6], examples[11]]
    assert not take(held, [])
    splits = ["test"] * 5 + ["val"] * 7
    moved = with_field(held, "split", splits)
    assert moved == with_field(examples, "split", splits)
    assert held == examples
    assert in_split(moved, "val") == in_split(with_field(examples, "split", splits), "val")


def test_another_process_opens_the_same_files(tmp_path: Path) -> None:
    held = with_field(columns(tmp_path, ODD * 700), "split", ["test"] * 2100)
    chosen = take(held, [2, 2099, 0])
    packed = pickle.dumps(chosen)
    assert pickle.loads(packed) == [held[2], held[2099], held[0]]
    assert len(pickle.dumps(take(columns(tmp_path, ODD * 700), [1, 2]))) < 1000  # no copy of the examples


def test_a_share_for_validation_is_the_same_of_both(tmp_path: Path) -> None:
    examples = [
        Example(f"{n}", (ImageRef(f"{n // 2}.jpg"),), group=None if n % 3 else f"patient {n // 9}") for n in range(300)
    ]
    found = share_for_validation(columns(tmp_path, examples), share=0.2)
    assert found == share_for_validation(examples, share=0.2)
    assert 30 < Counter(each(found, "split"))["val"] < 90


# Readers -----------------------------------------------------------------------------------------------------------


def rows(count: int) -> list[dict[str, object]]:
    """Rows with everything that a table may have; each image has two, but the last."""
    return [
        {
            "image": [f"{n // 2}.png", f"{n // 2}-b.png"] if n % 4 < 2 else f"{n // 2}.png",
            "caption": [f"caption {n}", "b \ud83c"] if n % 5 == 0 else f"caption {n} 🌈",
            "context": None if n % 4 < 2 else "known",
            "age": [-1, -2][n % 8 // 6],
            "site": None,
            "split": "dev" if n // 2 > count // 2 - 3 else None,
            "views": "frontal, lateral" if n % 4 < 2 else None,
            "patient_id": f"p{n // 2}",
            "paraphrases": [f"again {n}"],
            "plane": "axial",
        }
        for n in range(count)
    ]


EVERYTHING = Fields(numbers=("age",), categories=("site",), labels=("plane",))


def jsonl(folder: Path) -> Path:
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(3001)), encoding="utf-8")
    return folder / "t.jsonl"


def parquet(folder: Path) -> Path:
    held = [{**row, "image": {"bytes": b"\0\xff" * n, "path": None}, "caption": "a"} for n, row in enumerate(rows(60))]
    pa.parquet.write_table(pa.Table.from_pylist(held), folder / "t.parquet")
    return folder / "t.parquet"


def tar(folder: Path) -> Path:
    with tarfile.open(folder / "val-0.tar", "w") as archive:
        for n in range(30):
            for name, content in (
                (f"{n}.jpg", b"jpeg"),
                (f"{n}.json", json.dumps(rows(30)[n]).encode()),
                ("x.rar", b""),
            ):
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    return folder / "val-0.tar"


def of_splits(folder: Path) -> Path:
    """Tables of splits that call their images the same."""
    for name in ("train.jsonl", "test.jsonl"):
        lines = (json.dumps({**row, "split": None, "patient_id": name + str(n)}) for n, row in enumerate(rows(50)))
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


def metadata(folder: Path) -> Path:
    table = "file_name,text,age,site,plane\n" + "".join(f"val/{n}.png,c{n},{n},s,p\n" for n in range(30))
    (folder / "metadata.csv").write_text(table, encoding="utf-8")
    (folder / "val").mkdir()
    picture().save(folder / "val" / "unlisted.png")
    return folder


@pytest.mark.parametrize("make", [jsonl, parquet, of_splits, metadata, tar])
def test_readers_give_columns_equal_to_the_list(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    source, skipped = make(tmp_path / "data"), [list[Skipped](), list[Skipped](), list[Skipped]()]
    expected = read_examples(source, fields=EVERYTHING, cache_dir=tmp_path / "cache", skipped=skipped[0])
    assert isinstance(expected, list)
    assert not (tmp_path / "cache").exists()  # a few are not kept
    monkeypatch.setattr(collect, "IN_MEMORY", 1)
    monkeypatch.setattr(webdataset, "LEAST_KEPT", 1)
    for number in (1, 2):  # read, and read back
        found = read_examples(source, fields=EVERYTHING, cache_dir=tmp_path / "cache", skipped=skipped[number])
        assert isinstance(found, ExampleColumns)
        assert all(len(ExampleColumns([file])) for file in found.files)
        assert found == expected
        assert skipped[number] == skipped[0]
    assert list((tmp_path / "cache" / "examples").glob("*.json"))
    for split in {example.split for example in expected}:
        chosen = read_examples(source, split=split, fields=EVERYTHING, cache_dir=tmp_path / "cache")
        assert chosen == [example for example in expected if example.split == split]


def test_a_column_that_comes_late_counts_for_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "t.jsonl"
    lines = [json.dumps({"image": f"{n}.png", "text": "no caption"}) for n in range(1500)]
    table.write_text("\n".join([*lines, json.dumps({"image": "x.png", "captions": ["one", "two"]})]), encoding="utf-8")
    monkeypatch.setattr(collect, "IN_MEMORY", 100)
    examples = read_examples(table, cache_dir=tmp_path / "cache")
    assert examples[-1].captions == ("one", "two")
    assert not any(captions for captions in list(each(examples, "captions"))[:-1])


@pytest.mark.parametrize(
    "bad", ['{"image": "1.png"', '{"image": "", "caption": "x"}', '{"image": "1.png", "caption": 3}']
)
def test_a_bad_row_far_down_is_named_as_in_a_list(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "t.jsonl"
    lines = [json.dumps({"image": f"{n}.png", "caption": "x"}) for n in range(1500)]
    table.write_text("\n".join([*lines, bad, *lines]), encoding="utf-8")
    with pytest.raises(UserError, match=r"(line|row) 1501") as as_list:
        read_examples(table, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(collect, "IN_MEMORY", 100)
    with pytest.raises(UserError) as as_columns:
        read_examples(table, cache_dir=tmp_path / "cache")
    assert str(as_columns.value) == str(as_list.value)


# Kept --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(collect, "IN_MEMORY", 1)
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"image": f"{n}.png", "caption": f"c{n}"}) + "\n" for n in range(9)))
    assert len(read_examples(path, cache_dir=tmp_path / "cache")) == 9
    return path


def test_a_table_that_changed_is_read_anew(table: Path, tmp_path: Path) -> None:
    with open(table, "a", encoding="utf-8") as file:
        file.write('{"image": "new.png", "caption": "one more"}\n')
    assert read_examples(table, cache_dir=tmp_path / "cache")[-1].captions == ("one more",)
    assert len(list((tmp_path / "cache" / "examples").glob("*.arrow"))) == 1  # in the place of the first


def test_other_columns_and_another_root_are_read_anew(table: Path, tmp_path: Path) -> None:
    assert read_examples(table, fields=Fields(caption=""), cache_dir=tmp_path / "cache")[0].captions == ()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").touch()
    assert read_examples(table, cache_dir=tmp_path / "cache")[0].images[0].path == str(tmp_path / "images" / "0.png")


@pytest.mark.parametrize("suffix", ["json", "arrow"])
def test_a_broken_file_is_made_again(table: Path, suffix: str, tmp_path: Path) -> None:
    (file,) = (tmp_path / "cache" / "examples").glob(f"*.{suffix}")
    file.write_bytes(file.read_bytes()[:-20])
    assert len(read_examples(table, cache_dir=tmp_path / "cache")) == 9


def test_a_cache_that_cannot_be_made_costs_no_more_than_time(table: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_examples(table, cache_dir=tmp_path / "file")[8].captions == ("c8",)


def test_a_large_tar_is_indexed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "LEAST_KEPT", 20)
    path = tar(tmp_path)
    first = read_examples(path, fields=EVERYTHING, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(webdataset, "read_members", lambda path: pytest.fail("the tar was opened again"))
    again = read_examples(path, fields=EVERYTHING, cache_dir=tmp_path / "cache")
    assert isinstance(again, list)
    assert again == first
    assert again[3].images[0].read_bytes() == b"jpeg"


def test_garbage_is_seldom_looked_for_while_examples_are_made(tmp_path: Path) -> None:
    """They have no cycles, and there may be millions."""
    before, seen = gc.get_threshold(), []

    def examples(fails: bool) -> Iterator[Example]:
        seen.append(gc.get_threshold()[0])
        yield Example("a", ())
        if fails:
            raise UserError("the next row is broken")

    collect.collect(examples(False), tmp_path)
    with pytest.raises(UserError):
        collect.collect(examples(True), tmp_path)
    assert min(seen) > 10 * before[0]
    assert gc.get_threshold() == before
