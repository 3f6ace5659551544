"""WebDataset tars: those that came in, with captions added; other images packed into new ones."""

from __future__ import annotations

import io
import json
import os
import tarfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path, PurePath
from typing import IO

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record, digest, written_to_disk
from latentcap.batch.outputs.base import Output, all_captions, merge_text, public
from latentcap.batch.outputs.copied import Lost, copied, take_back, why_not_copied
from latentcap.data.encoding import encoding_of
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from latentcap.data.kinds import suffix_of
from latentcap.progress import Progress

PER_TAR = 1000
OUTDATED = ""  # in place of what a tar was made of


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
        self._sources: dict[str, str] = {}  # the tar that each mirrored one is made of
        self._texts: dict[int, int] = {}  # digests of texts in tars, and of the names of their images

    def prepare(self, item: Input, *, known: bool) -> Input | None:
        if item.error or not item.images:
            return item
        image = item.images[0]
        if reason := why_not_copied(item, "webdataset"):
            return replace(item, error=reason)
        if not image.in_tar:
            return item
        target = str(self._mirrored(item.name, image))
        if _same_file(Path(target), image.path):
            raise UserError(f"{image.path}: would be written over. Choose another folder as --output.")
        if (source := self._sources.setdefault(target, image.path)) != image.path:
            return replace(item, error=f"its tar would be {target}, as {source} is: give it another --output")
        text, name = digest(f"{target}:{_text_of(image.name)}"), digest(item.name)
        if self._texts.setdefault(text, name) != name:
            return replace(
                item,
                error=f"{_text_of(image.name)} is the text of another image in its tar already, which is called the "
                "same but for its ending: rename one, or write .jsonl",
            )
        return item

    def finish(self, *, quiet: bool = False) -> None:
        while not self._write(quiet=quiet):
            pass

    def renew(self, stale: Mapping[int, int]) -> None:
        """The tars stay until :meth:`finish` replaces them one by one, whenever that is."""
        self._note(dict.fromkeys(self._known(), OUTDATED))
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

    def _note(self, written: Mapping[str, str]) -> None:
        with written_to_disk(self._state, "w") as state:
            json.dump(written, state)

    def _write(self, *, quiet: bool) -> bool:
        """Write the tars that are missing or outdated. False where captions were taken back, and others moved up."""
        jobs, written = self._jobs(), self._known()
        left = [name for name in jobs if written.get(name) != _version(jobs[name][1]) or not os.path.isfile(name)]
        with Progress("tars", unit="tar") as progress:
            for done, name in enumerate(left, start=1):
                source, starts = jobs[name]
                try:
                    with written_to_disk(Path(name)) as file:
                        if source:
                            self._add_to(source, self._records(starts), file)
                        else:
                            _pack(zip(starts, self._records(starts), strict=True), file)
                except Lost as lost:
                    moved = (other for other in written if other in jobs and jobs[other][1][-1] >= starts[0])
                    self._note(written | dict.fromkeys(moved, OUTDATED))
                    take_back(self, lost, most=PER_TAR)
                    return False
                written[name] = _version(starts)
                self._note(written)
                if not quiet:
                    progress.update(done, len(left))
        surplus = [name for name in written if name not in jobs and Path(name).is_relative_to(self.folder)]
        for name in surplus:
            Path(name).unlink(missing_ok=True)
            del written[name]
        if surplus:
            self._note(written)
        return True

    def _jobs(self) -> dict[str, tuple[str, array[int]]]:
        """What each tar is made of: a tar, or "" for one that files are packed into, and where its records begin."""
        archives, packed = self._index()
        names = (str(self.folder / f"captions-{number:05d}.tar") for number in count())
        free = (name for name in names if name not in archives)
        chunks = (packed[at : at + PER_TAR] for at in range(0, len(packed), PER_TAR))
        return {name: ("", starts) for starts, name in zip(chunks, free, strict=False)} | archives

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
        captions = {record["_images"][0][3]: all_captions(record) for record in records}
        texts = {_text_of(name): caption for name, caption in captions.items()}
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
                if name in captions and _text_of(name) not in present:  # a sample's members stay together
                    _add_text(out, _text_of(name), captions.pop(name))


def _text_of(image: str) -> str:
    """``a/KEY.txt`` of ``a/KEY.jpg``."""
    return f"{os.path.splitext(image)[0]}.txt"


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


def _pack(records: Iterator[tuple[int, Record]], file: IO[bytes]) -> None:
    """Samples of records, each with the byte that it begins at. Raises Lost, at the end, for those without an image."""
    lost: dict[int, Record] = {}
    with tarfile.open(fileobj=file, mode="w") as out:
        for start, record in records:
            key = f"{digest(record['file']):016x}"
            images = [ImageRef(*place) for place in record["_images"]]
            try:
                contents = list(map(copied, images))
            except OSError as error:
                lost[start] = {"file": record["file"], "error": str(error)}
                continue
            for view, (image, content) in enumerate(zip(images, contents, strict=True)):
                suffix = suffix_of(image.name or image.path) or ".jpg"
                _add(out, f"{key}{suffix}" if len(images) == 1 else f"{key}.{view}{suffix}", content)
            _add_text(out, f"{key}.txt", all_captions(record))
            told = json.dumps(next(public(iter([record]))), ensure_ascii=False)
            _add_text(out, f"{key}.json", told)
    if lost:
        raise Lost(lost)


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
