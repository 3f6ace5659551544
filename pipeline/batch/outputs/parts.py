"""A folder of Parquet files, each written as soon as its captions are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO

from latentcap.batch.journal import Record, written_to_disk
from latentcap.batch.outputs.base import Mark, Output, public
from latentcap.batch.outputs.copied import Lost, take_back
from latentcap.batch.outputs.table import write_parquet
from latentcap.data.errors import UserError


class ParquetParts(Output):
    """``part-00000.parquet``, ``part-00001.parquet``, ... with the next ``per_part`` captions of the journal each.

    A part is renamed into place whole and never changes again, but for the last, which grows when images are added.
    """

    per_part = 10_000
    part = "part-{}.parquet"

    def __init__(self, path: Path, run: Path) -> None:
        super().__init__(path, run / "captions.jsonl")
        self.folder = path
        self._written = Mark(run / "written")  # how long the journal was when its last captions became a part
        self._anew = Mark(run / "anew")  # 1 while parts hold what has been taken back
        self._full, self._end = -1, 0  # how many parts are full, and where in the journal they end

    def checkpoint(self) -> None:
        if not self._anew.read():
            self._write_full()

    def finish(self, *, quiet: bool = False) -> None:
        if self._anew.read():
            self._full, self._end = 0, 0
        self._write_full()
        while (records := self._next()) and not (self._is_last_written() or self._write(records)):
            pass
        for surplus in reversed(self.parts()[self._full + bool(records) :]):
            surplus.unlink()
        self._written.write(self._size())
        if self._anew.read():
            self._anew.write(0)

    def renew(self, stale: Mapping[int, int]) -> None:
        """The parts stay until :meth:`finish` replaces them one by one, whenever that is."""
        self._anew.write(1)
        super().renew(stale)
        self._full, self._end = -1, 0

    def clear(self) -> None:
        super().clear()
        for part in self.parts():
            part.unlink()
        self._full, self._end = -1, 0

    def check_unknown(self) -> None:
        if self.parts():
            self.refuse(f"{self.folder}: holds Parquet parts", ", or --overwrite it")

    def parts(self) -> list[Path]:
        """The files that there are, in order."""
        return sorted(self.folder.glob(self.part.format("*")))

    def _write_full(self) -> None:
        while len(records := self._next()) == self.per_part:
            if self._write(records):
                self._full, self._end = self._full + 1, records[-1][0]

    def _next(self) -> list[tuple[int, Record]]:
        """What of the journal follows the full parts, up to one part, each with the byte that it ends at."""
        if self._full < 0:
            self._full = 0 if self._anew.read() else sum(map(self._is_full, self.parts()))
            known = 0
            for end, _ in islice(self.journal.entries(), self._full * self.per_part):
                self._end = end
                known += 1
            if known < self._full * self.per_part:
                raise UserError(
                    f"{self.folder}: has more captions than {self.journal.path} that it was made from, which somebody "
                    "has changed. Choose another --output, or --overwrite it."
                )
        return list(islice(self.journal.entries(self._end), self.per_part))

    def _write(self, records: list[tuple[int, Record]]) -> bool:
        """Write the next part. False where captions were taken back for it, so that others are next."""
        starts = [self._end, *(end for end, _ in records)]
        try:
            with written_to_disk(self._path(self._full)) as file:
                self.write(zip(starts, (record for _, record in records), strict=False), file)
        except Lost as lost:
            self._written.write(0)
            take_back(self, lost, most=self.per_part)
            return False
        return True

    def write(self, records: Iterator[tuple[int, Record]], file: IO[bytes]) -> None:
        """The records of one part, each with the byte that it begins at, into the open file. May raise Lost."""
        write_parquet(public(record for _, record in records), file)

    def _is_last_written(self) -> bool:
        """Whether the part after the full ones holds all that is left. Made again, it could lose what is gone now."""
        known = self._written.read() == self._size() and not self._anew.read()
        return known and self._path(self._full).is_file()

    def _is_full(self, part: Path) -> bool:
        import pyarrow.parquet

        return bool(pyarrow.parquet.read_metadata(part).num_rows == self.per_part)

    def _path(self, number: int) -> Path:
        return self.folder / self.part.format(f"{number:05d}")

    def _size(self) -> int:
        return self.journal.path.stat().st_size if self.journal.path.is_file() else 0
