"""A vocabulary of pieces of UTF-8 bytes (byte-level BPE): it writes any text."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from latentcap.data.batches.special_tokens import SPECIAL_TOKENS
from latentcap.data.errors import UserError
from latentcap.data.words import DEID

# GPT-2's cut of a text into what pieces are made within, but that marks stay with the letters that they combine with.
_MARKED = "[\\p{L}\\p{M}\u200c\u200d]"
PIECES = rf"'(?:s|t|re|ve|m|ll|d)| ?{_MARKED}+| ?\p{{N}}+| ?[^\s\p{{N}}\p{{L}}\p{{M}}\u200c\u200d]+|\s+(?!\S)|\s+"

BYTES = 256  # a byte-level vocabulary holds every byte, so nothing is ever unknown to it


def train_pieces(texts: Iterable[str], vocab_size: int, min_frequency: int) -> Any:
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


def piece_bytes(piece: str) -> bytes:
    letters = _byte_letters()
    return b"".join(bytes([letters[letter]]) if letter in letters else letter.encode() for letter in piece)


@lru_cache(maxsize=1)
def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2's table): itself where it is printable."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [byte for byte in range(BYTES) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(BYTES + place): byte for place, byte in enumerate(other)}
