"""WebDataset tars: those that came in, with captions added; other images packed into new ones."""

from __future__ import annotations

import io
import json
import os
import tarfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import IO

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record, digest, written_to_disk
from latentcap.batch.outputs.base import Output, all_captions, merge_text, public
from latentcap.batch.outputs.copied import copied, why_not_copied
from latentcap.data.encoding import encoding_of
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from latentcap.data.kinds import is_image, suffix_of
from latentcap.progress import Progress

PER_TAR = 1000


class Tars(Output):
    """Made from the journal when all inputs are dealt with; a tar is final when it has taken its place.

    A tar that came in goes out under its name, every member as it was, with ``KEY.txt`` for each image that has a
    caption; one that was there before is dealt with as ``--existing`` says. Images in files and zips are packed into
    ``captions-00000.tar``, ..., a thousand each: ``KEY.jpg``, ``KEY.txt`` and ``KEY.json`` with the record.
    """

    needs_images = True

    def __init__(self, path: Path, run: Path, *, existing: str, separator: str) -> None:
        super().__init__(path, run / "captions.jsonl")
        self.folder, self.existing, self.separator = path, existing, separator
        self._state = run / "tars.json"

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        if item.images:
            image = item.images[0]
            if reason := why_not_copied(item, "webdataset"):
                return replace(item, error=item.error or reason)
            if image.in_tar and _same_file(self._mirrored(item.name, image), image.path):
                raise UserError(f"{image.path}: would be written over. Choose another folder as --output.")
        return item

    def finish(self, *, quiet: bool = False) -> None:
        archives, packed = self._index()
        written = self._known()
        jobs: dict[str, tuple[str, array[int]]] = {}
        for target, (source, offsets) in archives.items():
            jobs[target] = (source, offsets)
        for number, at in enumerate(range(0, len(packed), PER_TAR)):
            jobs[str(self.folder / f"captions-{number:05d}.tar")] = ("", packed[at : at + PER_TAR])
        left = [name for name in jobs if written.get(name) != _version(jobs[name][1]) or not os.path.isfile(name)]
        with Progress("tars", unit="tar") as progress:
            for count, name in enumerate(left, start=1):
                source, offsets = jobs[name]
                with written_to_disk(Path(name)) as file:
                    records = self._records(offsets)
                    if source:
                        self._add_to(source, records, file)
                    else:
                        _pack(records, file)
                written[name] = _version(offsets)
                with written_to_disk(self._state, "w") as state:
                    json.dump(written, state)
                if not quiet:
                    progress.update(count, len(left))

    def renew(self, stale: Mapping[int, int]) -> None:
        self._state.unlink(missing_ok=True)
        super().renew(stale)

    def clear(self) -> None:
        for name in self._known():
            Path(name).unlink(missing_ok=True)
        super().clear()

    def check_unknown(self) -> None:
        if self.folder.is_dir() and any(self.folder.glob("*.tar")):
            self.refuse(f"{self.folder}: holds tars")

    def _known(self) -> dict[str, str]:
        try:
            return dict(json.loads(self._state.read_bytes()))
        except (OSError, ValueError):
            return {}

    def _index(self) -> tuple[dict[str, tuple[str, array[int]]], array[int]]:
        """Where in the journal the records of each tar begin: target -> (source, starts); and those of files."""
        archives: dict[str, tuple[str, array[int]]] = {}
        packed = array("q")
        start = 0
        for end, record in self.journal.entries():
            image = ImageRef(*record["_images"][0])
            if image.in_tar:
                target = str(self._mirrored(record["file"], image))
                archives.setdefault(target, (image.path, array("q")))[1].append(start)
            else:
                packed.append(start)
            start = end
        return archives, packed

    def _records(self, starts: Sequence[int]) -> Iterator[Record]:
        for start in starts:
            yield next(self.journal.entries(start))[1]

    def _mirrored(self, name: str, image: ImageRef) -> Path:
        inside = name.removesuffix(f":{image.name}") if name != image.name else os.path.basename(image.path)
        parts = [part for part in PurePath(inside).parts if part not in ("..", PurePath(inside).anchor)]
        return Path(self.folder, *parts)

    def _add_to(self, source: str, records: Iterator[Record], file: IO[bytes]) -> None:
        """Copy a tar, with captions in place of, or added to, the texts of its samples."""
        texts = {f"{os.path.splitext(record['_images'][0][3])[0]}.txt": all_captions(record) for record in records}
        with _open_tar(source) as archive, tarfile.open(fileobj=file, mode="w") as out:
            members = list(_whole_members(archive))
            present = {member.name.removeprefix("./") for member in members}
            for member in members:
                name = member.name.removeprefix("./")
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None and name in texts:
                    held = content.read()
                    old = held.decode(encoding_of(held), "surrogateescape")
                    _add_text(out, member.name, merge_text(old, texts[name], self.existing, self.separator))
                    continue
                out.addfile(member, content)
                text = f"{os.path.splitext(name)[0]}.txt"
                if text in texts and text not in present and is_image(name):  # a sample's members stay together
                    _add_text(out, text, texts[text])


def _open_tar(path: str) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{path}: was captioned and cannot be read now ({error}).") from None


def _whole_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members up to the place where a tar is cut off."""
    size = os.path.getsize(str(archive.name))
    try:
        for member in archive:
            if member.offset_data + member.size <= size:
                yield member
    except tarfile.ReadError:
        return


def _pack(records: Iterator[Record], file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w") as out:
        for record in records:
            key = f"{digest(record['file']):016x}"
            images = [ImageRef(*place) for place in record["_images"]]
            for view, image in enumerate(images):
                suffix = suffix_of(image.name or image.path) or ".jpg"
                _add(out, f"{key}{suffix}" if len(images) == 1 else f"{key}.{view}{suffix}", copied(image))
            _add_text(out, f"{key}.txt", all_captions(record))
            told = json.dumps(next(public(iter([record]))), ensure_ascii=False)
            _add_text(out, f"{key}.json", told)


def _add_text(out: tarfile.TarFile, name: str, text: str) -> None:
    _add(out, name, text.encode("utf-8", "backslashreplace"))


def _add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    out.addfile(member, io.BytesIO(content))


def _version(starts: Sequence[int]) -> str:
    """Changes when records are added to a tar; the journal is only appended to."""
    return f"{len(starts)} records, the last at {starts[-1]}"


def _same_file(one: Path, other: str) -> bool:
    return one.exists() and os.path.exists(other) and os.path.samefile(one, other)
