"""From one row (a mapping of column to value) to an :class:`~latentcap.data.Example`: which column means what."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.captions import is_null, to_captions
from latentcap.data.readers.splits import normalise_split
from latentcap.data.report_text import TEXT_STYLES

IMAGE_COLUMNS = (
    *("file_name", "image", "image_path", "file", "path", "filename", "image_name", "image_file", "img", "img_path"),
    *("filepath", "file_path"),
)
CAPTION_COLUMNS = (
    *("captions", "caption", "text", "sentence", "sentences", "report", "caption_text", "comment", "raw"),
    "description",
)
ADDRESS_COLUMNS = ("url", "image_url", "img_url", "coco_url", "flickr_url")
ID_COLUMNS = ("id", "image_id")
VIEWS_COLUMN = "views"  # the names of a row's images, such as frontal and lateral
SPLIT_LIKE = ("set", "subset", "partition", "dataset_split", "data_split")  # where all values are names of splits
GROUP_COLUMNS = ("patient_id", "subject_id", "case_id")
REPORT_TARGETS = ("findings", "impression", "both", "case")
FINDINGS = "findings"  # the label that is read from the captions where no column has it
WORDS = "words"  # the label that is what the captions name: a column of that name may be anything
FROM_CAPTIONS = (FINDINGS, WORDS)
CACHE = Path("~/.cache/latentcap").expanduser()
MISSING = frozenset({"", "n/a", "nan", "null"})  # texts that stand for a missing context, category or number
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,(\d{1,2}|\d{4,})|[-+]?0,\d+")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Fields:
    """The names of the columns. ``None`` finds the column by the usual names; a named column has to exist.

    ``caption=""`` reads examples without captions, for captioning. ``numbers`` and ``categories`` have no usual names:
    only those listed are read; likewise ``labels``, which are for a label head and for balanced sampling. The label
    ``findings`` needs no column: it is what the rules of ``medical.chexpert`` find in the captions. Nor does ``words``:
    it is the words of the captions that are no stop words.

    Attributes:
        group: the patient or case; its examples have to be in one split.
        report: what the readers of radiology sets take for the reference: ``findings``, ``impression`` or ``both``;
            ``case`` is everything that was written about the case, which MedPix has more of (``medical/medpix.py``).
        text_style: how texts are cleaned: ``clean``, ``r2gen`` or ``none`` (see ``latentcap.data.report_text``). None
            cleans the texts of the radiology sets' readers and leaves all others as they are.
        frame: which frame of a DICOM film is the image: ``first``, ``middle``, or a number from 1.
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
    frame: str | None = None

    def __post_init__(self) -> None:
        if self.frame is not None and not is_frame(self.frame):
            raise UserError(f"fields.frame is '{self.frame}': it must be first, middle, or a number from 1.")
        styles = tuple(TEXT_STYLES)
        for name, accepted in (("report", REPORT_TARGETS), ("text_style", styles)):
            value = getattr(self, name)
            if value is not None and value not in accepted:
                hint = did_you_mean(value, accepted)
                raise UserError(f"fields.{name} is '{value}': it must be one of {', '.join(accepted)}.{hint}")

    def resolve(self, columns: Iterable[str], where: str, *, with_image: bool = True) -> Columns:
        """Find every field among ``columns``. Raises UserError, listing the columns, where one is not there."""
        found = tuple(dict.fromkeys(columns))
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for column in found:
            alike[column.strip().lower()].append(column)

        def find(field: str, name: str | None, usual: Sequence[str], *, required: bool = False) -> str | None:
            names = usual if name is None else (name,)
            match = next((column for column in names if column in found), None)
            if match is None and name is None:  # "Split", " image"
                match = next((alike[column][0] for column in names if len(alike[column]) == 1), None)
            if match is None and name is not None and name.partition(".")[0] in found:
                return name  # an entry of an object: caption=sentences.raw
            addresses = [column for column in found if column.lower() in ADDRESS_COLUMNS]
            if match is None and name is None and field == "image" and required and addresses:
                raise addresses_alone(where, f"column {addresses[0]}")
            if match is None and (required or name is not None):
                listing = ", ".join(found) or "none"
                hint = did_you_mean(name, found) if name is not None else f" Looked for: {', '.join(usual)}."
                what = f"no {field} column" if name is None else f"no column '{name}' for the {field}"
                raise UserError(
                    f"{where}: {what}. Columns found: {listing}.{hint} "
                    f"Name the right one: --field {field}=COLUMN, in training --data.fields.{field} COLUMN."
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
            labels=tuple(
                find("labels", name, ()) or name
                for name in self.labels
                if name != WORDS and (name != FINDINGS or name in found)
            ),
            group=find("group", self.group, GROUP_COLUMNS),
        )


