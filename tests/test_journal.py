"""The journal: whole lines are final, the rest is cut off, foreign files are left alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from latentcap.batch.journal import Journal, digest, written_to_disk
from latentcap.data.errors import UserError


def test_what_is_appended_is_on_disk_and_reads_back(tmp_path: Path) -> None:
    records = [{"file": "café\u2028.jpg"}, {"file": "caf\udce9.jpg", "caption": "é"}]
    with Journal(tmp_path / "new" / "x.jsonl") as journal:
        journal.append(records[:1])
        journal.append(records[1:])
        assert list(journal) == records  # before it is closed
    assert b"caf\xc3\xa9" in journal.path.read_bytes()


@pytest.mark.parametrize("tail", [b'{"file": "b", "capt', b"\0\0\0\0", b'{"file": "b\xc3', b"{"])
def test_a_line_that_was_cut_off_is_removed(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"file": "a"}\n' + tail)
    journal = Journal(path)
    assert list(journal) == list(journal.recover()) == [{"file": "a"}]
    assert path.read_bytes() == b'{"file": "a"}\n'


def test_a_last_line_without_an_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"file": "a"}')
    list(Journal(path).recover())
    assert list(Journal(path)) == [{"file": "a"}]


@pytest.mark.parametrize("content", [b"a text\n", b"\xff\xd8\xff\xe0", b"a text", b'{"a": 1}\n[2]\n', b"\x89PNG\r\n"])
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.jsonl"):
        list(Journal(path).recover())
    assert path.read_bytes() == content


def test_entries_can_be_read_from_any_record_on(tmp_path: Path) -> None:
    with Journal(tmp_path / "x.jsonl") as journal:
        journal.append([{"n": n} for n in range(3)])
    ends = [end for end, _ in journal.entries()]
    assert [record for _, record in journal.entries(ends[0])] == [{"n": 1}, {"n": 2}]
    assert ends[-1] == journal.path.stat().st_size


def test_a_write_that_fails_halfway_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "x.jsonl") as journal:
        journal.append([{"file": "a"}])
        write = os.write

        def full(file: int, data: bytes) -> int:
            if len(data) > 10:
                return write(file, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(UserError, match=r"x\.jsonl: cannot be written \(no space is left on its disk\).*is kept"):
            journal.append([{"file": "bbbb"}])
        monkeypatch.undo()
        journal.append([{"file": "c"}])
    assert list(journal) == [{"file": "a"}, {"file": "c"}]


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), written_to_disk(path) as file:
        file.write(b"new" * (1 // 0))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot be written"), written_to_disk(tmp_path / "x.csv" / "y") as file:
        pass


def test_names_that_are_not_utf8_have_digests() -> None:
    assert digest("caf\udce9.jpg") != digest("café.jpg")
    assert 0 <= digest("x") < 2**64
