"""The result of the data check, as numbers for programs and as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from latentcap.data.readers.fields import Skipped


@dataclass(frozen=True)
class SplitCounts:
    """What one split holds. ``missing_context`` is None where no example of the data set has context."""

    examples: int
    references: int
    paraphrases: int
    missing_captions: int
    missing_context: int | None


@dataclass(frozen=True)
class Duplicate:
    """One image, by its bytes, in several examples (``id (split)``)."""

    examples: tuple[str, ...]
    across_splits: bool


@dataclass(frozen=True)
class Vocabulary:
    """Words seen at least ``min_frequency`` times in train, and the share of each split's words that they are."""

    min_frequency: int
    size: int
    coverage: dict[str, float]


@dataclass(frozen=True)
class Tally:
    """Everything that was seen, once: examples that training uses, what it leaves out, what it cannot read.

    ``skipped`` are what the readers put into no example, and examples without a caption; ``failed`` examples with an
    image that cannot be read.
    """

    used: int = 0
    skipped: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Report:
    """What the check found. Caption lengths are in words, image sizes in pixels after orientation."""

    splits: dict[str, SplitCounts]
    images: int
    unreadable: tuple[tuple[str, str], ...]  # (file, reason)
    empty_captions: tuple[str, ...]  # ids of examples without a caption, or with one that has no word
    duplicates: tuple[Duplicate, ...]
    caption_words: dict[str, float]  # min, median, mean, p95, max
    vocabulary: tuple[Vocabulary, ...]
    width: dict[str, float]  # min, median, max
    height: dict[str, float]
    missing_fields: dict[str, dict[str, int]]  # number, category or label -> split -> examples without it
    shared_groups: dict[str, list[str]]  # patients or cases in more than one split, with those splits
    tally: Tally = Tally()
    skipped: tuple[Skipped, ...] = ()
    taken_for_val: int = 0  # examples of train that training would take as val, where there is no val
    unspaced: str | None = None  # the captions' language, where that is written without spaces between words

    @property
    def leaks(self) -> tuple[Duplicate, ...]:
        """Images that are in more than one split: scores on them measure memory."""
        return tuple(duplicate for duplicate in self.duplicates if duplicate.across_splits)

    @property
    def clean(self) -> bool:
        """No unreadable image, no empty caption, nothing left out, no image, patient or case in two splits."""
        return not (self.unreadable or self.empty_captions or self.left_out or self.leaks or self.shared_groups)

    @property
    def left_out(self) -> tuple[Skipped, ...]:
        """What was skipped without belonging to how the data are used."""
        return tuple(item for item in self.skipped if not item.expected)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        return {"clean": self.clean, **asdict(self)}

    def to_text(self, limit: int = 10) -> str:
        """The report for people; of any list at most ``limit`` entries."""
        within = [duplicate for duplicate in self.duplicates if not duplicate.across_splits]
        lines = [*self._counts(), *self._captions(), *self._fields()]
        lines += _problem("unreadable images", [f"{file}: {reason}" for file, reason in self.unreadable], limit)
        for what, items in (("skipped, in no example", self.left_out), ("skipped, as expected", self._expected())):
            if items:
                lines += _problem(what, [f"{item.name}: {item.reason}" for item in items], limit)
        lines += _problem("examples without a caption, or with an empty one", self.empty_captions, limit)
        lines += _problem("images in more than one split", [" = ".join(leak.examples) for leak in self.leaks], limit)
        if self.shared_groups:
            shared = [f"{group} ({', '.join(splits)})" for group, splits in self.shared_groups.items()]
            lines += _problem("patients or cases in more than one split", shared, limit)
        lines.append(f"images repeated within a split: {len(within):,}")
        lines.append("clean" if self.clean else "problems found")
        return "\n".join(lines)

    def _expected(self) -> list[Skipped]:
        return [item for item in self.skipped if item.expected]

    def _counts(self) -> Iterator[str]:
        for name, split in self.splits.items():
            line = f"{name:<6}{split.examples:>10,} examples {split.references:>10,} captions"
            if split.paraphrases:
                line += f" {split.paraphrases:>10,} paraphrases"
            if split.missing_context is not None:
                line += f" {split.missing_context:>10,} without context"
            yield line
        if self.taken_for_val:
            yield (
                f"no val split: training takes {self.taken_for_val:,} of the examples of train as val, by seed and "
                "by patient or image"
            )
        seen = self.tally.used + self.tally.skipped + self.tally.failed
        if seen:
            yield (
                f"seen: {seen:,} = {self.tally.used:,} used + {self.tally.skipped:,} skipped + "
                f"{self.tally.failed:,} failed"
            )
        yield f"images: {self.images:,}"
        for what, summary in (("width", self.width), ("height", self.height)):
            if summary:
                yield f"  {what}: {_spell(summary)}"

    def _captions(self) -> Iterator[str]:
        if not self.caption_words:
            return
        words = "characters" if self.unspaced else "words"
        if self.unspaced:
            yield (
                f"captions in {self.unspaced}, which is written without spaces between words: characters are counted. "
                "Train on pieces of text: --data.tokenizer.kind bpe"
            )
        yield f"caption length in {words}: {_spell(self.caption_words)}"
        yield f"vocabulary ({words} of train seen at least N times, and the share of all {words} that they cover)"
        for row in self.vocabulary:
            shares = "  ".join(f"{name} {share:.2%}" for name, share in row.coverage.items())
            yield f"  N = {row.min_frequency:<3}{row.size:>9,} {words}   {shares}"

    def _fields(self) -> Iterator[str]:
        for name, missing in self.missing_fields.items():
            counts = (f"{split} {count:,} of {self.splits[split].examples:,}" for split, count in missing.items())
            yield f"field '{name}': missing in {', '.join(counts)} examples"


def _spell(summary: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}".removesuffix(".0") for name, value in summary.items())


def _problem(what: str, entries: Sequence[str], limit: int) -> list[str]:
    lines = [f"{what}: {len(entries):,}", *(f"  {entry}" for entry in entries[:limit])]
    return lines + ([f"  ... and {len(entries) - limit:,} more"] if len(entries) > limit else [])
