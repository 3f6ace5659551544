"""CSV and Parquet: written from the journal, whole, when all inputs are dealt with."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from latentcap.batch.journal import Record, written_to_disk
from latentcap.batch.outputs.base import Mark, Output, public, refuse_unknown

ROW_GROUP = 10_000


class TableFile(Output, ABC):
    """A file made from the journal in the run folder. Bytes of names that are not UTF-8 are written as ``\\udcff``."""

    def __init__(self, path: Path, run: Path) -> None:
        super().__init__(path, run / "captions.jsonl")
        self.file = path
        self._mark = Mark(run / "written")

    def finish(self, *, quiet: bool = False) -> None:
        size = self.journal.path.stat().st_size
        if self.file.is_file() and self._mark.read() == size:
            return
        with written_to_disk(self.file) as file:
            self.write(self.records(), file)
        self._mark.write(size)

    def records(self) -> Iterator[Record]:
        return public(iter(self.journal))

    @abstractmethod
    def write(self, records: Iterator[Record], file: IO[bytes]) -> None:
        """All records, in order, into the open file."""

    def renew(self, stale: Mapping[int, int]) -> None:
        self._mark.write(0)
        super().renew(stale)

    def clear(self) -> None:
        super().clear()
        self.file.unlink(missing_ok=True)

    def check_unknown(self) -> None:
        refuse_unknown(self.file)


class CsvFile(TableFile):
    """A row for each image: file, caption, score, confidence, context; words, labels, sections and the images of a
    study, as JSON; caption_2, score_2, ... of the next best."""

    def __init__(self, path: Path, run: Path, *, num_captions: int = 1) -> None:
        super().__init__(path, run)
        self.num_captions = num_captions

    def write(self, records: Iterator[Record], file: IO[bytes]) -> None:
        told = ("caption", "score", "confidence", "words")
        more = [f"{name}_{n}" for n in range(2, self.num_captions + 1) for name in told]
        names = ["file", *told, "context", "labels", "images", "sections", *more]
        writer = csv.DictWriter(_Encoded(file), names, restval="", extrasaction="ignore", lineterminator="\r\n")
        writer.writeheader()
        for record in records:
            for n, other in enumerate(record.pop("alternatives", ()), start=2):
                record |= {f"{name}_{n}": value for name, value in other.items()}
            writer.writerow({name: _cell(value) for name, value in record.items()})


class ParquetFile(TableFile):
    """What :func:`write_parquet` writes."""

    def write(self, records: Iterator[Record], file: IO[bytes]) -> None:
        write_parquet(records, file)


def write_parquet(records: Iterator[Record], file: IO[bytes]) -> None:
    """Columns file, caption, score, confidence, words, alternatives (a list of structures), context, labels (JSON),
    images (a list, of a study), sections (JSON)."""
    import pyarrow as pa
    import pyarrow.parquet

    word = pa.struct([("word", pa.string()), ("probability", pa.float64())])
    told: list[tuple[str, Any]] = [
        ("caption", pa.string()),
        ("score", pa.float64()),
        ("confidence", pa.float64()),
        ("words", pa.list_(word)),
    ]
    more = [
        ("alternatives", pa.list_(pa.struct(told))),
        ("context", pa.string()),
        ("labels", pa.string()),
        ("images", pa.list_(pa.string())),
        ("sections", pa.string()),
    ]
    schema = pa.schema([("file", pa.string()), *told, *more])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while rows := list(islice(records, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(list(map(_row, rows)), schema=schema))


def _row(record: Record) -> Record:
    """A record as Parquet holds it."""
    record["file"] = _utf8(record["file"])
    for told in (record, *record.get("alternatives", ())):
        if "words" in told:
            told["words"] = [{"word": word, "probability": probability} for word, probability in told["words"]]
    for name in ("labels", "sections"):
        if name in record:
            record[name] = json.dumps(record[name], ensure_ascii=False)
    if "images" in record:
        record["images"] = list(map(_utf8, record["images"]))
    return record


def _utf8(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


class _Encoded:
    """What ``csv`` writes to: a row in, UTF-8 out, which ends in a line feed alone.

    Python before 3.13 quotes only those line ends that its own rows end in, and readers take a bare carriage return
    for one.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, text: str) -> int:
        return self.file.write((text.removesuffix("\r\n") + "\n").encode("utf-8", "backslashreplace"))
