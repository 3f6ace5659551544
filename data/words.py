"""What a word is: one definition, for the data check, vocabularies and scores.

A word is letters and digits with the marks that combine with them, in composed form (NFC). The patterns are read by
``regex`` and by the engine of ``tokenizers`` alike. Scripts that write no spaces between words have no words by this
definition: they are counted and scored by character, and trained on in pieces (BPE).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

import regex

DEID = "<deid>"

_LETTERS = "[\\p{L}\\p{N}][\\p{L}\\p{M}\\p{N}\u200c\u200d]*"  # the joiners stand inside Persian and Indic words

# Hyphens and apostrophes belong to a word between letters ("t-junction", "it's"), as does the dot of Catalan, points
# and commas between digits ("3.5", "1,000"), a percent sign after one ("50%"). All else only separates words.
WORD = rf"{DEID}|{_LETTERS}(?:[-'·]{_LETTERS}|(?<=\p{{N}})[.,]\p{{N}}+)*(?:(?<=\p{{N}})%)?"

SAME = {"\u2019": "'", "\u2010": "-", "\u2011": "-", "\u00ad": ""}  # typographic apostrophe and hyphens; soft hyphen

UNSPACED = (  # letters of scripts without spaces; SA are those of South-East Asia
    r"[[\p{L}\p{M}\p{N}]&&[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{scx=Yi}\p{scx=Tibetan}"
    r"\p{Line_Break=SA}]]"
)
LANGUAGES = {
    "Japanese": r"[\p{Hiragana}\p{Katakana}]",
    "Chinese": r"\p{Han}",
    "Thai": r"\p{Thai}",
    "Lao": r"\p{Lao}",
    "Khmer": r"\p{Khmer}",
    "Burmese": r"\p{Myanmar}",
    "Tibetan": r"\p{Tibetan}",
}
LEAST_SHARE = 0.1  # of the texts: fewer are names and quotations

# English words that hold a sentence together and name nothing: articles, pronouns, prepositions, conjunctions,
# auxiliaries. Numbers, negations and places (left, top) are content: captions are about them.
_STOP_WORDS = """
    a about above across after against all along also am among an and another any are around as at be because been
    before behind being below beneath beside besides between both but by can could did do does doing down during each
    either few for from had has have having he her here hers him his how i if in inside into is it it's its itself just
    many may me might more most much must my near next of off on onto or other our out outside over own same she
    should s so some such than that that's the their them then there there's these they this those through to too toward
    towards under until up upon us very was we were what when where which while who whom whose why will with within
    would you your"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

_WORD = regex.compile(WORD)
_SAME = str.maketrans(SAME)
_UNSPACED = regex.compile(UNSPACED, regex.V1)
_RUN = regex.compile(f"{UNSPACED}+", regex.V1)
_CHARACTER = regex.compile(r"\X\p{M}*")
_LETTER = regex.compile(r"\p{L}")
_LANGUAGES = {name: regex.compile(pattern) for name, pattern in LANGUAGES.items()}


def normalise(text: str) -> str:
    """Composed (NFC), lower case, with plain apostrophes and hyphens: the form in which words are compared."""
    return unicodedata.normalize("NFC", text).lower().translate(_SAME)


def split_words(text: str) -> list[str]:
    """The words of a text, in order, normalised; each character of a script without spaces is one."""
    return _WORD.findall(space_characters(normalise(text)))


def content_words(text: str) -> list[str]:
    """The words of a text, in order, that name something: without English stop words and without what was left out of
    it for a patient's sake."""
    return [word for word in split_words(text) if word not in STOP_WORDS and word != DEID]


def space_characters(text: str) -> str:
    """The text with a space around each character, marks included, of scripts without spaces. All else stays."""
    return _RUN.sub(lambda run: f" {' '.join(_CHARACTER.findall(run[0]))} ", text)


def is_unspaced(text: str) -> bool:
    """Whether at least half of a text's letters are of scripts without spaces."""
    return 2 * len(_UNSPACED.findall(text)) >= max(len(_LETTER.findall(text)), 1)


def unspaced_language(texts: Iterable[str]) -> str | None:
    """The language whose script more than a tenth of the texts are in, if it writes no spaces between words."""
    counts: Counter[str] = Counter()
    total = 0
    for text in texts:
        total += 1
        if _UNSPACED.search(text) and is_unspaced(text):
            counts[next((name for name, script in _LANGUAGES.items() if script.search(text)), "another")] += 1
    return counts.most_common(1)[0][0] if counts.total() > LEAST_SHARE * total else None
