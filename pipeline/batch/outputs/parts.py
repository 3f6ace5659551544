"""A folder of Parquet files, each written as soon as its captions are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO

from latentcap.batch.journal import Record, written_to_disk
from latentcap.batch.outputs.base import Output, public
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
        self._full, self._end = -1, 0  # how many parts are full, and where in the journal they end

    def checkpoint(self) -> None:
        while len(records := self._next()) == self.per_part:
            self._write([record for _, record in records])
            self._full, self._end = self._full + 1, records[-1][0]

    def finish(self, *, quiet: bool = False) -> None:
        self.checkpoint()
        if records := self._next():
            self._write([record for _, record in records])

    def renew(self, stale: Mapping[int, int]) -> None:
        self._remove()
        super().renew(stale)

    def clear(self) -> None:
        super().clear()
        self._remove()

    def _remove(self) -> None:
        """All parts, the last first, so that those left are the first of the journal."""
        for part in reversed(self.parts()):
            part.unlink()
        self._full, self._end = -1, 0

    def check_unknown(self) -> None:
        if self.parts():
            self.refuse(f"{self.folder}: holds Parquet parts", ", or --overwrite it")

    def parts(self) -> list[Path]:
        """The files that there are, in order."""
        return sorted(self.folder.glob(self.part.format("*")))

    def _next(self) -> list[tuple[int, Record]]:
        """What of the journal follows the full parts, up to one part, each with the byte that it ends at."""
        if self._full < 0:
            self._full = sum(map(self._is_full, self.parts()))
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

    def _write(self, records: list[Record]) -> None:
        with written_to_disk(self.folder / self.part.format(f"{self._full:05d}")) as file:
            self.write(iter(records), file)

    def write(self, records: Iterator[Record], file: IO[bytes]) -> None:
        """The records of one part into the open file."""
        write_parquet(public(records), file)

    def _is_full(self, part: Path) -> bool:
        import pyarrow.parquet

        return bool(pyarrow.parquet.read_metadata(part).num_rows == self.per_part)
