"""Where a sentence ends: one definition, for reports as they are written and for their cleaned forms."""

from __future__ import annotations

import re

ABBREVIATIONS = ("dr.", "mr.", "mrs.", "ms.", "e.g.", "i.e.", "vs.", "approx.", "fig.", "figs.", "cf.")

_END = re.compile(
    r"(?<=[.!?…।])[\"')\]”’»]*\s+"  # a mark, what it closes, and a space
    r"|(?<=[a-z)]\.)(?=[A-Z][a-z])"  # the space that was lost in "clear.Heart"
    r"|(?<=[。！？])[」』”’）]*\s*"  # scripts that write no space
)
_ABBREVIATED = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ABBREVIATIONS))})$", re.IGNORECASE)


def split_sentences(text: str) -> list[str]:
    """Sentences with their final marks, in lower or mixed case; a stop in a number or an abbreviation ends none."""
    sentences: list[str] = []
    start = 0
    for end in _END.finditer(text):
        if not _ABBREVIATED.search(text, start, end.start()):
            sentences.append(text[start : end.end()].strip())
            start = end.end()
    return [sentence for sentence in (*sentences, text[start:].strip()) if sentence]
