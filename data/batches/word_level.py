"""A vocabulary of lower-case words: what COCO's metrics compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from latentcap.data.batches.special_tokens import SPECIAL_TOKENS
from latentcap.data.errors import UserError
from latentcap.data.words import DEID, SAME, WORD, unspaced_language

FULL_STOP = "."
COUNTED_AT_ONCE = 100_000  # texts
SENTENCE_END = r"|\.(?=\s|$)"  # with sentences, a full stop before a space is a word of its own


def word_tokenizer(vocab: Sequence[str], sentences: bool = False) -> Any:
    """A tokenizer of lower-case words, with full stops for ``sentences``, whose ids are the places in ``vocab``."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocab)}, unk_token=SPECIAL_TOKENS[3]))
    same = (normalizers.Replace(old, new) for old, new in SAME.items())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), *same])
    pattern = WORD + SENTENCE_END if sentences else WORD
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def train_words(texts: Iterable[str], min_frequency: int, sentences: bool) -> Any:
    if iter(texts) is texts:
        texts = list(texts)
    refuse_unspaced(texts)
    counts = count_words(word_tokenizer(SPECIAL_TOKENS, sentences), texts)
    if not counts.keys() - {FULL_STOP, DEID}:
        raise UserError("the captions hold no words to make a vocabulary of: all are empty or only punctuation")
    words = frequent(counts, min_frequency)
    if not words:
        raise UserError(
            f"no word occurs {min_frequency} times; the most frequent occurs {max(counts.values())} times. "
            "Lower min_frequency, or give more captions"
        )
    return word_tokenizer([*SPECIAL_TOKENS, *words], sentences)


def refuse_unspaced(texts: Iterable[str]) -> None:
    if language := unspaced_language(texts):
        raise UserError(
            f"at least a tenth of the texts are in {language}, which is written without spaces between words, so that "
            "a vocabulary of words would learn whole sentences. Train on pieces: --data.tokenizer.kind bpe"
        )


def count_words(tokenizer: Any, texts: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    waiting = iter(texts)
    while some := Counter(islice(waiting, COUNTED_AT_ONCE)):  # captions repeat
        for text, times in some.items():
            normal = tokenizer.normalizer.normalize_str(text)
            for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
                counts[word] += times
    return counts


def frequent(counts: Counter[str], min_frequency: int) -> list[str]:
    words = [word for word, count in counts.items() if count >= min_frequency]
    return sorted(words, key=lambda word: (-counts[word], word))
