"""A JSON Lines file that is only appended to, and that survives being killed while it is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from latentcap.data.errors import UserError
from latentcap.data.files import written_whole
from latentcap.data.jsonl import parse_line, to_line

Record = dict[str, Any]

APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)  # the last is of Windows


class Journal:
    """Records in the order in which they became known, a line of JSON each.

    :meth:`recover` reads what is there and cuts off a last line that was never finished; then, in a ``with`` block,
    :meth:`append` adds records, which are final when it returns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def __iter__(self) -> Iterator[Record]:
        """Every whole record. Raises UserError for a file that is none of ours."""
        return (record for _, record in self.entries())

    def entries(self, start: int = 0) -> Iterator[tuple[int, Record]]:
        """Every whole record from byte ``start`` on, with the byte that its line ends at."""
        if not self.path.is_file():
            return
        try:
            with open(self.path, "rb") as file:
                file.seek(start)
                end = start
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        return
                    end += len(line)
                    if line.strip():
                        yield end, self._parsed(line, number)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}).") from None

    def _parsed(self, line: bytes, number: int) -> Record:
        try:
            return parse_line(line, f"{self.path}, line {number}")
        except UserError as error:
            if line.startswith(b"{"):
                raise
            raise UserError(f"{self.path}: exists and cannot be read as JSON Lines. Choose another output.") from error

    def recover(self) -> Iterator[Record]:
        """Every whole record; after the last, the line that a crash has cut off is removed from the file.

        Raises UserError, and leaves the file as it is, where it is not one of ours.
        """
        end = 0
        for end, record in self.entries():  # noqa: B007
            yield record
        if self.path.is_file() and (size := self.path.stat().st_size) > end:
            self._cut_tail(end, size)

    def _cut_tail(self, end: int, size: int) -> None:
        """Deal with what follows the last whole line: finish it where it is whole but for its end, else remove it."""
        with open(self.path, "r+b") as file:
            file.seek(end)
            rest = file.read(size - end)
            if not rest.strip(b"\0 \r\n"):  # a crash of the machine can leave zeros
                file.truncate(end)
                return
            try:
                parse_line(rest, str(self.path))
            except UserError:
                if not rest.startswith(b"{"):
                    self._parsed(rest, 1)
                file.truncate(end)
            else:
                file.write(b"\n")

    def drop(self, starts: Collection[int]) -> None:
        """Remove the records that begin at these bytes: all or, where that fails, none of them."""
        is_open = self._file is not None
        self.__exit__(None, None, None)
        start = 0
        with written_to_disk(self.path) as file, open(self.path, "rb") as lines:
            for line in lines:
                if start not in starts:
                    file.write(line)
                start += len(line)
        if is_open:
            self.__enter__()

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, APPEND, 0o666)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}).") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records and wait until the disk has them.

        Raises:
            UserError: the disk is full or gone; none of ``records`` is in the file then, and all earlier ones are.
        """
        assert self._file is not None, "append() needs a with block"
        data = b"".join(map(to_line, records))
        size = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, memoryview(data)[written:])
            _sync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise write_error(self.path, error) from None


def write_error(path: Path, error: OSError) -> UserError:
    """What is said where writing fails in the middle of a run."""
    reason = "no space is left on its disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
    return UserError(
        f"{path}: cannot be written ({reason}). What was captioned before is kept: make room, and the same command "
        "goes on."
    )


@contextmanager
def written_to_disk(path: Path, mode: str = "wb", **more: Any) -> Iterator[IO[Any]]:
    """Write a file that takes its place only when it is whole and on disk. Raises UserError where that fails."""
    try:
        with synced(path, mode, **more) as file:
            yield file
    except OSError as error:
        raise write_error(path, error) from None


@contextmanager
def synced(path: Path, mode: str = "wb", **more: Any) -> Iterator[IO[Any]]:
    """:func:`written_to_disk`, which raises OSError where it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path, mode, **more) as file:
        yield file
        file.flush()
        _sync(file.fileno())


def digest(name: str | bytes) -> int:
    """64 bits that stand for a name: a set of a million takes some 70 MB, whatever the length of the names."""
    encoded = name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name
    return int.from_bytes(blake2b(encoded, digest_size=8).digest())


def _sync(file: int) -> None:
    """Wait for the disk. Pipes and terminals have none."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
