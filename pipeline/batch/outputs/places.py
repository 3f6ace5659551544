"""Where texts have a place: which file is whose, and whether it can come to be at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Journal, digest
from latentcap.data.image import ImageRef
from latentcap.data.remote import is_remote


class Places:
    """Which files are whose, so that no two images share one, whichever run they come in and in whatever order.

    Nothing is held but 64 bits for each file and for its input. ``folder`` is what texts are mirrored into, or None.
    """

    def __init__(self, folder: Path | None, journal: Journal) -> None:
        self.folder, self.journal = folder, journal
        self._given: dict[int, int] = {}  # files, with the inputs that they are of
        self._earlier: dict[int, int] | None = None  # those of earlier runs, with where their records are
        self._folders: set[int] = set()

    def take(self, target: Path, item: Input) -> bool:
        """Give a file to an input. Returns whether it is no other's.

        Raises OSError where it lies below another's file, or other files are to lie below it.
        """
        path = os.path.abspath(target)
        earlier, key = self._known(), digest(path)
        start = earlier.get(key)
        if start is not None:
            other = next(self.journal.entries(start))[1]["file"]
            if other != item.name and not is_gone(other, item.images[0]):
                return False
        folders = set(self._folders_of(path))
        if key in self._folders:
            raise IsADirectoryError(errno.EISDIR, "a folder is called so")
        if not (folders.isdisjoint(earlier) and folders.isdisjoint(self._given)):
            raise NotADirectoryError(errno.ENOTDIR, "its folder is called as another's file")
        name = digest(item.name)
        self._folders |= folders
        return self._given.setdefault(key, name) == name

    def _known(self) -> dict[int, int]:
        if self._earlier is None:
            self._earlier, start = {}, 0
            for end, record in self.journal.entries():
                path = os.path.abspath(record["_sidecar"])
                self._earlier[digest(path)] = start
                self._folders.update(self._folders_of(path))
                start = end
        return self._earlier

    def _folders_of(self, path: str) -> Iterator[int]:
        """The folders that a file needs below the one that is written into."""
        if self.folder is not None:
            top = len(os.path.abspath(self.folder))
            while len(path := os.path.dirname(path)) > top:
                yield digest(path)


def is_gone(name: str, image: ImageRef) -> bool:
    """Whether the input of a name, whose text would be that of ``image`` too, is a file no longer there."""
    if image.offset is not None or image.data is not None or is_remote(image.path):
        return False
    return not os.path.lexists(Path(image.path).with_name(PurePath(name).name))


def check_place(target: Path) -> None:
    """Raises OSError where a file can never come to be, so that this is known before anything is captioned."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(target).st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder is called so")
    folder, names = target.parent, [target.name]
    while not folder.exists() and folder != folder.parent:
        folder, names = folder.parent, [folder.name, *names]
    for name in names:  # too long a name shows in a folder that is there
        with suppress(FileNotFoundError):
            os.stat(folder / name)
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "its folder is read-only")
