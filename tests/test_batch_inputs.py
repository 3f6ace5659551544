"""Inputs: sources of every kind, unique names, tables row by row, shards."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from itertools import islice
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from latentcap.batch.inputs import Input, Inputs
from latentcap.batch.shards import Shard, choose_shard
from latentcap.batch.tables import Columns
from latentcap.data.errors import UserError


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, "PNG")
    return path


def write_parquet(path: Path, rows: list[dict[str, object]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def names(inputs: Inputs) -> list[str]:
    return [item.name for item in inputs]


def test_what_is_named_twice_comes_once(tmp_path: Path) -> None:
    one = picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "a" / "2.png")
    inputs = Inputs([str(one), str(tmp_path / "a"), str(tmp_path / "a" / "*.png")])
    assert names(inputs) == names(inputs) == [str(one), str(tmp_path / "a" / "2.png")]


def test_other_images_of_one_name_are_named_apart(tmp_path: Path) -> None:
    colours = {"red": b"", "blue": b""}
    for colour in colours:
        picture(tmp_path / colour / "1.png")
        Image.new("RGB", (4, 4), colour).save(tmp_path / colour / "1.png")
        colours[colour] = (tmp_path / colour / "1.png").read_bytes()
        (tmp_path / colour / "list.csv").write_text("image\n1.png\n")
        rows = [{"image": {"bytes": colours[colour], "path": name}} for name in ("1.png", None, None)]
        rows.append({"image": {"bytes": colours["red"], "path": "1.png"}})
        write_parquet(tmp_path / f"{colour}.parquet", rows)
    tables = [str(tmp_path / colour / "list.csv") for colour in colours]
    assert names(Inputs(tables)) == [str(tmp_path / colour / "1.png") for colour in colours]
    assert names(Inputs(tables[:1])) == ["1.png"]
    red, blue = (str(tmp_path / f"{colour}.parquet") for colour in colours)
    found = list(Inputs([red, blue]))
    assert [item.name for item in found] == [
        *(f"{red}:{name}" for name in ("1.png", "row-2", "row-3")),
        *(f"{blue}:{name}" for name in ("1.png", "row-2", "row-3", "1.png#2")),
    ]
    assert [item.images[0].data for item in found] == [colours["red"]] * 3 + [colours["blue"]] * 3 + [colours["red"]]
    assert names(Inputs([blue])) == ["1.png", "row-2", "row-3", "1.png#2"]
    with tarfile.open(tmp_path / "both.tar", "w") as tar:
        for colour in colours:
            tar.add(tmp_path / colour / "1.png", "1.png")
    inputs = Inputs([str(tmp_path / "both.tar")])
    assert names(inputs) == names(inputs) == ["1.png", "1.png#2"]
    assert [item.images[0].read_bytes() for item in inputs] == list(colours.values())


def test_names_and_lists_that_are_not_utf8_survive(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    picture(Path(os.fsdecode(odd)))
    (tmp_path / "list.txt").write_bytes(odd + b"\r\n\n")
    (item,) = Inputs([f"@{tmp_path / 'list.txt'}"])
    assert os.fsencode(item.name) == odd
    assert item.images[0].read_bytes()


def test_a_list_may_name_what_is_not_there_and_a_command_may_not(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("gone.png\n")
    assert names(Inputs([f"@{tmp_path / 'list.txt'}"])) == ["gone.png"]
    with pytest.raises(UserError, match="does not exist"):
        Inputs([str(tmp_path / "gone.png")])
    with pytest.raises(UserError, match=r"there is no list 'gone\.txt'"):
        Inputs(["@gone.txt"])


def test_standard_input_is_read_as_far_as_needed_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.png\0b.png\0c.png")))
    inputs = Inputs(["-"])
    assert [item.name for item in islice(inputs, 1)] == ["a.png"]
    assert inputs.count() is None
    assert names(inputs) == names(inputs) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_rows_of_tables(tmp_path: Path, kind: str) -> None:
    rows = [
        {"image": "1.png", "context": "left", "age": "40", "sex": "F", "text": "x"},
        {"image": "1.png", "context": "left", "age": "40", "sex": "F", "text": "another caption"},
        {"image": "1.png", "context": "right", "age": None, "sex": "n/a", "text": "x"},
        {"image": None, "context": None, "age": None, "sex": None, "text": None},
    ]
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        import csv
        import json

        with open(path, "w", newline="") as file:
            if kind == "jsonl":
                file.writelines(json.dumps(row) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    inputs = Inputs([str(path)], columns=Columns(numbers=("age", "dose"), categories=("sex",)))
    one, other, broken = inputs
    assert one.name == "1.png"
    assert one.images[0].path == str(tmp_path / "1.png")
    assert (one.context, one.numbers, one.categories) == ("left", {"age": 40.0}, {"sex": "F"})
    assert (other.name, other.context, other.numbers) == ("1.png#2", "right", {"age": None})
    assert broken.name == "row-4"
    assert "no image" in broken.error
    blind = Inputs([str(path)], columns=Columns(reads_context=False))
    assert next(iter(blind)).context is None


def test_images_inside_a_table_and_columns_by_name(tmp_path: Path) -> None:
    import pyarrow.parquet

    data = picture(tmp_path / "1.png").read_bytes()
    table = pyarrow.Table.from_pylist([{"photo": {"bytes": data, "path": "x.png"}, "note": "n"}])
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    (item,) = Inputs([str(tmp_path / "t.parquet")], columns=Columns(image="photo", context="note"))
    assert (item.name, item.context) == ("x.png", "n")
    assert item.images[0].open().size == (4, 4)
    with pytest.raises(UserError, match=r"no image column\. Columns found: photo, note"):
        list(Inputs([str(tmp_path / "t.parquet")]))


def test_the_context_for_all_gives_way_to_one_s_own(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    (tmp_path / "t.csv").write_text("image,context\n1.png,own\n2.png,\n")
    inputs = Inputs([str(tmp_path / "t.csv")], context=lambda name: "for all")
    assert [item.context for item in inputs] == ["own", "for all"]


def test_shards_divide_and_stay_when_files_come(tmp_path: Path) -> None:
    items = [Input(f"{n}.jpg", ()) for n in range(1000)]
    parts = [{item.name for item in items if Shard(index, 4).holds(item)} for index in range(4)]
    assert set.union(*parts) == {item.name for item in items}
    assert sum(map(len, parts)) == 1000
    assert min(map(len, parts)) > 200
    assert Shard(3, 16).output(Path("a/x.jsonl")) == Path("a/x-00003-of-00016.jsonl")
    assert Shard().output(Path("x")) == Path("x")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "0/1"),
        ({"RANK": "2", "WORLD_SIZE": "4"}, "2/4"),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "3"}, "1/3"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, "0/1"),  # a batch script without srun is one process
        (
            {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "3"},
            "2/4",
        ),
        ({"RANK": "x", "WORLD_SIZE": "4"}, "0/1"),
    ],
)
def test_launchers_say_the_shard(environment: dict[str, str], expected: str) -> None:
    assert str(choose_shard(None, None, environment)) == expected
    assert str(choose_shard(1, 2, environment)) == "1/2"


def test_shards_that_cannot_be() -> None:
    with pytest.raises(UserError, match="from 0 to the number"):
        choose_shard(2, 2, {})
    with pytest.raises(UserError, match="go together"):
        choose_shard(None, 2, {})
