"""What every output is: a journal, and what is made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Journal, Record, written_to_disk
from latentcap.data.errors import UserError

EXISTING = ("skip", "overwrite", "append", "prepend")


class Output:
    """JSON Lines: the journal is the output. The other formats derive from this.

    Attributes:
        needs_images: records carry the places of their images, as ``"_images"``.
        needs_ids: records carry the ids that a table gives, as ``"_id"``.
        path: the file or folder; None for sidecars beside their images.
        why_skipped: what is said of an input that :meth:`prepare` does not want.
        lost: errors of inputs whose captions :meth:`checkpoint` or :meth:`finish` took back; whoever calls empties it.
    """

    needs_images = False
    needs_ids = False
    why_skipped = ""

    def __init__(self, path: Path | None, journal: Path) -> None:
        self.path = path
        self.journal = Journal(journal)
        self.lost: list[Record] = []

    def __str__(self) -> str:
        return str(self.path)

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        """The input, or None where it is not to be captioned. ``known``: the journal has its caption."""
        return item

    def append(self, records: Sequence[Record]) -> int:
        """Make captions final. Returns how many."""
        self.journal.append(records)
        return len(records)

    def renew(self, stale: Mapping[int, int]) -> None:
        """Take back captions whose images have changed: digests of their names, with where their records begin."""
        self.journal.drop(set(stale.values()))

    def is_gone(self, item: Input) -> bool:
        """Whether somebody has removed what was written for an input; what is made from the journal comes back."""
        return False

    def checkpoint(self) -> None:
        """Called every half minute and at the end of all captions."""

    def finish(self, *, quiet: bool = False) -> None:
        """Called once all inputs are dealt with; the journal is closed."""

    def clear(self) -> None:
        """Forget an earlier run, in the output's place too."""
        self.journal.path.unlink(missing_ok=True)

    def check_unknown(self) -> None:
        """Called where no run folder knows of this output. Raises UserError where it must not be written over."""
        if self.path == self.journal.path:
            refuse_unknown(self.journal.path)

    def refuse(self, what: str, or_else: str = "") -> NoReturn:
        """Raises UserError for what is there, though the run folder does not know of it."""
        raise UserError(
            f"{what}, and no {self.journal.path.parent.name} beside it says how they were made. Choose another --output"
            f"{or_else}."
        )


def refuse_unknown(file: Path) -> None:
    """Raises UserError for a file that has been there before, with something in it."""
    if file.is_file() and file.stat().st_size:
        raise UserError(
            f"{file}: exists, and there is no {file.name}.run beside it that says how it was made. Choose another "
            "--output, or --overwrite it."
        )


def public(records: Iterator[Record]) -> Iterator[Record]:
    """Records without what is for our own use."""
    return ({name: value for name, value in record.items() if not name.startswith("_")} for record in records)


def merge_text(old: str | None, new: str, existing: str, separator: str) -> str:
    """What a text file holds after ``new`` came to what it held before, by ``--existing``."""
    before = (old or "").strip()
    if not before or existing == "overwrite":
        return new
    if existing == "skip":
        return before
    return separator.join((before, new) if existing == "append" else (new, before))


def paragraphs(record: Record) -> list[tuple[str, str]]:
    """The text of a record as (heading, text): one without a heading, or one for each of its sections."""
    if sections := record.get("sections"):
        return [(name.capitalize(), " ".join(sentences)) for name, sentences in sections.items()]
    return [("", record["caption"])] if record["caption"] else []


def as_text(record: Record) -> str:
    """The caption, or its sections, a line each."""
    return "\n".join(f"{name}: {text}" if name else text for name, text in paragraphs(record))


def all_captions(record: Record) -> str:
    """The caption (or its sections) and the next best ones, a line each."""
    return "\n".join([as_text(record), *(other["caption"] for other in record.get("alternatives", ()))])


class Mark:
    """A small file in the run folder that says how far the journal has been dealt with, in bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> int:
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return 0

    def write(self, position: int) -> None:
        with written_to_disk(self.path, "w") as file:
            file.write(str(position))


class Files(Output):
    """A file for each caption, which the journal has before: those after the last checkpoint are written once more."""

    def __init__(self, path: Path | None, run: Path) -> None:
        super().__init__(path, run / "captions.jsonl")
        self._mark = Mark(run / "written")
        self._replayed = False

    def checkpoint(self) -> None:
        self._replay()
        self._mark.write(self.journal.path.stat().st_size)

    def finish(self, *, quiet: bool = False) -> None:
        self.checkpoint()

    def _replay(self) -> None:
        """Write what an earlier run may not have come to write."""
        if not self._replayed:
            self._replayed = True
            for _, record in self.journal.entries(self._mark.read()):
                self._write(record)

    def _write(self, record: Record) -> None:
        """Write the file of a record, as often as is asked for."""
        raise NotImplementedError
