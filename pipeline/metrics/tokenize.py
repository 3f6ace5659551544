"""Text to words before scoring: our own rules, or the Penn Treebank tokeniser that COCO's evaluation uses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from latentcap.metrics.java import ptb_tokenize

Tokenizer: TypeAlias = Literal["words", "ptb"]

# In this order: a clitic, a number with inner marks, a word with inner hyphens or slashes, any other symbol but
# punctuation. A word ends before "n't" and before the "not" of "cannot", as in the Penn Treebank.
_TOKEN = re.compile(
    r"n't\b|'(?:s|re|ve|ll|d|m)\b|\d+(?:[.,:]\d+)+|can(?=not\b)"
    r"|(?:(?!n't\b)\w)+(?:[-/](?:(?!n't\b)\w)+)*"
    r"|[^\w\s.,:;?!\"'`()\[\]{}–—“”‘…-]"
)


def tokenize_words(text: str) -> list[str]:
    """Lower-case words without punctuation: ``"It's a T-junction (left)."`` -> it, 's, a, t-junction, left.

    Follows what COCO's evaluation leaves of plain text: clitics are words of their own, hyphens and slashes inside a
    word stay, other punctuation goes. Measured on the 49,140 human captions of RSICD's train and val splits it differs
    from the Penn Treebank tokeniser in 0.04 % of them (19), nearly all because that one keeps brackets as the
    words "-lrb-" and "-rrb-". Splitting at everything but letters and digits differs in 1.2 %.
    """
    return _TOKEN.findall(text.lower().replace("’", "'"))


def tokenize(texts: Sequence[str], tokenizer: Tokenizer | None) -> list[str]:
    """``texts`` as words separated by single spaces; None takes them as tokenised already.

    Raises:
        UserError: "ptb" was asked for and pycocoevalcap or Java is missing.
    """
    if tokenizer == "ptb":
        return ptb_tokenize(texts)
    if tokenizer == "words":
        return [" ".join(tokenize_words(text)) for text in texts]
    return [" ".join(text.split()) for text in texts]
