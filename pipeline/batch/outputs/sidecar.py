"""Sidecars: a text file for each image, beside it or in the same place below another folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record, digest, write_error
from latentcap.batch.outputs.base import Files, all_captions, merge_text
from latentcap.data.archives import as_path
from latentcap.data.encoding import open_text
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from latentcap.data.files import written_whole
from latentcap.data.remote import is_remote


class Sidecars(Files):
    """``x.txt`` for ``x.jpg``, written as soon as the caption is known.

    The journal holds what each file is to contain before it is written, so that writing it again after a crash gives
    the same: nothing is appended twice. :meth:`checkpoint` makes files final; those written after the last are written
    again by the next run.
    """

    needs_images = True
    no_place = "in an archive or elsewhere, with no place beside it: give a folder as --output"
    other_names = "which is called the same but for its ending: rename one, or write .jsonl"
    why_skipped = "has a text already (--existing says what becomes of it)"

    def __init__(self, path: Path | None, run: Path, *, suffix: str, existing: str, separator: str) -> None:
        super().__init__(path, run)
        self.suffix, self.existing, self.separator = suffix, existing, separator
        self.called = f"its {suffix} file"
        self._targets: dict[int, int] = {}
        self._stale: Mapping[int, int] = {}

    def __str__(self) -> str:
        return f"{self.suffix} files " + (f"in {self.path}" if self.path else "beside the images")

    def target(self, name: str, image: ImageRef) -> Path:
        """Where the sidecar of an image is."""
        if self.path is None:
            return Path(image.path).with_suffix(self.suffix)
        inside = PurePath(name if image.offset is None else as_path(name))
        parts = [part for part in inside.parts if part not in ("..", inside.anchor)]
        return Path(self.path, *parts).with_suffix(self.suffix)

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        if item.error or not item.images:
            return item
        image = item.images[0]
        if self.path is None and (image.offset is not None or image.data is not None or is_remote(image.path)):
            return replace(item, error=self.no_place)
        target = self.target(item.name, image)
        key, name = digest(str(target)), digest(item.name)
        if self._targets.setdefault(key, name) != name:
            return replace(item, error=f"{self.called} is that of another already, {self.other_names}")
        if known and name not in self._stale:
            return item
        try:
            if self.existing == "skip" and not known and self.is_there(target):
                return None
            check_place(target)
        except OSError as error:
            return replace(item, error=f"{self.called} cannot be written: {error.strerror}")
        return item

    def append(self, records: Sequence[Record]) -> int:
        self._replay()
        for record in records:
            target = self.target(record["file"], ImageRef(*record.pop("_images")[0]))
            try:
                old = self.old_text(target)
            except (OSError, ValueError) as error:  # it has changed since the image was listed
                raise _problem(target, error) from None
            before = self._before(record["file"], old)
            text = merge_text(before, self.new_text(record), self.existing, self.separator)
            record |= {"_sidecar": str(target), "_text": text} | ({"_before": before} if before else {})
        self.journal.append(records)
        for record in records:
            self._write(record)
        return len(records)

    def renew(self, stale: Mapping[int, int]) -> None:
        """The journal keeps them: they say which part of a text is ours. The last record of a name counts."""
        self._stale = stale

    def is_gone(self, item: Input) -> bool:
        return bool(item.images) and not self.target(item.name, item.images[0]).is_file()

    def _before(self, name: str, old: str | None) -> str | None:
        """What a text was without an outdated caption of ours; all of it where somebody has changed it since."""
        start = self._stale.get(digest(name))
        if start is None or old is None:
            return old
        _, record = next(self.journal.entries(start))
        before: str | None = record.get("_before")
        return before if old.strip() == record["_text"].strip() else old

    def checkpoint(self) -> None:
        self._replay()
        if hasattr(os, "sync"):
            os.sync()
        super().checkpoint()

    def _write(self, record: Record) -> None:
        target = Path(record["_sidecar"])
        try:
            self.write(target, record["_text"])
        except (OSError, ValueError) as error:
            raise _problem(target, error) from None

    # What a sidecar of another kind does otherwise --------------------------------------------------------------------

    def is_there(self, target: Path) -> bool:
        """Whether a sidecar is there already, so that its image may be left out."""
        return target.is_file()

    def old_text(self, target: Path) -> str | None:
        """What the sidecar says so far."""
        if not target.is_file():
            return None
        with open_text(target, errors="surrogateescape") as file:
            return file.read()

    def new_text(self, record: Record) -> str:
        return all_captions(record)

    def write(self, target: Path, text: str) -> None:
        """Write it, whole or not at all; writing it twice is writing it once. Raises OSError or ValueError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target, encoding="utf-8", errors="surrogateescape") as file:
            file.write(text + "\n")
            if not hasattr(os, "sync"):  # Windows: each file is waited for, in place of all at a checkpoint
                file.flush()
                os.fsync(file.fileno())


def check_place(target: Path) -> None:
    """Raises OSError where a file can never come to be, so that this is known before anything is captioned."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(target).st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder is called so")
    if target.parent.is_dir() and not os.access(target.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "its folder is read-only")


def _problem(target: Path, error: OSError | ValueError) -> UserError:
    if isinstance(error, UserError):
        return error
    return write_error(target, error if isinstance(error, OSError) else OSError(None, str(error)))