def is_frame(text: str) -> bool:
    """Whether a text chooses one frame of a film: ``first``, ``middle``, or a number from 1."""
    return text in ("first", "middle") or (text.isascii() and text.isdecimal() and int(text) > 0)


def addresses_alone(where: str, which: str) -> UserError:
    """What is said of images that are on the web."""
    return UserError(
        f"{where}: its images are addresses on the web ({which}), where files are needed. Fetch them first, for "
        "example with img2dataset, whose tars and folders are read."
    )


class Skipped(NamedTuple):
    """Something that was seen and is in no example, and why. ``expected``: it belongs there and is no fault."""

    name: str
    reason: str
    expected: bool = False


@dataclass(frozen=True)
class ReadOptions:
    """What a reader is told besides the path; and where it tells what it leaves out."""

    fields: Fields = Fields()
    image_root: Path | None = None
    cache: Path = CACHE
    skipped: list[Skipped] = field(default_factory=list, compare=False)

    @property
    def columns(self) -> Path:
        """Where big data sets are kept as columns."""
        return self.cache / "examples"

    def skip(self, name: str, reason: str, *, expected: bool = False) -> None:
        """Take down that something is in no example."""
        self.skipped.append(Skipped(name, reason, expected))


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
            captions=to_captions(cell(row, self.caption), where) if self.caption else (),
            paraphrases=to_captions(cell(row, self.paraphrases), where) if self.paraphrases else (),
            context=clean_text(row.get(self.context)) if self.context else None,
            numbers={name: to_number(row.get(name)) for name in self.numbers} if self.numbers else {},
            categories={name: clean_text(row.get(name)) for name in self.categories} if self.categories else {},
            split=normalise_split(split, where) if split else default_split,
            labels={name: label for name in self.labels if (label := clean_text(row.get(name)))} if self.labels else {},
            views=to_views(row.get(VIEWS_COLUMN), len(images)),
            group=clean_text(row.get(self.group)) if self.group else None,
        )


def cell(row: Row, column: str) -> Any:
    """What a row has in a column; ``a.b`` is the entry ``b`` of an object, or of each in a list, in column ``a``."""
    if column in row or "." not in column:
        return row.get(column)
    name, _, inside = column.partition(".")
    value = row.get(name)
    if isinstance(value, list | tuple):
        return [cell(item, inside) for item in value if isinstance(item, Mapping)]
    return cell(value, inside) if isinstance(value, Mapping) else None


def to_views(value: Any, images: int) -> tuple[str, ...]:
    """The names of a row's images: a list, or a text with commas. Empty where there is not one text for each."""
    if value is None:
        return ()
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
    cleaned = tuple(name.strip() for name in names if isinstance(name, str) and name.strip())
    return cleaned if len(cleaned) == images else ()


def clean_text(value: Any) -> str | None:
    """The text without outer white space, or None for null, blank and "N/A"."""
    text = "" if is_null(value) else str(value).strip()
    return None if text.lower() in MISSING else text


def to_number(value: Any) -> float | None:
    """A finite number, or None for anything else: "N/A", "", null, NaN and free text.

    A comma is a decimal point (``1,5``) unless three digits follow it, when nobody knows.
    """
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
        value = value.replace(",", ".")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
