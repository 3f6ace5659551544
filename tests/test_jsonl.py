"""JSON Lines: read one by one, and names that are not UTF-8."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentcap.data.errors import UserError
from latentcap.data.jsonl import iter_jsonl, open_jsonl, read_jsonl, write_jsonl


def test_what_is_written_reads_back_and_is_utf8(tmp_path: Path) -> None:
    path, records = tmp_path / "new" / "x.jsonl", [{"file": "café\u2028.jpg"}, {"file": "caf\udce9.jpg"}]
    with open_jsonl(path, "w") as file:
        write_jsonl(file, records)
        assert read_jsonl(path) == records  # before it is closed
    assert b"caf\xc3\xa9" in path.read_bytes()


def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\nnot JSON\n')
    lines = iter_jsonl(path)
    assert [next(lines), next(lines)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(UserError, match=r"x\.jsonl, line 4: not JSON"):
        next(lines)


@pytest.mark.parametrize(
    ("content", "said"), [(b"[1]\n", "list, where"), (b"\xff\xd8\n", "not UTF-8"), (b"{\n", "not JSON")]
)
def test_what_is_no_object_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_jsonl(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        open_jsonl(tmp_path, "a")
