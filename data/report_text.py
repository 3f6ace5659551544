"""Report text: cleaning and sections. Two styles: ours, and that which published numbers were made with.

De-identified places (``XXXX`` in Indiana's reports, ``___`` in MIMIC-CXR's) become ``DEID`` (``data/words.py``), one
token that a model may read and learn from and that is never generated.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from latentcap.data.sentences import ABBREVIATIONS
from latentcap.data.words import DEID

_DEID = re.compile(r"\[\*\*.*?\*\*\]|_{2,}|X{4,}", re.DOTALL)
_DEID_RUN = re.compile(rf"{DEID}(?:[\s,/]+{DEID})+")
_ITEM = re.compile(r"(?<!\S)\(?(\d{1,2})[.)](?:\s+(?=\S)|(?=[A-Z]))")
_HEADER = re.compile(r"^[ \t]*([A-Z][A-Z /&(),-]{2,59}):(?=\s|$)", re.MULTILINE)
STOPS = ".:;?!"
NUMBERED = frozenset(  # after these words a number counts nothing: "fracture of rib 2. Heart normal"
    ("rib", "ribs", "grade", "stage", "type", "level", "segment", "digit", "zone", "image", "series", "view", "day")
    + ("week", "month", "year", "and", "to", "of", "at", "than", "measures", "measuring", "approximately")
)
SECTIONS = {
    "findings": ("findings", "finding"),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "findings and impression"),
    "indication": ("indication", "indications", "clinical indication", "reason for exam", "reason for examination"),
    "history": ("history", "clinical history", "patient history", "clinical information"),
    "comparison": ("comparison", "comparisons", "comparison exam", "reference exam"),
    "technique": ("technique",),
    "examination": ("examination", "exam", "type of examination", "study"),
}
_SECTION_OF = {header: section for section, headers in SECTIONS.items() for header in headers}
_VIEWS = re.compile(r"\b(chest|portable|views?|pa and lat\w*|ap and lat\w*|frontal and lat\w*)\b")


def clean(text: str) -> str:
    """Our cleaning: case, punctuation and every word stay; only what is no text of the report goes.

    - ``XXXX``, ``___`` and ``[** **]`` become ``<deid>``, several in a row one.
    - Numbers of a list go, and only those: they begin a sentence or line and count up from the first. ``1. Clear lungs
      2. No effusion.`` becomes ``Clear lungs. No effusion.``, while ``at L1. No``, ``2.5 cm`` and ``rib 2.`` stay.
    - White space is single, repeated full stops are one, a lost space after one is put back, and the text ends in one.

    A text that has no word but de-identified ones is empty.
    """
    text = _without_list_numbers(_DEID.sub(DEID, text))
    text = re.sub(r"\s+", " ", text).strip()
    text = _DEID_RUN.sub(DEID, text)
    text = re.sub(r"(?<=\S) (?=[.,;:](?:\s|$))", "", text)  # "clear ." -> "clear."
    text = re.sub(r"\.{2,}", ".", text)
    text = re.sub(r"(?<=[a-z)])\.(?=[A-Z][a-z])", ". ", text)
    if not any(map(str.isalnum, text.replace(DEID, ""))):
        return ""
    return text if text[-1] in ".!?" else text.rstrip(",;:") + "."


def clean_r2gen(text: str) -> str:
    """The cleaning of R2Gen (Chen et al., EMNLP 2020), for numbers that compare with those published since.

    The form: lower-case sentences without punctuation, joined and ended by `` . ``. Its quirks, which are kept:

    - ``1. `` goes wherever it stands, also at the end of ``T11. `` or ``measures 2.1. ``, where digits go with it.
    - `` 2. `` to `` 5. `` go anywhere, also in ``rib 2. ``; numbers of list items from 6 on stay, without their stop.
    - The character class was meant to hold a hyphen, but ``:-[`` is a range: hyphens stay, and ``< = > @`` go.
    - ``/`` and ``'`` go without a space: ``left/right`` becomes ``leftright``, and ``2.5`` becomes ``25``.
    - ``XXXX`` stays as the word ``xxxx``, which is learned, generated and scored; ``___`` leaves nothing behind.
    - Empty sentences stay, as two full stops in a row, and an empty report becomes one full stop.

    That project also cut references at 60 (IU X-Ray) or 100 (MIMIC-CXR) tokens, replaced their rare words (fewer than
    3 or 10 times) by ``<unk>``, and scored the full stops as words. That is no cleaning, makes scores higher, and is
    not done here. The two cleaners it has, for the two data sets, differ in white space alone; this is the later one.
    """
    text = re.sub(r" +", " ", text.replace("\n", " "))
    text = re.sub(r"\.{2,}", ".", text).replace("1. ", "")
    for number in "2345":
        text = text.replace(f". {number}. ", ". ")
    for number in "2345":
        text = text.replace(f" {number}. ", ". ")
    sentences = text.strip().lower().split(". ")
    kept = (re.sub(r"[\"/\\']", "", sentence).strip() for sentence in sentences)
    return " . ".join(re.sub(r"[.,?;*!%^&_+():<=>@\[\]{}]", "", sentence) for sentence in kept) + " ."


def as_written(text: str) -> str:
    """The text without outer white space."""
    return text.strip()


TEXT_STYLES: dict[str, Callable[[str], str]] = {"clean": clean, "r2gen": clean_r2gen, "none": as_written}


def split_sections(report: str) -> dict[str, str]:
    """The sections of a free-text report by their headers: lines that begin with capitals and a colon.

    Returns what :data:`SECTIONS` names, as written, several of one name joined. As in the code published with
    MIMIC-CXR, a header that names the views (``CHEST, TWO VIEWS:``) begins findings. What stands before the first
    header (titles, names, dates) and under other headers (addenda, signatures) is left out.
    """
    headers = list(_HEADER.finditer(report))
    ends = [*(header.start() for header in headers[1:]), len(report)]
    sections: dict[str, str] = {}
    for header, end in zip(headers, ends, strict=False):
        name, text = _section(header[1]), report[header.end() : end].strip()
        if name and text:
            sections[name] = f"{sections[name]}\n{text}" if name in sections else text
    return sections


def _section(header: str) -> str | None:
    header = re.sub(r"\s+", " ", re.sub(r"\s*/\s*", " and ", header.lower())).strip()
    return _SECTION_OF.get(header) or ("findings" if _VIEWS.search(header) else None)


def _without_list_numbers(text: str) -> str:
    """``text`` without the numbers of lists. Items are separated by full stops afterwards."""
    parts: list[str] = []
    done, expected = 0, 1
    for item in _ITEM.finditer(text):
        number, before = int(item[1]), text[done : item.start()]
        words = before.rstrip()
        last, first = words.rpartition(" ")[2].lower(), text[item.end()]
        if words and (number not in (1, expected) or last in ABBREVIATIONS):
            continue
        begins = not words or words[-1] in STOPS or "\n" in before[len(words) :]
        if not begins and (number == 1 or last in NUMBERED or not (first.isupper() or first == "<")):
            continue
        parts += [words, "" if not words or words[-1] in STOPS + "," else ".", " "]
        done, expected = item.end(), number + 1
    return "".join(parts) + text[done:]
