"""Filling the cache: every image once, also when interrupted, changed, broken, or done by two processes at once."""

from __future__ import annotations

import io
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from latentcap.data.batches.augmentation import Augmentation, VariedImage
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.transforms import decode_for, eval_transform
from latentcap.data.cache.extract import ExtractReport, extract
from latentcap.data.cache.store import FeatureCache, entry_key
from latentcap.data.example import ImageRef

CONFIG = ImageConfig(size=(16, 16))
SHAPE = (4, 3)
fork = multiprocessing.get_context("fork")


def encode(images: Tensor) -> Tensor:
    """Mean colour of each quarter: (B, 3, 16, 16) to (B, 4, 3)."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(2).transpose(1, 2)


def fill(refs: list[ImageRef], cache: FeatureCache, **options: Any) -> ExtractReport:
    options = {"encode": encode, "transform": VariedImage(CONFIG, Augmentation()), "batch_size": 4, **options}
    return extract(refs, cache=cache, **options)


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def refs(tmp_path: Path) -> list[ImageRef]:
    out = []
    for i in range(10):
        path = tmp_path / f"{i}.png"
        path.write_bytes(png(i))
        out.append(ImageRef(str(path)))
    return out


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", key="a", shape=SHAPE)


def entries(cache: FeatureCache, refs: list[ImageRef], variant: int = 0, change: str = "") -> Tensor:
    digests = [digest for digest in cache.digests(refs) if digest]
    return cache.read([entry_key(digest, variant, change) for digest in digests])


def test_every_entry_is_the_encoding_of_its_image(refs: list[ImageRef], cache: FeatureCache) -> None:
    seen: list[tuple[int, int]] = []
    report = fill(refs, cache, variants=2, progress=lambda done, total: seen.append((done, total)))
    assert (report.computed, report.reused, report.unreadable) == (20, 0, [])
    assert seen[-1] == (20, 20)
    assert seen == sorted(seen)
    expected = encode(torch.stack([eval_transform(CONFIG)(ref.open()) for ref in refs])).half()
    assert torch.equal(entries(cache, refs), expected)
    assert not torch.equal(entries(cache, refs, variant=1), expected)
    again = fill(refs, cache, variants=2)
    assert (again.computed, again.reused) == (0, 20)


def test_augmented_variants_depend_on_neither_order_nor_threads(tmp_path: Path, refs: list[ImageRef]) -> None:
    caches = [FeatureCache(tmp_path / str(i), key="a", shape=SHAPE) for i in range(2)]
    fill(refs, caches[0], variants=3, workers=1)
    torch.manual_seed(5)
    fill(refs[::-1], caches[1], variants=2, workers=4, batch_size=3)
    fill(refs[::-1], caches[1], variants=3, workers=4, batch_size=3)
    for variant in range(3):
        assert torch.equal(entries(caches[0], refs, variant), entries(caches[1], refs, variant))


def test_another_augmentation_leaves_the_plain_variant(refs: list[ImageRef], cache: FeatureCache) -> None:
    flips, turns = Augmentation(horizontal_flip=0.5), Augmentation(rotate90=True)
    assert fill(refs, cache).computed == 10
    for augmentation in (flips, turns):
        report = fill(refs, cache, variants=2, change=augmentation.key, transform=VariedImage(CONFIG, augmentation))
        assert (report.computed, report.reused) == (10, 10)
    assert not torch.equal(entries(cache, refs, 1, flips.key), entries(cache, refs, 1, turns.key))
    again = FeatureCache(cache.folder, key="a", shape=SHAPE)  # what is on disk, read anew
    assert torch.equal(entries(again, refs, 1, turns.key), entries(cache, refs, 1, turns.key))


def test_changed_images_are_computed_again_and_equal_ones_once(refs: list[ImageRef], cache: FeatureCache) -> None:
    fill(refs, cache)
    Path(refs[3].path).write_bytes(png(99))
    Path(refs[4].path).write_bytes(png(5))
    report = fill(refs, cache)
    assert (report.computed, report.reused) == (1, 8)
    expected = encode(torch.stack([eval_transform(CONFIG)(ref.open()) for ref in refs])).half()
    assert torch.equal(entries(cache, refs), expected)


def test_another_fingerprint_computes_its_own(tmp_path: Path, refs: list[ImageRef], cache: FeatureCache) -> None:
    fill(refs, cache)
    other = FeatureCache(tmp_path / "cache", key="b", shape=SHAPE)
    assert fill(refs, other, encode=lambda images: encode(images) + 1).computed == 10
    assert torch.allclose(entries(other, refs).float(), entries(cache, refs).float() + 1, atol=0.01)


def test_unreadable_images_are_reported_and_skipped(refs: list[ImageRef], cache: FeatureCache) -> None:
    Path(refs[0].path).unlink()
    Path(refs[4].path).write_bytes(b"no image")
    Path(refs[9].path).write_bytes(png(9)[:300])
    seen: list[tuple[int, int]] = []
    report = fill(refs, cache, progress=lambda done, total: seen.append((done, total)))
    assert report.computed == 7
    assert sorted(Path(ref.path).name for ref, _ in report.unreadable) == ["0.png", "4.png", "9.png"]
    assert all(reason for _, reason in report.unreadable)
    why = {Path(ref.path).name: reason for ref, reason in report.unreadable}
    assert "not an image but text, as failed downloads leave" in why["4.png"]
    assert seen[-1] == (9, 9)
    good = [ref for i, ref in enumerate(refs) if i not in (0, 4, 9)]
    assert entries(cache, good).shape == (7, *SHAPE)


def test_interrupted_work_is_kept(refs: list[ImageRef], cache: FeatureCache) -> None:
    def stop(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(refs, cache, progress=stop)
    assert len(cache) == 8
    report = fill(refs, cache)
    assert (report.computed, report.reused) == (2, 8)
    expected = encode(torch.stack([eval_transform(CONFIG)(ref.open()) for ref in refs])).half()
    assert torch.equal(entries(cache, refs), expected)


def test_an_error_of_the_model_is_not_taken_for_one_of_the_disk(refs: list[ImageRef], cache: FeatureCache) -> None:
    def broken(images: Tensor) -> Tensor:
        raise OSError("model")

    with pytest.raises(OSError, match=r"^model$"):
        fill(refs, cache, encode=broken)


def _fill_in_process(refs: list[ImageRef], folder: Path, results: Any) -> None:
    torch.set_num_threads(1)

    def slowly(images: Tensor) -> Tensor:
        time.sleep(0.02)
        return encode(images)

    report = fill(refs, FeatureCache(folder, key="a", shape=SHAPE), encode=slowly, variants=2)
    results.put((report.computed, report.reused))


def test_processes_at_once_share_the_work(tmp_path: Path, refs: list[ImageRef], cache: FeatureCache) -> None:
    results = fork.Queue()
    processes = [fork.Process(target=_fill_in_process, args=(refs, tmp_path / "shared", results)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(results.get() for _ in processes) == [(0, 20), (0, 20), (20, 0)]
    shared = FeatureCache(tmp_path / "shared", key="a", shape=SHAPE)
    fill(refs, cache, variants=2)
    for variant in range(2):
        assert torch.equal(entries(shared, refs, variant), entries(cache, refs, variant))


def test_a_killed_extraction_frees_its_lock_and_is_taken_over(tmp_path: Path, refs: list[ImageRef]) -> None:
    process = fork.Process(target=_fill_in_process, args=(refs, tmp_path / "shared", fork.Queue()))
    process.start()
    time.sleep(0.08)
    process.kill()
    process.join()
    shared = FeatureCache(tmp_path / "shared", key="a", shape=SHAPE)
    report = fill(refs, shared, variants=2)
    assert report.computed + report.reused == 20
    assert entries(shared, refs, 1).isfinite().all()


@pytest.mark.skipif("LATENTCAP_DATA" not in os.environ, reason="set LATENTCAP_DATA to a folder with the RSICD tars")
def test_images_inside_a_real_tar(cache: FeatureCache) -> None:
    import tarfile

    path = Path(os.environ["LATENTCAP_DATA"]) / "rsicd" / "val-00000.tar"
    with tarfile.open(path) as tar:
        members = [member for member, _ in zip(tar, range(200), strict=False) if member.name.endswith(".jpg")]
    refs = [ImageRef(str(path), member.offset_data, member.size, member.name) for member in members]
    report = fill(refs, cache, decode=lambda encoded, name: decode_for(encoded, CONFIG, name=name), batch_size=32)
    assert report.unreadable == []
    expected = eval_transform(CONFIG)(decode_for(refs[7].read_bytes(), CONFIG))
    assert torch.equal(entries(cache, refs)[7], encode(expected[None])[0].half())
