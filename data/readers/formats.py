"""What a reader says of itself: the form that it reads, and how that is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentcap.data.example import Example
from latentcap.data.readers.fields import ReadOptions

Reader = Callable[[Path, ReadOptions], Sequence[Example]]


@dataclass(frozen=True)
class Format:
    """A form of data.

    Attributes:
        name: what ``format`` is to be for it.
        read: the reader. Raises UserError for what it cannot read.
        found: whether (anything true) a folder is of this form.
        kind: what is to be given by ``format``: a file, a folder, or "" for either.
        looked_for: what to tell people who wonder what a folder needs.
        medical: texts are cleaned as reports are, unless ``fields.text_style`` says otherwise.
    """

    name: str
    read: Reader
    found: Callable[[Path], object] = lambda path: False
    kind: Literal["file", "folder", ""] = ""
    looked_for: str = ""
    medical: bool = False
