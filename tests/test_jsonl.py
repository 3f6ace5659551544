"""JSON Lines: read one by one, and names that are not UTF-8."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.json
import pytest

from latentcap.data.encoding import decode, open_text, read_text
from latentcap.data.errors import UserError
from latentcap.data.jsonl import iter_jsonl, open_jsonl, parse_line, read_jsonl, to_line, write_jsonl
from latentcap.data.readers.rows import iter_rows


def test_what_is_written_reads_back_and_is_utf8(tmp_path: Path) -> None:
    path, records = tmp_path / "new" / "x.jsonl", [{"file": "café\u2028.jpg"}, {"file": "caf\udce9.jpg"}]
    with open_jsonl(path, "w") as file:
        write_jsonl(file, records)
        assert read_jsonl(path) == records  # before it is closed
    assert b"caf\xc3\xa9" in path.read_bytes()


@pytest.mark.parametrize(
    "name", ["caf\udce9", "\udcff\udc80", r"\udce9", r"\\udc5c", "\\\udce9", "\\udcxy", "C:\\udine"]
)
def test_bytes_that_are_no_text_read_back_and_every_reader_of_json_takes_them(name: str) -> None:
    record = {"file": f"{name}.jpg", "images": [name], "labels": {name: [0.5, None]}}
    line = to_line(record)
    assert parse_line(line, "x") == record
    assert parse_line(line.decode(), "x") == record
    (row,) = pyarrow.json.read_json(io.BytesIO(line)).to_pylist()
    assert row["file"].encode()  # no lone surrogates
    assert json.loads(line)["file"].isprintable()


def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\nnot JSON\n')
    lines = iter_jsonl(path)
    assert [next(lines), next(lines)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(UserError, match=r"x\.jsonl, line 4: not valid JSON"):
        next(lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[1]\n", "a list, no JSON object.*ends in .json"), (b"\xff\xd8\n", "not UTF-8"), (b"{\n", "not valid JSON")],
)
def test_what_is_no_object_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_jsonl(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        open_jsonl(tmp_path, "a")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-mark", "utf-16-be-mark", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    path, text = tmp_path / "x.jsonl", '{"a": "é\u4e00"}\r\n\n{"a": "\U0001f308"}'
    if encoding.endswith("-mark"):
        path.write_bytes(("\ufeff" + text).encode(encoding.removesuffix("-mark")))
    else:
        path.write_bytes(text.encode(encoding))
    assert read_jsonl(path) == [{"a": "é一"}, {"a": "🌈"}]
    assert read_text(path) == text
    assert decode(path.read_bytes(), "x") == text
    assert [row["a"] for row in iter_rows(path)] == ["é一", "🌈"]


def test_a_line_that_is_no_text_is_named_and_those_before_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "caf\xe9"}\n')
    lines = iter_jsonl(path)
    assert next(lines) == {"a": 1}
    with pytest.raises(UserError, match="line 2: not UTF-8 text"):
        next(lines)


@pytest.mark.parametrize("content", [b"caf\xe9", b"\xff\xfea", b"\xff\xfe\x00\xd8"])
def test_what_is_no_text_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.txt: not UTF-(8|16-LE) text .*Save it as UTF-8"):
        read_text(path)
    with pytest.raises(UserError, match=r"x\.txt: not UTF-(8|16-LE) text"), open_text(path) as file:
        file.read()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_an_error_that_says_so(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes('{"file": "a.jpg"}\n'.encode(encoding))
    for read in (read_text, read_jsonl):
        with pytest.raises(UserError, match=r"x\.jsonl: UTF-16 text without a byte-order mark"):
            read(path)
    path.write_bytes(b"a.jpg\0b.jpg\0c d.jpg\0")
    assert read_text(path).count("\0") == 3


@pytest.mark.parametrize("line", ['{"a": "b"}', '{"a": "b"}\r', ' {"a": "b"}', '{"a": "b"} \t', '{\t"a" :"b" }'])
def test_white_space_around_an_object_is_nothing(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(f"{line}\n{line}".encode())
    assert read_jsonl(path) == [{"a": "b"}] * 2


@pytest.mark.parametrize("line", ['{"a": 1} {"a": 2}', '{"a": 1}\u00a0', '{"a": 1},'])
def test_an_object_and_something_after_it_is_no_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1: not valid JSON \(Extra data"):
        read_jsonl(path)
