"""JSON Lines that go on after a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import UserError
from data.jsonl import open_jsonl, read_jsonl, resume_jsonl, write_jsonl


def test_what_is_written_reads_back_and_is_utf8(tmp_path: Path) -> None:
    path, records = tmp_path / "new" / "x.jsonl", [{"file": "café\u2028.jpg"}, {"file": "caf\udce9.jpg"}]
    with open_jsonl(path, "w") as file:
        write_jsonl(file, records)
        assert read_jsonl(path) == records  # before it is closed
    assert b"caf\xc3\xa9" in path.read_bytes()


def test_a_line_that_was_cut_off_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"file": "a", "caption": "é"}\n{"file": "b", "capt', encoding="utf-8")
    assert [line["file"] for line in resume_jsonl(path)] == ["a"]
    with open_jsonl(path, "a") as file:
        write_jsonl(file, [{"file": "b"}])
    assert [line["file"] for line in read_jsonl(path)] == ["a", "b"]


def test_a_last_line_without_an_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"file": "a"}')
    assert resume_jsonl(path) == [{"file": "a"}]
    with open_jsonl(path, "a") as file:
        write_jsonl(file, [{"file": "b"}])
    assert len(read_jsonl(path)) == 2


def test_nothing_is_gone_on_with_where_there_is_no_file(tmp_path: Path) -> None:
    assert resume_jsonl(tmp_path / "x.jsonl") == []


@pytest.mark.parametrize("content", [b"a text\n", b"\xff\xd8\xff\xe0", b"a text", b'{"a": 1}\n[2]\n'])
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.jsonl"):
        resume_jsonl(path)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        open_jsonl(tmp_path, "a")
