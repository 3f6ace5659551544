"""What every output is: a journal, and what is made of it."""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Journal, Record, write_error, written_to_disk
from latentcap.data.errors import UserError

EXISTING = ("skip", "overwrite", "append", "prepend")
OF_ONE_FILE = frozenset(
    (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP)
    + (errno.EACCES, errno.EPERM, errno.EINVAL, errno.EILSEQ)
)
"""Why a file system may refuse one file and take the next; a full disk takes none."""


class Output:
    """JSON Lines: the journal is the output. The other formats derive from this.

    Attributes:
        needs_images: records carry the places of their images, as ``"_images"``.
        needs_ids: records carry the ids that a table gives, as ``"_id"``.
        path: the file or folder; None for sidecars beside their images.
        refused: errors of captions that :meth:`append` found no place for, as records, until somebody takes them.
        why_skipped: what is said of an input that :meth:`prepare` does not want.
        lost: errors of inputs whose captions :meth:`checkpoint` or :meth:`finish` took back; whoever calls empties it.
    """

    needs_images = False
    needs_ids = False
    why_skipped = ""

    def __init__(self, path: Path | None, journal: Path) -> None:
        self.path = path
        self.journal = Journal(journal)
        self.refused: list[Record] = []
        self.lost: list[Record] = []

    def __str__(self) -> str:
        return str(self.path)

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        """The input, or None where it is not to be captioned. ``known``: the journal has its caption."""
        return item

    def replay(self) -> Sequence[str]:
        """Called before a run goes on. Returns the names of inputs that it has to caption anew."""
        return ()

    def append(self, records: Sequence[Record]) -> int:
        """Make captions final. Returns how many; the others are in ``refused``."""
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
    """A file for each caption, which the journal has before: those after the last checkpoint are written once more.

    A file that cannot be written for a reason of its own, such as its name, is an error of that input, whose caption
    the journal does not keep.
    """

    called = "its file"

    def __init__(self, path: Path | None, run: Path) -> None:
        super().__init__(path, run / "captions.jsonl")
        self._mark = Mark(run / "written")
        self._replayed = False

    def replay(self) -> Sequence[str]:
        """Write what an earlier run may not have come to write. Returns the names of what has no place any more."""
        if self._replayed:
            return ()
        self._replayed = True
        return [record["file"] for record in self._write_from(self._mark.read(), self._rewrite)]

    def append(self, records: Sequence[Record]) -> int:
        self.replay()
        start = self.journal.path.stat().st_size
        self.journal.append(records)
        refused = self._write_from(start, self._write)
        self.refused += refused
        return len(records) - len(refused)

    def checkpoint(self) -> None:
        self.replay()
        self._mark.write(self.journal.path.stat().st_size)

    def finish(self, *, quiet: bool = False) -> None:
        self.checkpoint()

    def _write_from(self, start: int, write: Callable[[Record], None]) -> list[Record]:
        """Write the records of the journal from a byte on. Those refused leave the journal; returns their errors."""
        refused: dict[int, Record] = {}
        for end, record in self.journal.entries(start):
            if reason := self._refusal(record, write):
                refused[start] = {"file": record["file"], "error": reason}
            start = end
        if refused:
            self.journal.drop(refused)
        return list(refused.values())

    def _refusal(self, record: Record, write: Callable[[Record], None]) -> str:
        """Do something to the file of a record. Returns why that file refuses, or "".

        Raises UserError where others would, too.
        """
        try:
            write(record)
        except UserError:
            raise
        except OSError as error:
            if error.errno not in OF_ONE_FILE:
                raise write_error(self._target_of(record), error) from None
            return f"{self.called} cannot be written: {error.strerror}"
        except ValueError as error:
            return f"{self.called} cannot be written: {error}"
        return ""

    @abstractmethod
    def _target_of(self, record: Record) -> Path:
        """The file of a record."""

    @abstractmethod
    def _write(self, record: Record) -> None:
        """Write the file of a record, as often as is asked for. Raises OSError or ValueError where that fails."""

    def _rewrite(self, record: Record) -> None:
        """Write the file of an earlier run, which may have done so."""
        self._write(record)
