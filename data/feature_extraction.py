"""Fills a feature cache: images are read, decoded and transformed in threads beside the model that encodes them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from data.example import ImageRef, decode_image
from data.feature_cache import FeatureCache, entry_key

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
    transform_for: Callable[[int], Callable[..., Tensor]],
    variants: int = 1,
    decode: Callable[[bytes], Image.Image] = decode_image,
    batch_size: int = 32,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ExtractReport:
    """Fills ``cache`` with the regions of ``refs``. Stopped at any moment and called again, it goes on from there.

    Args:
        refs: the images; the same content twice is computed once.
        encode: images (B, 3, H, W) to regions (B, N, C), called in this thread under ``torch.inference_mode``.
        transform_for: variant to the function that makes an RGB image a tensor (3, H, W). Variant 0 is called with the
            image alone; others also with ``generator=``, a ``torch.Generator`` seeded by the image and the variant, so
            that the result depends on neither order nor threads.
        variants: how many variants of each image: 0 up to this number, which is not included.
        decode: encoded bytes to an RGB image; OSError marks the image as unreadable.
        workers: threads that read, decode and transform beside ``encode``.
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
    wanted = [entry_key(digest, variant) for digest in same for variant in range(variants)]
    cache.refresh()
    if not cache.missing(wanted):  # a cache that nobody may write to can be read all the same
        report.reused = len(wanted)
        return report
    transforms = [transform_for(variant) for variant in range(variants)]

    def prepare(ref: ImageRef, digest: str, numbers: list[int]) -> list[Tensor] | str:
        """The tensors of an image's missing variants, or why there are none."""
        try:
            encoded = ref.read_bytes()
            if hashlib.sha256(encoded).hexdigest() != digest:
                return "changed while it was being read; run again"
            image = decode(encoded)
        except OSError as error:
            return str(error)
        return [_transformed(image, transforms[variant], digest, variant) for variant in numbers]

    with cache.lock():
        cache.refresh()  # another process may have computed some while this one waited
        todo = {digest: [v for v in range(variants) if entry_key(digest, v) not in cache] for digest in same}
        todo = {digest: numbers for digest, numbers in todo.items() if numbers}
        total = sum(map(len, todo.values()))
        cache.require_space(total)
        report.reused = len(wanted) - total
        keys: list[str] = []
        images: list[Tensor] = []
        done, flushed = 0, time.monotonic()
        with cache.writer() as writer, ThreadPoolExecutor(workers) as pool:
            jobs = ((digest, pool.submit(prepare, same[digest][0], digest, todo[digest])) for digest in todo)
            for digest, job in _ahead(jobs, batch_size + workers):
                prepared = job.result()
                if isinstance(prepared, str):
                    report.unreadable += [(ref, prepared) for ref in same[digest]]
                    done += len(todo[digest])
                else:
                    keys += [entry_key(digest, variant) for variant in todo[digest]]
                    images += prepared
                last = done + len(keys) == total
                while len(keys) >= batch_size or (last and keys):
                    with torch.inference_mode():
                        writer.add(keys[:batch_size], encode(torch.stack(images[:batch_size])))
                    report.computed += len(keys[:batch_size])
                    done += len(keys[:batch_size])
                    del keys[:batch_size], images[:batch_size]
                    if progress:
                        progress(done, total)
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    writer.flush()
                    flushed = time.monotonic()
        if progress:
            progress(done, total)
    return report


def _why_unreadable(ref: ImageRef) -> str:
    try:
        ref.read_bytes()
    except OSError as error:
        return str(error)
    return "could not be read at first, but can now; run again"


def _transformed(image: Image.Image, transform: Callable[..., Tensor], digest: str, variant: int) -> Tensor:
    if variant == 0:
        return transform(image)
    seed = int.from_bytes(hashlib.sha256(entry_key(digest, variant).encode()).digest()[:7], "big")
    return transform(image, generator=torch.Generator().manual_seed(seed))


def _ahead(
    jobs: Iterator[tuple[str, Future[list[Tensor] | str]]], count: int
) -> Iterator[tuple[str, Future[list[Tensor] | str]]]:
    """The same jobs in the same order, with ``count`` of them always under way."""
    waiting = list(islice(jobs, count))
    while waiting:
        yield waiting.pop(0)
        waiting += islice(jobs, 1)
