"""Captions to token ids and back: a word-level or a byte-level BPE vocabulary, kept in one ``tokenizer.json``."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.files import written_whole
from latentcap.data.words import DEID, SAME, WORD, unspaced_language

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["word", "bpe"]

KINDS: tuple[Kind, ...] = ("word", "bpe")
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")

FULL_STOP = "."

SENTENCE_END = r"|\.(?=\s|$)"  # with sentences, a full stop before a space is a word of its own

# GPT-2's cut of a text into what pieces are made within, but that marks stay with the letters that they combine with.
_MARKED = "[\\p{L}\\p{M}\u200c\u200d]"
PIECES = rf"'(?:s|t|re|ve|m|ll|d)| ?{_MARKED}+| ?\p{{N}}+| ?[^\s\p{{N}}\p{{L}}\p{{M}}\u200c\u200d]+|\s+(?!\S)|\s+"

BYTES = 256  # a byte-level vocabulary holds every byte, so nothing is ever unknown to it


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
            return cls(_train_words(texts, min_frequency, sentences))
        if kind == "bpe":
            return cls(_train_bpe(texts, vocab_size, min_frequency))
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
        texts, known = list(texts), set(self.vocab)
        _refuse_unspaced(texts)
        sentences = sentences or FULL_STOP in known
        counts = _count_words(_word_tokenizer(self.vocab, sentences), texts)
        new = [word for word in _frequent(counts, min_frequency) if word not in known]
        return type(self)(_word_tokenizer([*self.vocab, *new], sentences))

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
        return [b"" if i in special else _piece_bytes(piece) for i, piece in enumerate(self.vocab)]

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


@lru_cache(maxsize=1)
def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2's table): itself where it is printable."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [byte for byte in range(BYTES) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(BYTES + place): byte for place, byte in enumerate(other)}


def _piece_bytes(piece: str) -> bytes:
    letters = _byte_letters()
    return b"".join(bytes([letters[letter]]) if letter in letters else letter.encode() for letter in piece)


def _word_tokenizer(vocab: Sequence[str], sentences: bool = False) -> Any:
    """A tokenizer of lower-case words, with full stops for ``sentences``, whose ids are the places in ``vocab``."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocab)}, unk_token=SPECIAL_TOKENS[3]))
    same = (normalizers.Replace(old, new) for old, new in SAME.items())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), *same])
    pattern = WORD + SENTENCE_END if sentences else WORD
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _train_words(texts: Iterable[str], min_frequency: int, sentences: bool) -> Any:
    texts = list(texts)
    _refuse_unspaced(texts)
    counts = _count_words(_word_tokenizer(SPECIAL_TOKENS, sentences), texts)
    if not counts.keys() - {FULL_STOP, DEID}:
        raise UserError("the captions hold no words to make a vocabulary of: all are empty or only punctuation")
    words = _frequent(counts, min_frequency)
    if not words:
        raise UserError(
            f"no word occurs {min_frequency} times; the most frequent occurs {max(counts.values())} times. "
            "Lower min_frequency, or give more captions"
        )
    return _word_tokenizer([*SPECIAL_TOKENS, *words], sentences)


def _refuse_unspaced(texts: Sequence[str]) -> None:
    if language := unspaced_language(texts):
        raise UserError(
            f"at least a tenth of the texts are in {language}, which is written without spaces between words, so that "
            "a vocabulary of words would learn whole sentences. Train on pieces: --data.tokenizer.kind bpe"
        )


def _count_words(tokenizer: Any, texts: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text, times in Counter(texts).items():  # captions repeat
        normal = tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            counts[word] += times
    return counts


def _frequent(counts: Counter[str], min_frequency: int) -> list[str]:
    words = [word for word, count in counts.items() if count >= min_frequency]
    return sorted(words, key=lambda word: (-counts[word], word))


def _train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    smallest = len(SPECIAL_TOKENS) + BYTES
    if vocab_size < smallest:
        raise UserError(
            f"vocab_size={vocab_size} is too small for BPE: {len(SPECIAL_TOKENS)} special tokens and {BYTES} bytes "
            f"need at least {smallest}"
        )
    kept = [text for text in texts if any(map(str.isalnum, text.replace(DEID, "")))]
    if not kept:
        raise UserError("the captions hold no words to make a vocabulary of: all are empty or only punctuation")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    deid = any(DEID in text for text in kept)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - deid,
        min_frequency=min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Threads here would make the library warn at the first data-loading process that forks later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer.train_from_iterator((text.replace(DEID, " ") for text in kept), trainer)
    if deid:
        tokenizer.add_tokens([AddedToken(DEID, normalized=False)])
    return tokenizer
