"""The data check: reads every image and caption once, and says what would hurt training or spoil its scores."""

from __future__ import annotations

import hashlib
import itertools
import os
import statistics
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from latentcap.data.check.report import Duplicate, Report, SplitCounts, Tally, Vocabulary
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.image import ImageRef, decode_image
from latentcap.data.readers.fields import Skipped
from latentcap.data.readers.splits import groups_in_two_splits, share_for_validation
from latentcap.data.words import split_words, unspaced_language

MIN_FREQUENCIES = (1, 2, 3, 5, 10)
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class _Image:
    digest: str = ""
    size: tuple[int, int] = (0, 0)
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Item:
    example: Example
    captions: list[list[str]]  # words


def check_examples(
    examples: Sequence[Example],
    *,
    skipped: Sequence[Skipped] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check a data set; every image is read and decoded once, by a few threads.

    Args:
        examples: those of all splits, for leaks between them to be seen.
        skipped: what the readers saw and put into no example.
        progress: called with (images done, images in all).
    """
    refs = list(dict.fromkeys(ref for example in examples for ref in example.images))
    images = dict(zip(refs, _read_images(refs, progress), strict=True))
    good = [image for image in images.values() if not image.error]
    items = [_Item(example, [split_words(caption) for caption in example.captions]) for example in examples]
    by_split = {name: part for name in SPLITS if (part := [item for item in items if item.example.split == name])}
    any_context = any(example.context is not None for example in examples)
    failed = {id(item) for item in items if any(images[ref].error for ref in item.example.images)}
    wordless = [item for item in items if id(item) not in failed and not any(item.captions)]
    return Report(
        splits={name: _count(part, any_context) for name, part in by_split.items()},
        images=len(refs),
        tally=Tally(
            used=len(items) - len(failed) - len(wordless), skipped=len(skipped) + len(wordless), failed=len(failed)
        ),
        skipped=tuple(skipped),
        taken_for_val=_taken_for_val(examples),
        unreadable=tuple((str(ref), image.error) for ref, image in images.items() if image.error),
        empty_captions=tuple(item.example.id for item in items if not item.captions or not all(item.captions)),
        duplicates=_duplicates(examples, images),
        caption_words=_summary([len(words) for item in items for words in item.captions if words], ("mean", "p95")),
        vocabulary=_vocabulary(
            {
                name: Counter(word for item in part for words in item.captions for word in words)
                for name, part in by_split.items()
            }
        ),
        width=_summary([image.size[0] for image in good]),
        height=_summary([image.size[1] for image in good]),
        missing_fields=_missing_fields(examples),
        shared_groups=groups_in_two_splits(examples),
        unspaced=unspaced_language(caption for example in examples for caption in example.captions),
    )


def _taken_for_val(examples: Sequence[Example]) -> int:
    """How many of train training would validate on, where the data say nothing of a val split; 0 where they do."""
    if {example.split for example in examples} & {"train", "val"} != {"train"}:
        return 0
    try:
        return sum(example.split == "val" for example in share_for_validation(examples))
    except UserError:  # a single image or patient: training says so
        return 0


def _count(items: Sequence[_Item], any_context: bool) -> SplitCounts:
    return SplitCounts(
        examples=len(items),
        references=sum(len(item.captions) for item in items),
        paraphrases=sum(len(item.example.paraphrases) for item in items),
        missing_captions=sum(not any(item.captions) for item in items),
        missing_context=sum(item.example.context is None for item in items) if any_context else None,
    )


def _read_images(refs: Sequence[ImageRef], progress: Callable[[int, int], None] | None) -> list[_Image]:
    results: list[_Image] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        warnings.simplefilter("ignore")  # Pillow's, on harmless oddities of files that it reads
        waiting = iter(refs)
        while batch := list(itertools.islice(waiting, 64)):
            results += pool.map(_read_image, batch)
            if progress:
                progress(len(results), len(refs))
    return results


def _read_image(ref: ImageRef) -> _Image:
    try:
        encoded = ref.read_bytes()
        return _Image(digest=hashlib.sha256(encoded).hexdigest(), size=decode_image(encoded, name=str(ref)).size)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        return _Image(error=getattr(error, "strerror", None) or str(error))


def _duplicates(examples: Sequence[Example], images: dict[ImageRef, _Image]) -> tuple[Duplicate, ...]:
    holders: dict[str, dict[int, Example]] = defaultdict(dict)  # digest -> place in the list -> example
    for place, example in enumerate(examples):
        for ref in example.images:
            if not images[ref].error:
                holders[images[ref].digest][place] = example
    return tuple(
        Duplicate(
            examples=tuple(f"{example.id} ({example.split})" for example in held.values()),
            across_splits=len({example.split for example in held.values()}) > 1,
        )
        for held in holders.values()
        if len(held) > 1
    )


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


def _missing_fields(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    records = [{**example.numbers, **example.categories, **example.labels} for example in examples]
    names = dict.fromkeys(name for record in records for name in record)
    splits = sorted({example.split for example in examples}, key=SPLITS.index)
    return {
        name: {
            split: sum(
                example.split == split and record.get(name) is None
                for example, record in zip(examples, records, strict=True)
            )
            for split in splits
        }
        for name in names
    }


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
