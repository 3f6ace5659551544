"""How much of the captions a vocabulary and a longest length leave to be learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_LENGTH = "model.model.decoder.max_length"  # the setting that captions are cut by


@dataclass
class Coverage:
    """Counts over captions as token ids, whole, without ``<bos>`` and ``<eos>``."""

    max_length: int
    unknown_id: int
    captions: int = 0
    cut: int = 0
    longest: int = 0
    tokens: int = 0
    unknown: int = 0

    def add(self, ids: Sequence[int]) -> None:
        self.captions += 1
        self.cut += len(ids) > self.max_length
        self.longest = max(self.longest, len(ids))
        self.tokens += len(ids)
        self.unknown += ids.count(self.unknown_id)

    def describe(self, *, unit: str, why_unknown: str) -> str:
        """One line for people, in which tokens are ``words`` or another ``unit``."""
        cut = "none is cut"
        if self.cut:
            cut = (
                f"{self.cut / self.captions:.1%} are cut at {MAX_LENGTH} {self.max_length} "
                f"(set it to {self.longest} to keep all)"
            )
        unknown = f"all {unit} are known"
        if self.unknown:
            unknown = f"{self.unknown / self.tokens:.1%} of their {unit} are unknown ({why_unknown})"
        return f"{self.captions:,} training captions of up to {self.longest:,} {unit}: {cut}; {unknown}"
