"""Context as tensors: text to token ids, numbers standardised by the training set, categories to indices.

Dimension letters: B examples, L text tokens, F numeric and F' categorical fields.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from latentcap.data.columns import each
from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.example import Example


@dataclass
class ContextFields:
    """What the training set says of the fields: mean and deviation of each number, the values of each category."""

    numbers: dict[str, tuple[float, float]] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def from_examples(
        cls, examples: Sequence[Example], *, numbers: Sequence[str], categories: Sequence[str]
    ) -> ContextFields:
        """Statistics of named fields. Raises UserError for a field that no example has."""
        fields = cls()
        for name in numbers:
            values = [float(value) for known in each(examples, "numbers") if (value := known.get(name)) is not None]
            if not values:
                known = sorted({key for numbers in each(examples, "numbers") for key in numbers})
                raise UserError(f"no training example has a number '{name}'.{did_you_mean(name, known)}")
            fields.numbers[name] = (statistics.fmean(values), statistics.pstdev(values) or 1.0)
        for name in categories:
            counts = Counter(label for known in each(examples, "categories") if (label := known.get(name)) is not None)
            if not counts:
                known = sorted({key for categories in each(examples, "categories") for key in categories})
                raise UserError(f"no training example has a category '{name}'.{did_you_mean(name, known)}")
            fields.categories[name] = sorted(counts)
        return fields


@dataclass
class ContextBatch:
    """``tokens`` (B, L) with ``mask`` (B, L) True on real tokens; ``numbers`` (B, F) standardised, NaN where missing;
    ``categories`` (B, F') indices, -1 where missing or never seen in training."""

    tokens: Tensor
    mask: Tensor
    numbers: Tensor
    categories: Tensor

    def rows(self, rows: slice | Tensor) -> ContextBatch:
        """The context of some of the examples: a slice of them, or their places (K,)."""
        return ContextBatch(self.tokens[rows], self.mask[rows], self.numbers[rows], self.categories[rows])

    def known(self) -> bool:
        """Whether anything is known of any example."""
        return bool(self.mask.any() or self.numbers.isfinite().any() or (self.categories >= 0).any())

    def pin_memory(self) -> ContextBatch:
        return ContextBatch(
            self.tokens.pin_memory(), self.mask.pin_memory(), self.numbers.pin_memory(), self.categories.pin_memory()
        )

    def to(self, device: torch.device | str) -> ContextBatch:
        return ContextBatch(
            self.tokens.to(device), self.mask.to(device), self.numbers.to(device), self.categories.to(device)
        )


class TextEncoder(Protocol):
    """What turns a text into ids: a ``CaptionTokenizer`` or a ``tokenizers.Tokenizer``."""

    def encode(self, text: str, /) -> Any: ...


class ContextCollator:
    """Contexts of a batch to a :class:`ContextBatch`."""

    def __init__(self, *, tokenizer: TextEncoder, fields: ContextFields, max_tokens: int, enabled: bool = True) -> None:
        self.tokenizer, self.fields, self.max_tokens, self.enabled = tokenizer, fields, max_tokens, enabled

    def __call__(
        self,
        texts: Sequence[str | None],
        *,
        numbers: Sequence[Mapping[str, float | None]] | None = None,
        categories: Sequence[Mapping[str, str | None]] | None = None,
        strict: bool = True,
    ) -> ContextBatch:
        """Raises UserError (unless not ``strict``) for context that the model was not trained to read."""
        if strict:
            self._check("number", numbers, self.fields.numbers)
            self._check("category", categories, self.fields.categories)
            if not self.enabled and any(text for text in texts):
                raise UserError(
                    "this model reads no context: it was trained without any. Caption without context, or train a "
                    "model on examples that have some."
                )
        rows = [self._ids(text) if text and self.enabled else [] for text in texts]
        longest = max(map(len, rows), default=0)
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[index, : len(row)] = True
        standardised = torch.full((len(rows), len(self.fields.numbers)), torch.nan)
        for index, record in enumerate(numbers or ()):
            for column, (name, (mean, deviation)) in enumerate(self.fields.numbers.items()):
                if (value := record.get(name)) is not None:
                    standardised[index, column] = (float(value) - mean) / deviation
        indices = torch.full((len(rows), len(self.fields.categories)), -1, dtype=torch.long)
        for index, chosen in enumerate(categories or ()):
            for column, (name, values) in enumerate(self.fields.categories.items()):
                if (label := chosen.get(name)) in values:
                    indices[index, column] = values.index(label)
        return ContextBatch(tokens, mask, standardised, indices)

    def examples(self, examples: Sequence[Example]) -> ContextBatch:
        """Context of examples; fields that the model does not use are left aside."""
        return self(
            [example.context for example in examples],
            numbers=[example.numbers for example in examples],
            categories=[example.categories for example in examples],
            strict=False,
        )

    def _ids(self, text: str) -> list[int]:
        ids = self.tokenizer.encode(text)
        return list(ids if isinstance(ids, list) else ids.ids)[: self.max_tokens]

    @staticmethod
    def _check(kind: str, records: Iterable[Mapping[str, Any]] | None, known: Mapping[str, Any]) -> None:
        for record in records or ():
            for name in record:
                if name not in known:
                    accepted = f"It knows {', '.join(known)}." if known else f"It was trained without any {kind}."
                    raise UserError(f"the model knows no {kind} '{name}'.{did_you_mean(name, known)} {accepted}")


def load_context_tokenizer(name: str | Path) -> Any:
    """The tokenizer of a transformers text encoder: a folder's ``tokenizer.json``, or by hub name."""
    from tokenizers import Tokenizer

    path = Path(name, "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else Tokenizer.from_pretrained(str(name))
    except Exception as error:
        raise UserError(
            f"no tokenizer for context.encoder '{name}': {str(error).splitlines()[0]} "
            "The folder must hold tokenizer.json."
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
