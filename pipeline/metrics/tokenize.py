"""Text to words before scoring: our own rules, the Penn Treebank tokeniser of COCO's evaluation, blanks alone, or what
numbers published for chest X-rays are made with."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import regex

from latentcap.data.report_text import clean_r2gen
from latentcap.data.words import UNSPACED, normalise, space_characters
from latentcap.metrics.java import ptb_tokenize

Tokenizer: TypeAlias = Literal["ptb", "words", "whitespace", "r2gen"]
TOKENIZERS: tuple[Tokenizer, ...] = get_args(Tokenizer)
# What a table of scores is made with, by name: scores of two protocols do not compare.
PROTOCOLS: dict[str, Tokenizer] = {"coco": "ptb", "plain": "words", "r2gen": "r2gen"}
R2GEN_TOKENS = 60

_FIRST, _MORE = r"[\p{L}\p{N}_]", "[\\p{L}\\p{M}\\p{N}_\u200c\u200d]"
_RUN = rf"(?={_FIRST})(?:(?!n't\b){_MORE})+"

# In this order: a clitic, a number with inner marks, a word with inner hyphens or slashes, any other symbol but
# punctuation. A word ends before "n't" and before the "not" of "cannot", as in the Penn Treebank.
_TOKEN = regex.compile(
    rf"n't\b|'(?:s|re|ve|ll|d|m)\b|\d+(?:[.,:]\d+)+|can(?=not\b)|{_RUN}(?:[-/]{_RUN})*"
    r"|[^\p{L}\p{M}\p{N}\p{C}_\s.,:;?!\"'`()\[\]\{\}\-[\p{P}--\p{ASCII}]]",
    regex.V1,
)
_NOT_FOR_PTB = regex.compile(rf"{UNSPACED}|[\p{{M}}--[\ufe0e\ufe0f]]|[\u200c\u200d]", regex.V1)
_FULL_STOP = regex.compile(r"(?<=[^\s.])\.(?=\s|$)")


def tokenize_words(text: str) -> list[str]:
    """Lower-case words without punctuation: ``"It's a T-junction (left)."`` -> it, 's, a, t-junction, left.

    Follows what COCO's evaluation leaves of plain text: clitics are words of their own, hyphens and slashes inside a
    word stay, other punctuation goes. Measured on the 49,140 human captions of RSICD's train and val splits it differs
    from the Penn Treebank tokeniser in 0.04 % of them (19), nearly all because that one keeps brackets as the
    words "-lrb-" and "-rrb-". Splitting at everything but letters and digits differs in 1.2 %.

    Marks stay with their letters; of scripts without spaces each character is a word.
    """
    return _TOKEN.findall(space_characters(normalise(text)))


def tokenize_whitespace(text: str) -> list[str]:
    """The text as it is, split at white space; a full stop at a word's end is a word of its own, as published medical
    numbers count them. Case and all other punctuation stay."""
    return _FULL_STOP.sub(" .", unicodedata.normalize("NFC", text)).split()


def tokenize_r2gen(text: str) -> list[str]:
    """What R2Gen (Chen et al., EMNLP 2020) and those who follow it score on Indiana's reports.

    Its cleaning, blanks as separators, so that each full stop is a word, and no more than :data:`R2GEN_TOKENS` of the
    words, of output and reference alike. Every report has full stops, and long references lose their ends: scores are
    higher than of whole texts without punctuation, and one constant report scores well. Not followed: words that occur
    less than three times in training are ``<unk>`` there, in references too, which raises scores further.
    """
    return clean_r2gen(text).split()[:R2GEN_TOKENS]


def tokenize(texts: Sequence[str], tokenizer: Tokenizer | None) -> list[str]:
    """``texts`` as words separated by single spaces; None takes them as tokenised already.

    The Penn Treebank tokeniser drops or splits marks, and knows no script without spaces: texts that have either are
    tokenised by our own rules in its place.

    Raises:
        UserError: "ptb" was asked for and pycocoevalcap or Java is missing.
    """
    if tokenizer == "ptb":
        composed = [unicodedata.normalize("NFC", text) for text in texts]
        theirs = iter(ptb_tokenize([text for text in composed if not _NOT_FOR_PTB.search(text)]))
        return [" ".join(tokenize_words(text)) if _NOT_FOR_PTB.search(text) else next(theirs) for text in composed]
    if tokenizer == "words":
        return [" ".join(tokenize_words(text)) for text in texts]
    if tokenizer == "whitespace":
        return [" ".join(tokenize_whitespace(text)) for text in texts]
    if tokenizer == "r2gen":
        return [" ".join(tokenize_r2gen(text)) for text in texts]
    return [" ".join(text.split()) for text in texts]
