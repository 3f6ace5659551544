"""Fills a feature cache. Every thread takes whole batches from file to regions.

On a CPU each thread computes alone (torch's own threads are shared out among them): threads that decode beside a model
that computes in all threads make each other wait at every layer, which costs half of the speed.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from latentcap.data.cache.store import FeatureCache, entry_key
from latentcap.data.image import ImageRef, decode_image

FLUSH_SECONDS = 10.0  # a crash loses at most about this much work


@dataclass(slots=True)
class ExtractReport:
    """What :func:`extract` did, in entries (images times variants), and the images it could not read, with reasons."""

    computed: int = 0
    reused: int = 0
    unreadable: list[tuple[ImageRef, str]] = field(default_factory=list)


def extract(
    refs: Sequence[ImageRef],
    *,
    cache: FeatureCache,
    encode: Callable[[Tensor], Tensor],
    transform: Callable[[Image.Image, int], Tensor],
    variants: int = 1,
    change: str = "",
    decode: Callable[..., Image.Image] = decode_image,
    batch_size: int = 8,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ExtractReport:
    """Fills ``cache`` with the regions of ``refs``. Stopped at any moment and called again, it goes on from there.

    Args:
        refs: the images; the same content twice is computed once.
        encode: images (B, 3, H, W) to regions (B, N, C) on the CPU, called in several threads under
            ``torch.inference_mode``.
        transform: an RGB image and a seed to a tensor (3, H, W). The seed of variant 0, the plain one, is 0; that of
            others is a number of the image's content and the variant, so that the result depends on neither order nor
            threads.
        variants: how many variants of each image: 0 up to this number, which is not included.
        change: what ``transform`` does to variants other than 0, for :func:`entry_key`.
        decode: encoded bytes, and the `name` of their file, to an RGB image; OSError marks the image as unreadable.
        batch_size: entries that are encoded at once. On a CPU small batches stay in its cache.
        workers: threads that each read, decode, transform and encode.
        progress: called with (done, total) entries, of those that were missing.

    Raises:
        UserError: the disk is too small or refuses.
    """
    digests = cache.digests(refs, workers=workers)
    report = ExtractReport()
    same: dict[str, list[ImageRef]] = {}  # content to all images that have it
    for ref, digest in zip(refs, digests, strict=True):
        if digest is None:
            report.unreadable.append((ref, _why_unreadable(ref)))
        else:
            same.setdefault(digest, []).append(ref)
    wanted = [entry_key(digest, variant, change) for digest in same for variant in range(variants)]
    cache.refresh()
    if not cache.missing(wanted):  # a cache that nobody may write to can be read all the same
        report.reused = len(wanted)
        return report
    threads = torch.get_num_threads()

    def compute(chunk: list[tuple[str, list[int]]]) -> tuple[list[str], Tensor | None, list[tuple[ImageRef, str]]]:
        """The keys and regions of the missing variants of some images, and the images that cannot be read."""
        keys, images, unreadable = list[str](), list[Tensor](), []
        for digest, numbers in chunk:
            try:
                encoded = same[digest][0].read_bytes()
                if hashlib.sha256(encoded).hexdigest() != digest:
                    raise OSError("changed while it was being read; run again")
                image = decode(encoded, name=str(same[digest][0]))
            except OSError as error:
                unreadable += [(ref, str(error)) for ref in same[digest]]
                continue
            images += [transform(image, variant and _seed(digest, variant)) for variant in numbers]
            keys += [entry_key(digest, variant, change) for variant in numbers]
        with torch.inference_mode():
            parts = [encode(torch.stack(images[at : at + batch_size])) for at in range(0, len(keys), batch_size)]
        return keys, torch.cat(parts) if parts else None, unreadable

    with cache.lock():
        cache.refresh()  # another process may have computed some while this one waited
        todo = {digest: [v for v in range(variants) if entry_key(digest, v, change) not in cache] for digest in same}
        todo = {digest: numbers for digest, numbers in todo.items() if numbers}
        total = sum(map(len, todo.values()))
        cache.require_space(total)
        report.reused = len(wanted) - total
        done, flushed = 0, time.monotonic()
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(1, threads // workers),))
        with cache.writer() as writer, pool:
            chunks = _chunks(todo, batch_size)
            try:
                for size, job in _ahead(((_size(chunk), pool.submit(compute, chunk)) for chunk in chunks), 2 * workers):
                    keys, regions, unreadable = job.result()
                    report.unreadable += unreadable
                    if regions is not None:
                        writer.add(keys, regions)
                        report.computed += len(keys)
                    done += size
                    if progress:
                        progress(done, total)
                    if time.monotonic() - flushed > FLUSH_SECONDS:
                        writer.flush()
                        flushed = time.monotonic()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                torch.set_num_threads(threads)
    return report


def _chunks(todo: dict[str, list[int]], batch_size: int) -> Iterator[list[tuple[str, list[int]]]]:
    """Images with their missing variants, in groups that make about one batch."""
    chunk: list[tuple[str, list[int]]] = []
    for item in todo.items():
        chunk.append(item)
        if _size(chunk) >= batch_size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _size(chunk: list[tuple[str, list[int]]]) -> int:
    return sum(len(numbers) for _, numbers in chunk)


def _why_unreadable(ref: ImageRef) -> str:
    try:
        ref.read_bytes()
    except OSError as error:
        return str(error)
    return "could not be read at first, but can now; run again"


def _seed(digest: str, variant: int) -> int:
    return int.from_bytes(hashlib.sha256(entry_key(digest, variant).encode()).digest()[:7], "big")


def _ahead(jobs: Iterator[tuple[int, Future[Any]]], count: int) -> Iterator[tuple[int, Future[Any]]]:
    """The same jobs in the same order, with ``count`` of them always under way."""
    waiting = deque(islice(jobs, count))
    while waiting:
        yield waiting.popleft()
        waiting.extend(islice(jobs, 1))
