"""Rules about words for vocabularies of pieces (byte-level BPE): they read the text that the pieces make.

A word is a run of letters, their marks, digits and underscores, whatever pieces it is written in; in scripts without
spaces it stands anywhere in the text. Bytes that are not whole characters yet count as letters.

Dimension letters: B examples, G beams, V vocabulary, L pieces so far, ``<bos>`` first.
"""

from __future__ import annotations

from collections.abc import Sequence

import regex
import torch
from torch import Tensor

from latentcap.data.words import UNSPACED

_ANY = "\\w\\p{M}\u200c\u200d\udc80-\udcff"  # lone surrogates are bytes of a character that is not whole
LETTER = f"[[{_ANY}]--{UNSPACED}]"  # what goes on with the word before it
OVER = (
    rf"(?:(?<={UNSPACED})|(?![{_ANY}])(?=[\s\S]))"  # after a word: it ends in a script without spaces, or more follows
)


class NoWordsInText:
    """Words or phrases do not occur in the text, in any case and any split; as parts of longer words they may.

    A word is over when something else than a letter follows, so it is then that the step is forbidden: "cat" + "s" may
    be written where "cat" is forbidden, "cat" + " on" not.
    """

    def __init__(self, pieces: Sequence[bytes], phrases: Sequence[str], eos: int) -> None:
        self.pieces, self.eos = pieces, eos
        self.phrases = [" ".join(phrase.casefold().split()) for phrase in phrases]
        self.begun = [phrase.encode() for phrase in self.phrases]  # a piece may end inside a character
        words = "|".join(regex.escape(phrase) for phrase in self.phrases)
        self.over = _compile(f"(?<!{LETTER})(?:{words}){OVER}")
        self.last = _compile(f"(?<!{LETTER})(?:{words})[\udc80-\udcff]*$")
        self.starts = _compile(f"(?<!{LETTER})(?=\\S)")
        self.reach = max(map(len, self.phrases)) + 4  # a character that is not whole has at most three bytes
        self.masks: dict[str, Tensor] = {}

    def __call__(self, log_probs: Tensor, prefix: Tensor) -> None:
        masks = [[self._mask(self._open(words[1:])) for words in beams] for beams in prefix.tolist()]
        forbidden = torch.stack([torch.stack(row) for row in masks]).to(log_probs.device)
        log_probs[..., : len(self.pieces)].masked_fill_(forbidden, -torch.inf)  # the rest are no pieces

    def _open(self, ids: Sequence[int]) -> str:
        """What matters of the text: its end where that may be a phrase's beginning, else if it ends in a word."""
        text = _text(self.pieces, ids)
        for match in self.starts.finditer(text, max(0, len(text) - self.reach)):
            end = text[match.start() :]
            if self.last.fullmatch(end) or any(phrase.startswith(_bytes(end)) for phrase in self.begun):
                return end
        return "x" if _ENDS_IN_LETTER.search(text) else ""

    def _mask(self, text: str) -> Tensor:
        """(V,): pieces that would end a phrase after ``text``."""
        if text not in self.masks:
            before = _bytes(text)
            ends = [bool(self.over.search(_normal(before + piece))) for piece in self.pieces]
            ends[self.eos] = bool(self.last.search(text))
            self.masks[text] = torch.tensor(ends)
        return self.masks[text]


class NoTextEnding:
    """The last word of a caption is none of ``words``, in any case and any split, whatever punctuation follows."""

    def __init__(self, pieces: Sequence[bytes], words: Sequence[str], eos: int) -> None:
        self.pieces, self.eos = pieces, eos
        choices = "|".join(regex.escape(" ".join(word.casefold().split())) for word in words)
        self.bad = _compile(f"(?<!{LETTER})(?:{choices})[^{_ANY}]*$")

    def __call__(self, log_probs: Tensor, prefix: Tensor) -> None:
        bad = [[bool(self.bad.search(_text(self.pieces, ids[1:]))) for ids in beams] for beams in prefix.tolist()]
        log_probs[..., self.eos].masked_fill_(torch.tensor(bad, device=log_probs.device), -torch.inf)


def words_that_join(pieces: Sequence[bytes]) -> tuple[int, ...]:
    """The ids of pieces that go on with the word before them, for they begin with a letter."""
    return tuple(index for index, piece in enumerate(pieces) if _LETTER.match(_normal(piece)))


def _text(pieces: Sequence[bytes], ids: Sequence[int]) -> str:
    return _normal(b"".join(pieces[index] for index in ids))


def _normal(text: bytes) -> str:
    """Lower case, one space between words; bytes that are no whole character stay, as lone surrogates."""
    return _SPACE.sub(" ", text.decode("utf-8", "surrogateescape").casefold())


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _compile(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern, regex.V1)


_LETTER, _ENDS_IN_LETTER, _SPACE = _compile(LETTER), _compile(f"{LETTER}$"), _compile(r"\s+")
