"""From one row (a mapping of column to value) to an :class:`~latentcap.data.Example`: which column means what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.splits import normalise_split
from latentcap.data.report_text import TEXT_STYLES

IMAGE_COLUMNS = ("file_name", "image", "image_path", "file", "path", "filename")
CAPTION_COLUMNS = ("captions", "caption", "text", "sentence", "sentences", "report")
ID_COLUMNS = ("id", "image_id")
GROUP_COLUMNS = ("patient_id", "subject_id", "case_id")
REPORT_TARGETS = ("findings", "impression", "both", "case")
MISSING = frozenset({"", "n/a", "nan", "null"})  # texts that stand for a missing context, category or number

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Fields:
    """The names of the columns. ``None`` finds the column by the usual names; a named column has to exist.

    ``caption=""`` reads examples without captions, for captioning. ``numbers`` and ``categories`` have no usual names:
    only those listed are read; likewise ``labels``, which are for a label head and for balanced sampling.

    Attributes:
        group: the patient or case; its examples have to be in one split.
        report: what the readers of radiology sets take for the reference: ``findings``, ``impression`` or ``both``;
            ``case`` is everything that was written about the case, which MedPix has more of (``medical/medpix.py``).
        text_style: how texts are cleaned: ``clean``, ``r2gen`` or ``none`` (see ``latentcap.data.report_text``). None
            cleans the texts of the radiology sets' readers and leaves all others as they are.
    """

    image: str | None = None
    caption: str | None = None
    context: str | None = None
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    split: str | None = None
    id: str | None = None
    paraphrases: str | None = None
    labels: tuple[str, ...] = ()
    group: str | None = None
    report: str = "findings"
    text_style: str | None = None

    def __post_init__(self) -> None:
        styles = tuple(TEXT_STYLES)
        for name, accepted in (("report", REPORT_TARGETS), ("text_style", styles)):
            value = getattr(self, name)
            if value is not None and value not in accepted:
                hint = did_you_mean(value, accepted)
                raise UserError(f"fields.{name} is '{value}': it must be one of {', '.join(accepted)}.{hint}")

    def resolve(self, columns: Iterable[str], where: str, *, with_image: bool = True) -> Columns:
        """Find every field among ``columns``. Raises UserError, listing the columns, where one is not there."""
        found = tuple(dict.fromkeys(columns))

        def find(field: str, name: str | None, usual: Sequence[str], *, required: bool = False) -> str | None:
            names = usual if name is None else (name,)
            match = next((column for column in names if column in found), None)
            if match is None and (required or name is not None):
                listing = ", ".join(found) or "none"
                hint = did_you_mean(name, found) if name is not None else f" Looked for: {', '.join(usual)}."
                what = f"no {field} column" if name is None else f"no column '{name}' for the {field}"
                raise UserError(
                    f"{where}: {what}. Columns found: {listing}.{hint} "
                    f"Name the right one in the fields, as {field}=COLUMN."
                )
            return match

        return Columns(
            image=find("image", self.image, IMAGE_COLUMNS, required=True) if with_image else None,
            caption=None if self.caption == "" else find("caption", self.caption, CAPTION_COLUMNS, required=True),
            context=find("context", self.context, ("context",)),
            numbers=tuple(find("numbers", name, ()) or name for name in self.numbers),
            categories=tuple(find("categories", name, ()) or name for name in self.categories),
            split=find("split", self.split, ("split",)),
            id=find("id", self.id, ID_COLUMNS),
            paraphrases=find("paraphrases", self.paraphrases, ("paraphrases",)),
            labels=tuple(find("labels", name, ()) or name for name in self.labels),
            group=find("group", self.group, GROUP_COLUMNS),
        )


@dataclass(frozen=True)
class ReadOptions:
    """What a reader is told besides the path."""

    fields: Fields = Fields()
    image_root: Path | None = None


@dataclass(frozen=True)
class Columns:
    """:class:`Fields` found among the columns of one file; ``None`` where the file has none."""

    image: str | None
    caption: str | None
    context: str | None
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    split: str | None
    id: str | None
    paraphrases: str | None
    labels: tuple[str, ...]
    group: str | None

    def example(self, row: Row, *, id: str, images: tuple[ImageRef, ...], default_split: str, where: str) -> Example:
        """One row as an example. Raises UserError for a split name that means nothing."""
        split = clean_text(row.get(self.split)) if self.split else None
        return Example(
            id=id,
            images=images,
            captions=to_captions(row.get(self.caption)) if self.caption else (),
            paraphrases=to_captions(row.get(self.paraphrases)) if self.paraphrases else (),
            context=clean_text(row.get(self.context)) if self.context else None,
            numbers={name: to_number(row.get(name)) for name in self.numbers},
            categories={name: clean_text(row.get(name)) for name in self.categories},
            split=normalise_split(split, where) if split else default_split,
            labels={name: label for name in self.labels if (label := clean_text(row.get(name)))},
            group=clean_text(row.get(self.group)) if self.group else None,
        )


def is_null(value: Any) -> bool:
    """None, and the NaN that tables write for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def to_captions(value: Any) -> tuple[str, ...]:
    """A text or a list of texts. Nulls are left out; blank texts stay, so that the data check can report them."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(str(text).strip() for text in values if not is_null(text))


def clean_text(value: Any) -> str | None:
    """The text without outer white space, or None for null, blank and "N/A"."""
    text = "" if is_null(value) else str(value).strip()
    return None if text.lower() in MISSING else text


def to_number(value: Any) -> float | None:
    """A finite number, or None for anything else: "N/A", "", null, NaN and free text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
