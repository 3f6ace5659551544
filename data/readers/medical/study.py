"""What the readers of radiology sets share: the report that is the target, the context, the order of views."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from latentcap.data.example import ImageRef
from latentcap.data.report_text import clean
from latentcap.data.words import DEID

VIEWS = ("frontal", "pa", "ap", "lateral")  # in this order, so that a view's place says what it shows
NOTHING = frozenset(  # of the letters alone: "N/A", "None.", "not available", "noncontributory"
    (
        "",
        "na",
        "nc",
        "none",
        "null",
        "nan",
        "unknown",
        "notavailable",
        "noneavailable",
        "notprovided",
        "noncontributory",
    )
)


def report_of(sections: Mapping[str, str | None], target: str) -> tuple[str, ...]:
    """The reference: the section that ``target`` names, or for ``both`` (and ``case``) findings and then impression.

    Empty where the report has none: another section is never taken for the one that was asked for.
    """
    names = ("findings", "impression") if target in ("both", "case") else (target,)
    texts = [text for name in names if (text := known(sections.get(name)))]
    return (" ".join(texts),) if texts else ()


def context_of(**parts: str | None) -> str | None:
    """Named texts as one, cleaned: ``indication: Chest pain. exam: PA and lateral.`` None where nothing is known."""
    texts = {name: clean(text) for name, part in parts.items() if (text := known(part))}
    return " ".join(f"{name}: {text}" for name, text in texts.items() if text) or None


def known(text: str | None) -> str | None:
    """The text, or None for what says nothing: blank, ``N/A``, ``None.``, or de-identified places alone."""
    text = (text or "").strip()
    letters = "".join(filter(str.isalnum, re.sub(f"{DEID}|X{{4,}}", "", text)))
    return None if letters.lower() in NOTHING else text


def one_of_each_view(images: Iterable[tuple[str, ImageRef]]) -> tuple[tuple[ImageRef, ...], tuple[str, ...]]:
    """The first image of each view, in the order of :data:`VIEWS`, with the views' names.

    A frontal view is ``frontal``, ``pa`` or ``ap``; of a study with several the first by that order is taken.
    """
    first: dict[str, ImageRef] = {}
    for view, image in images:
        first.setdefault(view, image)
    names = sorted(first, key=lambda view: VIEWS.index(view) if view in VIEWS else len(VIEWS))
    frontal = [name for name in names if name in VIEWS[:3]][:1]
    names = frontal + [name for name in names if name not in VIEWS[:3]]
    return tuple(first[name] for name in names), tuple(names)
