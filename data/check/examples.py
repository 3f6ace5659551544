"""The data check: reads every image and caption once, and says what would hurt training or spoil its scores."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from latentcap.data.check.images import duplicates, read_images
from latentcap.data.check.report import Report, SplitCounts, Tally, Vocabulary
from latentcap.data.columns import each
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers.fields import Skipped
from latentcap.data.readers.splits import groups_in_two_splits, share_for_validation
from latentcap.data.words import split_words, unspaced_language

MIN_FREQUENCIES = (1, 2, 3, 5, 10)
SPLITS = ("train", "val", "test")


@dataclass(slots=True)
class _Split:
    examples: int = 0
    references: int = 0
    paraphrases: int = 0
    missing_captions: int = 0
    missing_context: int = 0
    words: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)  # numbers, categories and labels that examples have

    def add(self, example: Example, captions: Sequence[Sequence[str]]) -> None:
        self.examples += 1
        self.references += len(captions)
        self.paraphrases += len(example.paraphrases)
        self.missing_captions += not any(captions)
        self.missing_context += example.context is None
        for words in captions:
            self.words.update(words)
        record = {**example.numbers, **example.categories, **example.labels}
        self.known.update({name: value is not None for name, value in record.items()})

    def counts(self, any_context: bool) -> SplitCounts:
        context = self.missing_context if any_context else None
        return SplitCounts(self.examples, self.references, self.paraphrases, self.missing_captions, context)


def check_examples(
    examples: Sequence[Example],
    *,
    skipped: Sequence[Skipped] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check a data set; every image is read and decoded once, by a few threads. Examples are held as they are given.

    Args:
        examples: those of all splits, for leaks between them to be seen.
        skipped: what the readers saw and put into no example.
        progress: called with (images done, images in all).
    """
    images = read_images(examples, progress)
    splits = {name: _Split() for name in SPLITS}
    fields: dict[str, None] = {}
    lengths, empty = array("i"), list[str]()
    failed = wordless = 0
    for example in examples:
        captions = [split_words(caption) for caption in example.captions]
        splits[example.split].add(example, captions)
        fields |= dict.fromkeys((*example.numbers, *example.categories, *example.labels))
        lengths.extend(len(words) for words in captions if words)
        if not captions or not all(captions):
            empty.append(example.id)
        if any(images.content(ref) < 0 for ref in example.images):
            failed += 1
        elif not any(captions):
            wordless += 1
    found = {name: split for name, split in splits.items() if split.examples}
    any_context = any(split.missing_context < split.examples for split in found.values())
    return Report(
        splits={name: split.counts(any_context) for name, split in found.items()},
        images=len(images),
        tally=Tally(used=len(examples) - failed - wordless, skipped=len(skipped) + wordless, failed=failed),
        skipped=tuple(skipped),
        taken_for_val=_taken_for_val(examples),
        unreadable=tuple(images.errors),
        empty_captions=tuple(empty),
        duplicates=duplicates(examples, images),
        caption_words=_summary(lengths, ("mean", "p95")),
        vocabulary=_vocabulary({name: split.words for name, split in found.items()}),
        width=_summary(images.widths),
        height=_summary(images.heights),
        missing_fields={
            name: {part: split.examples - split.known[name] for part, split in found.items()} for name in fields
        },
        shared_groups=groups_in_two_splits(examples),
        unspaced=unspaced_language(caption for captions in each(examples, "captions") for caption in captions),
    )


def _taken_for_val(examples: Sequence[Example]) -> int:
    """How many of train training would validate on, where the data say nothing of a val split; 0 where they do."""
    if set(each(examples, "split")) & {"train", "val"} != {"train"}:
        return 0
    try:
        return list(each(share_for_validation(examples), "split")).count("val")
    except UserError:  # a single image or patient: training says so
        return 0


def _vocabulary(counts: dict[str, Counter[str]]) -> tuple[Vocabulary, ...]:
    """Of train; of all splits where there is no train."""
    source = counts.get("train") or sum(counts.values(), Counter())
    rows = []
    for minimum in MIN_FREQUENCIES:
        known = {word for word, count in source.items() if count >= minimum}
        coverage = {
            name: sum(count for word, count in split.items() if word in known) / split.total()
            for name, split in counts.items()
            if split
        }
        rows.append(Vocabulary(minimum, len(known), coverage))
    return tuple(rows)


def _summary(values: Sequence[int], extra: Sequence[str] = ()) -> dict[str, float]:
    """Minimum, median, maximum and what else is named; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    summary: dict[str, float] = {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "mean": statistics.fmean(ordered),
        "p95": ordered[round(0.95 * (len(ordered) - 1))],
        "max": ordered[-1],
    }
    return {name: value for name, value in summary.items() if name in ("min", "median", "max", *extra)}
