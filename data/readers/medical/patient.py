"""What is known of a patient before the image is read: age in years and sex, as people write them."""

from __future__ import annotations

import re
from typing import Any

DAYS_OF_YEAR = 365.25
UNITS = {"y": 1.0, "m": 1 / 12, "w": 7 / DAYS_OF_YEAR, "d": 1 / DAYS_OF_YEAR, "h": 1 / (24 * DAYS_OF_YEAR)}
OLDEST = 130

_UNIT = r"(?:years?|yrs?|y/?o|y|months?|mos?|m|weeks?|wks?|w|days?|d|hours?|hrs?|h)"
_QUANTITY = re.compile(rf"(\d+(?:\.\d+)?)[\s-]*({_UNIT})\b\.?")
_AGE = re.compile(rf"(?:{_QUANTITY.pattern}[\s,-]*(?:and\s+)?)+(?:old|of age)?")
_PLAIN = re.compile(r"[<>~]?\s*(\d+(?:\.\d+)?)\s*\+?")
_DECADE = re.compile(r"(?:early|mid|late)?[\s-]*(\d+)0'?s")
_IN_TEXT = re.compile(r"\b(\d{1,3})[\s-]*(year|yr|y|month|mo|week|wk|day)s?(?:[\s-]*old|\s*/?\s*o\b)", re.IGNORECASE)
_SEX = {
    "male": ("male", "m", "man", "boy", "gentleman", "men"),
    "female": ("female", "f", "woman", "girl", "lady", "women"),
}
_SEX_OF = {word: sex for sex, words in _SEX.items() for word in words}
_SEX_IN_TEXT = re.compile(rf"\b({'|'.join(word for word in _SEX_OF if len(word) > 1)})\b", re.IGNORECASE)


def to_years(value: Any) -> float | None:
    """An age in years, or None for what is none: ``58`` 58, ``3 weeks`` 0.06, ``60s`` 65, ``N/A`` None.

    Also read: ``2 years 6 months``, ``58 y/o``, ``58-year-old``, ``89+`` (89), DICOM's ``045Y`` and ``003W``, and
    ``newborn`` (0). Ages above 130 are taken for mistakes.
    """
    text = str(value).strip().lower() if value is not None else ""
    if text in ("newborn", "neonate"):
        return 0.0
    if match := _PLAIN.fullmatch(text):
        years = float(match[1])
    elif match := _DECADE.fullmatch(text):
        years = 10 * float(match[1]) + 5
    elif _AGE.fullmatch(text):
        years = sum(float(number) * UNITS[unit[0]] for number, unit in _QUANTITY.findall(text))
    else:
        return None
    return years if 0 <= years <= OLDEST else None


def to_sex(value: Any) -> str | None:
    """``male`` or ``female`` for the usual ways to write them (``M``, ``Woman``), else None."""
    return _SEX_OF.get(str(value).strip().lower()) if value is not None else None


def age_in_text(text: str | None) -> float | None:
    """The first age that a sentence speaks of (``58-year-old man with neck pain``: 58), or None."""
    match = _IN_TEXT.search(text or "")
    return to_years(f"{match[1]} {match[2].lower()}") if match else None


def sex_in_text(text: str | None) -> str | None:
    """``male`` or ``female`` by the first word that says so (``58-year-old man``), or None."""
    match = _SEX_IN_TEXT.search(text or "")
    return _SEX_OF[match[1].lower()] if match else None
