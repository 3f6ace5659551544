"""Every image of a data set, read and decoded once: what it is, in a few numbers each."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from latentcap.data.check.report import Duplicate
from latentcap.data.columns import each
from latentcap.data.cores import available_cores
from latentcap.data.example import Example
from latentcap.data.image import ImageRef, decode_image


@dataclass(slots=True)
class Images:
    """Sizes in pixels after orientation of those that could be read, and why others could not, by ``str(ref)``."""

    numbers: dict[int, int] = field(default_factory=dict)  # hash of a reference to its place
    contents: array[int] = field(default_factory=lambda: array("q"))  # of each the first that has its bytes, or -1
    widths: array[int] = field(default_factory=lambda: array("i"))
    heights: array[int] = field(default_factory=lambda: array("i"))
    errors: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.numbers)

    def content(self, ref: ImageRef) -> int:
        """A number that images of the same bytes share; -1 where it cannot be read."""
        return self.contents[self.numbers[hash(ref)]]


def read_images(examples: Sequence[Example], progress: Callable[[int, int], None] | None) -> Images:
    """Read and decode every image, by a few threads; ``progress`` is called with (done, total)."""
    images, firsts = Images(), dict[bytes, int]()
    for ref in _refs(examples):
        images.numbers.setdefault(hash(ref), len(images.numbers))
    waiting = _distinct(examples, images.numbers)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, 2 * available_cores())) as pool:
        warnings.simplefilter("ignore")  # Pillow's, on harmless oddities of files that it reads
        while batch := list(itertools.islice(waiting, 64)):
            for ref, (digest, size, error) in zip(batch, pool.map(_read, batch), strict=True):
                number = len(images.contents)
                images.contents.append(-1 if error else firsts.setdefault(digest, number))
                if error:
                    images.errors.append((str(ref), error))
                else:
                    images.widths.append(size[0])
                    images.heights.append(size[1])
            if progress:
                progress(len(images.contents), len(images))
    return images


def duplicates(examples: Sequence[Example], images: Images) -> tuple[Duplicate, ...]:
    """Images that several examples have, each with the examples."""
    counts = Counter(content for contents in _contents(examples, images) for content in contents)
    repeated = {content for content, count in counts.items() if count > 1}
    holders: dict[int, list[tuple[str, str]]] = {}
    held = zip(each(examples, "id"), each(examples, "split"), _contents(examples, images), strict=True)
    for id, split, contents in held:
        for content in contents:
            if content in repeated:
                holders.setdefault(content, []).append((id, split))
    return tuple(
        Duplicate(
            examples=tuple(f"{id} ({split})" for id, split in pairs),
            across_splits=len({split for _, split in pairs}) > 1,
        )
        for pairs in holders.values()
    )


def _contents(examples: Sequence[Example], images: Images) -> Iterator[list[int]]:
    """What each example shows, once each."""
    for refs in each(examples, "images"):
        yield [content for content in dict.fromkeys(map(images.content, refs)) if content >= 0]


def _refs(examples: Sequence[Example]) -> Iterator[ImageRef]:
    return itertools.chain.from_iterable(each(examples, "images"))


def _distinct(examples: Sequence[Example], numbers: dict[int, int]) -> Iterator[ImageRef]:
    next_one = 0
    for ref in _refs(examples):
        if numbers[hash(ref)] == next_one:
            next_one += 1
            yield ref


def _read(ref: ImageRef) -> tuple[bytes, tuple[int, int], str]:
    """A digest of its bytes, its size, and what is wrong with it."""
    try:
        encoded = ref.read_bytes()
        return hashlib.sha256(encoded).digest(), decode_image(encoded, name=str(ref)).size, ""
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        return b"", (0, 0), getattr(error, "strerror", None) or str(error)
