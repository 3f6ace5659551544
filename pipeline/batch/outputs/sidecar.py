"""Sidecars: a text file for each image, beside it or in the same place below another folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record, digest
from latentcap.batch.outputs.base import Files, all_captions, merge_text
from latentcap.batch.outputs.places import Places, check_place
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
        self._places = Places(path, self.journal)
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
        if known and digest(item.name) not in self._stale:
            return item
        target = self.target(item.name, image)
        try:
            if not self._places.take(target, item):
                return replace(item, error=f"{self.called} is that of another already, {self.other_names}")
            if self.existing == "skip" and not known and self.is_there(target):
                return None
            check_place(target)
        except OSError as error:
            return replace(item, error=f"{self.called} cannot be written: {error.strerror}")
        return item

    def append(self, records: Sequence[Record]) -> int:
        self.replay()
        planned = []
        for record in records:
            if reason := self._refusal(record, self._plan):  # the place has changed since the image was listed
                self.refused.append({"file": record["file"], "error": reason})
            else:
                planned.append(record)
        return super().append(planned)

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
        self.replay()
        if hasattr(os, "sync"):
            os.sync()
        super().checkpoint()

    def clear(self) -> None:
        """Take our texts back, too, so that there is what was there before; what somebody has edited since stays."""
        for record in self.journal:
            self._refusal(record, self._take_back)
        self._places = Places(self.path, self.journal)
        super().clear()

    def _target_of(self, record: Record) -> Path:
        return Path(record["_sidecar"])

    def _plan(self, record: Record) -> None:
        """Write into a record what its file is to contain."""
        target = self.target(record["file"], ImageRef(*record.pop("_images")[0]))
        record["_sidecar"] = str(target)
        try:
            old = self.old_text(target)
            before = self._before(record["file"], old)
        except UserError as error:  # what is no text is a fault of that file alone
            raise ValueError(str(error)) from None
        record["_text"] = merge_text(before, self.new_text(record), self.existing, self.separator)
        if before:
            record["_before"] = before
        if old and old != before:  # an outdated caption of ours
            record["_outdated"] = old

    def _write(self, record: Record) -> None:
        self.write(self._target_of(record), record["_text"])

    def _rewrite(self, record: Record) -> None:
        """Unless somebody has written something else since."""
        if self._says(record, "", record.get("_before", ""), record.get("_outdated", ""), record["_text"]):
            self._write(record)

    def _take_back(self, record: Record) -> None:
        if self._says(record, record["_text"]):
            self.take_back(self._target_of(record), record["_text"], record.get("_before", ""))

    def _says(self, record: Record, *texts: str) -> bool:
        """Whether the file of a record holds one of these texts; zeros, as a crash of the machine leaves, are none."""
        try:
            old = self.old_text(self._target_of(record)) or ""
        except ValueError:  # no text at all, so none of ours
            return False
        return old.strip("\0").strip() in {text.strip() for text in texts}

    # What a sidecar of another kind does otherwise --------------------------------------------------------------------

    def is_there(self, target: Path) -> bool:
        """Whether a sidecar is there already, so that its image may be left out. White space is no text."""
        try:
            return bool((self.old_text(target) or "").strip())
        except ValueError:
            return True

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

    def take_back(self, target: Path, text: str, before: str) -> None:
        """Put ``before`` in the place of a text of ours."""
        if before:
            self.write(target, before.removesuffix("\n"))
        else:
            target.unlink(missing_ok=True)
