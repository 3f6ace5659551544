"""Captions where photo programs look for them: XMP sidecars, and the images' own metadata."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record, digest, synced
from latentcap.batch.metadata.image_file import read_description, write_description
from latentcap.batch.metadata.xmp import description_of, with_description
from latentcap.batch.outputs.sidecar import Sidecars
from latentcap.data.example import ImageRef

XMP_NAMES = ("full", "stem")


class XmpSidecars(Sidecars):
    """``x.jpg.xmp`` for ``x.jpg``, or ``x.xmp`` by ``naming``: the best caption as ``dc:description``.

    Of an XMP file that is there already, everything but its description in the default language stays.
    """

    other_names = "which is called the same but for its ending: leave --xmp-name away"
    why_skipped = "has a description already (--existing says what becomes of it)"

    def __init__(self, path: Path | None, run: Path, *, existing: str, separator: str, naming: str = "full") -> None:
        super().__init__(path, run, suffix=".xmp", existing=existing, separator=separator)
        self.naming = naming

    def target(self, name: str, image: ImageRef) -> Path:
        stem = super().target(name, image)
        if self.naming == "stem":
            return stem
        return stem.with_name(Path(image.name or image.path).name + ".xmp")

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        wanted = super().prepare(item, known=known)
        stale = digest(item.name) in self._stale
        if wanted is None or wanted.error or not wanted.images or (known and not stale):
            return wanted
        target = self.target(item.name, item.images[0])
        try:
            old = self.old_text(target)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            return replace(item, error=f"{self.unusable(target)}: {reason}")
        return None if self.existing == "skip" and old and not stale else wanted

    def is_there(self, target: Path) -> bool:
        return False  # what counts is whether there is a description in it

    def old_text(self, target: Path) -> str | None:
        return description_of(target.read_bytes()) if target.is_file() else None

    def new_text(self, record: Record) -> str:
        return str(record["caption"])

    def write(self, target: Path, text: str) -> None:
        old = target.read_bytes() if target.is_file() else None
        new = with_description(old, text)
        if new != old:
            with synced(target) as file:
                file.write(new)

    def take_back(self, target: Path, text: str, before: str) -> None:
        if before or target.read_bytes() != with_description(None, text):
            self.write(target, before)
        else:  # all of it is ours
            target.unlink()

    def unusable(self, target: Path) -> str:
        return f"{target.name} is no XMP that a description could be put into"


class Embedded(XmpSidecars):
    """The description in the image file itself, JPEG, PNG or WebP. Images of other kinds, and in archives, fail."""

    no_place = "in an archive or elsewhere, into which nothing is written"

    def __init__(self, run: Path, *, existing: str, separator: str) -> None:
        super().__init__(None, run, existing=existing, separator=separator)
        self.called = "it"

    def __str__(self) -> str:
        return "descriptions in the images"

    def target(self, name: str, image: ImageRef) -> Path:
        return Path(image.path)

    def is_gone(self, item: Input) -> bool:
        return False

    def old_text(self, target: Path) -> str | None:
        return read_description(target) if target.is_file() else None

    def write(self, target: Path, text: str) -> None:
        if target.is_file():  # an earlier run's image may be gone by now
            write_description(target, text)

    def take_back(self, target: Path, text: str, before: str) -> None:
        self.write(target, before)

    def unusable(self, target: Path) -> str:
        return "no description can be written into it"
