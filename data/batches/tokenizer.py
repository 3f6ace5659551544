"""Captions to token ids and back: a word-level or a byte-level BPE vocabulary, kept in one ``tokenizer.json``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from latentcap.data.batches.pieces import piece_bytes, train_pieces
from latentcap.data.batches.special_tokens import SPECIAL_TOKENS
from latentcap.data.batches.word_level import (
    FULL_STOP,
    count_words,
    frequent,
    refuse_unspaced,
    train_words,
    word_tokenizer,
)
from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.files import written_whole
from latentcap.data.words import DEID

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["word", "bpe"]

KINDS: tuple[Kind, ...] = ("word", "bpe")


class CaptionTokenizer:
    """A caption vocabulary. The first four ids are always ``<pad>``, ``<bos>``, ``<eos>`` and ``<unk>``.

    ``kind="word"``: lower-case words without punctuation, the text that COCO's metrics compare; unknown words become
    ``<unk>``. ``kind="bpe"``: pieces of UTF-8 bytes; case, punctuation and spaces survive, and nothing is unknown.
    Words with ``sentences`` keep full stops, so that a report of several sentences can be read.
    """

    pad_id, bos_id, eos_id, unk_id = range(4)

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True  # "<eos>" inside a caption is text, not the end of it
        self._tokenizer = tokenizer
        self.kind: Kind = "word" if type(tokenizer.model).__name__ == "WordLevel" else "bpe"
        ids = tokenizer.get_vocab()
        self.vocab: list[str] = sorted(ids, key=ids.__getitem__)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        kind: Kind = "word",
        min_frequency: int = 1,
        vocab_size: int = 8000,
        sentences: bool = False,
    ) -> CaptionTokenizer:
        """A vocabulary of ``texts``, the same for the same texts.

        Args:
            texts: captions as written; normalising them is the tokenizer's work.
            kind: ``"word"`` or ``"bpe"``.
            min_frequency: how often a word, or for BPE a pair of pieces, must occur to get an id. Ids of words go by
                frequency, then alphabet.
            vocab_size: for BPE: the number of ids, special tokens included.
            sentences: for words: a full stop that ends a sentence is one too. (BPE keeps all punctuation anyway.)

        Raises:
            UserError: unknown kind, a vocabulary too small, or texts that hold no words.
        """
        if kind == "word":
            return cls(train_words(texts, min_frequency, sentences))
        if kind == "bpe":
            return cls(train_pieces(texts, vocab_size, min_frequency))
        raise UserError(f"unknown tokenizer kind '{kind}'; kinds are {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CaptionTokenizer:
        """The tokenizer that :meth:`save` wrote to ``path``. Raises UserError for any other file."""
        from tokenizers import Tokenizer

        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read the tokenizer '{path}' ({error.strerror}): pass a tokenizer.json") from error
        if content.startswith((b"\x80", b"PK")):  # pickle.dump and torch.save
            raise UserError(
                f"'{path}' is a Python pickle, which can run code when opened, so it is not read. A tokenizer is a "
                "tokenizer.json: make one from the captions with CaptionTokenizer.train(texts)"
            )
        try:
            tokenizer = Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # the library raises plain Exception
            raise UserError(f"'{path}' is no tokenizer.json, or is damaged: {error}") from error
        if type(tokenizer.model).__name__ not in ("WordLevel", "BPE"):
            raise UserError(
                f"'{path}' holds a {type(tokenizer.model).__name__} vocabulary; captions need WordLevel or BPE"
            )
        lacking = [token for i, token in enumerate(SPECIAL_TOKENS) if tokenizer.token_to_id(token) != i]
        if lacking:
            raise UserError(
                f"'{path}' lacks the special tokens {' '.join(lacking)}: ids 0 to 3 must be "
                f"{' '.join(SPECIAL_TOKENS)}. Train a tokenizer on the captions instead"
            )
        return cls(tokenizer)

    @classmethod
    def from_text(cls, content: str) -> CaptionTokenizer:
        """The inverse of :meth:`to_text`."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_str(content))

    def to_text(self) -> str:
        """The whole vocabulary with its rules as JSON."""
        return str(self._tokenizer.to_str())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes ``tokenizer.json`` to ``path``, whole or not at all."""
        with written_whole(Path(path), encoding="utf-8") as file:
            file.write(self._tokenizer.to_str(pretty=True))

    def extend(self, texts: Iterable[str], *, min_frequency: int = 1, sentences: bool = False) -> CaptionTokenizer:
        """The same words with the same ids, and after them the new words of ``texts``, by frequency, then alphabet.

        With ``sentences``, or where this tokenizer has them, full stops are words.

        Raises:
            UserError: for BPE, whose merges cannot grow without changing how known text is split.
        """
        if self.kind == "bpe":
            raise UserError(
                "a BPE tokenizer cannot be extended: new merges would split known text differently. It needs no "
                "extension, for it can write any text; keep it, or train a new one and a new model"
            )
        if iter(texts) is texts:
            texts = list(texts)
        known = set(self.vocab)
        refuse_unspaced(texts)
        sentences = sentences or FULL_STOP in known
        counts = count_words(word_tokenizer(self.vocab, sentences), texts)
        new = [word for word in frequent(counts, min_frequency) if word not in known]
        return type(self)(word_tokenizer([*self.vocab, *new], sentences))

    def encode(self, text: str, *, max_length: int | None = None) -> list[int]:
        """The ids of ``text`` alone, without ``<bos>`` and ``<eos>``, at most ``max_length`` of them."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids[:max_length]

    def encode_caption(self, text: str, max_length: int) -> list[int]:
        """``<bos>``, the ids of ``text``, ``<eos>``: at most ``max_length`` in all; cutting keeps ``<eos>``."""
        return [self.bos_id, *self.encode(text, max_length=max(max_length - 2, 0)), self.eos_id]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids`` up to the first ``<eos>``, without special tokens; ``<unk>`` is left out too.

        Words are joined by a space, full stops to the word before. BPE returns the encoded text, composed (NFC).
        """
        kept = []
        for i in map(int, ids):
            if i == self.eos_id:
                break
            if i >= len(SPECIAL_TOKENS):
                kept.append(i)
        if self.kind == "bpe":
            return self._tokenizer.decode(kept)
        return " ".join(self.vocab[i] for i in kept).replace(f" {FULL_STOP}", FULL_STOP)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One readable string for each id, special tokens included. BPE pieces keep the space before them."""
        if self.kind == "word":
            return [self.vocab[i] for i in map(int, ids)]
        return [self._tokenizer.decode([i], skip_special_tokens=False) for i in map(int, ids)]

    def pieces(self) -> list[bytes]:
        """The UTF-8 bytes that each id adds to a text: of BPE, whose pieces may hold parts of a character.

        Special tokens add nothing.
        """
        assert self.kind == "bpe"
        special = range(len(SPECIAL_TOKENS))
        return [b"" if i in special else piece_bytes(piece) for i, piece in enumerate(self.vocab)]

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as :attr:`vocab` writes it, or None."""
        i: int | None = self._tokenizer.token_to_id(token)
        return i

    @property
    def never_generated(self) -> tuple[int, ...]:
        """Ids that are no text to write: ``<pad>``, ``<bos>``, ``<unk>``, and ``<deid>`` where there is one."""
        deid = self.token_to_id(DEID)
        return (self.pad_id, self.bos_id, self.unk_id, *(() if deid is None else (deid,)))

    @property
    def content_hash(self) -> str:
        """Hex SHA-256 of the vocabulary and its rules: equal for tokenizers that encode alike."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.vocab)

    def __repr__(self) -> str:
        return f"CaptionTokenizer(kind={self.kind!r}, size={len(self)})"

    def __reduce__(self) -> tuple[Callable[[str], CaptionTokenizer], tuple[str]]:
        return type(self).from_text, (self.to_text(),)
