"""The vocabulary of a run: that of its training texts, or a known one kept or extended by them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.columns import each
from latentcap.data.example import Example

VOCABULARIES = ("replace", "keep", "extend")


@dataclass
class TokenizerConfig:
    """How captions are cut into tokens.

    Attributes:
        kind: ``word`` (lower case, no punctuation, as COCO scores them) or ``bpe`` (any text, exactly; for languages
            that are written without spaces between words).
        min_frequency: words that occur less often in the training texts are unknown; pairs of pieces that do are not
            joined (bpe).
        vocab_size: number of pieces (bpe).
        sentences: full stops are words too (word level): for reports of several sentences.
    """

    kind: Literal["word", "bpe"] = "word"
    min_frequency: int = 2
    vocab_size: int = 8000
    sentences: bool = False


@dataclass
class TrainingTexts:
    """Every text that words are learned from: captions, contexts and, where asked for, paraphrases."""

    examples: Sequence[Example]
    paraphrases: bool

    def __iter__(self) -> Iterator[str]:
        names = ("captions", "paraphrases", "context")
        for captions, paraphrases, context in zip(*(each(self.examples, name) for name in names), strict=True):
            yield from captions
            if self.paraphrases:
                yield from paraphrases
            if context:
                yield context


def vocabulary_of(
    texts: Iterable[str], config: TokenizerConfig, *, base: CaptionTokenizer | None, mode: str
) -> CaptionTokenizer:
    """The vocabulary of the texts; with a ``base`` and the modes ``keep`` and ``extend``, that one, or it and more."""
    if base is not None and mode == "keep":
        return base
    if base is not None and mode == "extend":
        return base.extend(texts, min_frequency=config.min_frequency, sentences=config.sentences)
    return CaptionTokenizer.train(
        texts,
        kind=config.kind,
        min_frequency=config.min_frequency,
        vocab_size=config.vocab_size,
        sentences=config.sentences,
    )
