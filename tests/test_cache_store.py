"""The feature cache: what is read is what was written, whatever crashes or runs at the same time."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from latentcap.data.cache import digests
from latentcap.data.cache.store import FeatureCache, entry_key
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef

SHAPE = (3, 4)
fork = multiprocessing.get_context("fork")


def key(i: int, variant: int = 0) -> str:
    return entry_key(hashlib.sha256(str(i).encode()).hexdigest(), variant)


def row(i: int, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    """The entry that belongs to number ``i``; a torn or misplaced one would differ."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(i)).half()


def rows(*numbers: int) -> torch.Tensor:
    return torch.stack([row(i) for i in numbers])


def test_entries_come_back_in_the_order_asked(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, key="a", shape=SHAPE)
    assert cache.bytes_per_image == 24
    assert cache.missing([key(1), key(2)]) == [0, 1]
    with cache.writer() as writer:
        writer.add([key(1), key(2)], rows(1, 2).float())
        writer.add([key(1, variant=1)], rows(3))
        assert key(1) not in cache
    assert cache.missing([key(1), key(9), key(2), key(2, 1)]) == [1, 3]
    for reader in (cache, FeatureCache(tmp_path, key="a", shape=SHAPE), pickle.loads(pickle.dumps(cache))):
        assert torch.equal(reader.read([key(2), key(1, 1), key(1), key(2)]), rows(2, 3, 1, 2))
        assert reader.read([]).shape == (0, *SHAPE)
        assert len(reader) == 3


def test_an_open_reader_follows_a_writer_as_it_flushes(tmp_path: Path) -> None:
    cache, reader = (FeatureCache(tmp_path, key="a", shape=SHAPE) for _ in range(2))
    with cache.writer() as writer:
        for i in range(5):
            writer.add([key(i)], rows(i))
            writer.flush()
            assert key(i) in cache
            reader.refresh()
            assert torch.equal(reader.read([key(j) for j in range(i + 1)]), rows(*range(i + 1)))


def test_fingerprint_shape_and_type_separate(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, key="a", shape=SHAPE)
    with cache.writer() as writer:
        writer.add([key(1)], rows(1))
    others: list[dict[str, Any]] = [{"key": "b"}, {"shape": (4, 3)}, {"dtype": torch.float32}]
    for other in others:
        assert FeatureCache(tmp_path, **{"key": "a", "shape": SHAPE, **other}).missing([key(1)]) == [0]


def test_full_precision_and_clipping(tmp_path: Path) -> None:
    values = torch.tensor([[1e6, -1e6, 1 / 3]])
    for dtype, expected in ((torch.float32, values[0]), (torch.float16, torch.tensor([65504, -65504, 1 / 3]).half())):
        cache = FeatureCache(tmp_path, key="a", shape=(1, 3), dtype=dtype)
        with cache.writer() as writer:
            writer.add([key(1)], values[None])
        assert torch.equal(cache.read([key(1)])[0, 0], expected)


def test_wrong_shape_is_refused(tmp_path: Path) -> None:
    with FeatureCache(tmp_path, key="a", shape=SHAPE).writer() as writer, pytest.raises(ValueError, match="must be"):
        writer.add([key(1)], rows(1, 2))


@pytest.mark.parametrize("cut", [1, 30, 67, 70, 133])
def test_a_torn_tail_does_not_count(tmp_path: Path, cut: int) -> None:
    cache = FeatureCache(tmp_path, key="a", shape=SHAPE)
    with cache.writer() as writer:
        writer.add([key(i) for i in range(4)], rows(*range(4)))
    (keys_path,) = cache.path.glob("*.keys")
    os.truncate(keys_path, 4 * 67 - cut)
    torn = FeatureCache(tmp_path, key="a", shape=SHAPE)
    whole = 4 - -(-cut // 67)
    assert torn.missing([key(i) for i in range(4)]) == list(range(whole, 4))
    assert torch.equal(torn.read([key(i) for i in range(whole)]), rows(*range(whole)))
    with torn.writer() as writer:  # goes on behind the damage
        writer.add([key(3)], rows(3))
    assert torch.equal(FeatureCache(tmp_path, key="a", shape=SHAPE).read([key(3)]), rows(3))


def test_lost_rows_and_zeroed_lines_do_not_count(tmp_path: Path) -> None:
    """What a power cut can leave: lines whose rows never reached the disk, and blocks of zeros."""
    cache = FeatureCache(tmp_path, key="a", shape=SHAPE)
    with cache.writer() as writer:
        writer.add([key(i) for i in range(4)], rows(*range(4)))
    (rows_path,), (keys_path,) = cache.path.glob("*.rows"), cache.path.glob("*.keys")
    os.truncate(rows_path, 2 * 24 + 5)
    assert FeatureCache(tmp_path, key="a", shape=SHAPE).missing([key(i) for i in range(4)]) == [2, 3]
    keys_path.write_bytes(keys_path.read_bytes()[:67] + bytes(66) + b"\n")
    assert FeatureCache(tmp_path, key="a", shape=SHAPE).missing([key(i) for i in range(4)]) == [1, 2, 3]


def _write_for_ever(folder: Path, shape: tuple[int, int], start: int) -> None:
    torch.set_num_threads(1)
    cache = FeatureCache(folder, key="a", shape=shape)
    writer, i = cache.writer(), start
    while True:
        writer.add([key(i), key(i + 1)], torch.stack([row(i, shape), row(i + 1, shape)]))
        i += 2
        if i % 3 == 0:
            writer.flush()


def test_killed_writers_leave_only_whole_entries(tmp_path: Path) -> None:
    shape = (7, 501)  # no divisor of a page
    rng = random.Random(0)
    for attempt in range(8):
        process = fork.Process(target=_write_for_ever, args=(tmp_path, shape, 10_000 * attempt))
        process.start()
        time.sleep(0.05 + 0.1 * rng.random())
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    cache = FeatureCache(tmp_path, key="a", shape=shape)
    present = [i for attempt in range(8) for i in range(10_000 * attempt, 10_000 * attempt + 5000) if key(i) in cache]
    assert len(present) == len(cache) > 8
    for i in present:
        assert torch.equal(cache.read([key(i)])[0], row(i, shape))


def test_a_full_disk_is_explained_and_nothing_torn_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path, key="a", shape=SHAPE)
    writer = cache.writer()
    writer.add([key(1)], rows(1))
    writer.flush()
    writer.add([key(2)], rows(2))

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"No space left.*24 bytes more"):
            writer.flush()
    writer.add([key(3)], rows(3))
    writer.close()
    reader = FeatureCache(tmp_path, key="a", shape=SHAPE)
    assert reader.missing([key(1), key(2), key(3)]) == [1]
    assert torch.equal(reader.read([key(1), key(3)]), rows(1, 3))


def test_too_small_a_disk_is_told_before_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path, key="a", shape=(49, 1280))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 10**8))
    cache.require_space(100)
    with pytest.raises(UserError, match=r"needs 1.25 GB more for 10,000 entries of 125 kB.*100 MB left"):
        cache.require_space(10_000)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the feature cache in '.*file.*': .*Name a folder"):
        FeatureCache(tmp_path / "file" / "cache", key="a", shape=SHAPE)


def test_digests_are_of_the_content_and_unchanged_files_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -60.0)  # the change time is now, whatever one does
    file = tmp_path / "a.bin"
    file.write_bytes(b"0123456789")
    refs = [
        ImageRef(str(file)),
        ImageRef(str(file), offset=2, size=3),
        ImageRef("memory", data=b"234"),
        ImageRef(str(tmp_path / "none")),
    ]
    expected = [hashlib.sha256(x).hexdigest() for x in (b"0123456789", b"234", b"234")] + [None]
    cache = FeatureCache(tmp_path / "cache", key="a", shape=SHAPE)
    assert cache.digests(refs) == expected
    with open(cache.folder / "files.jsonl", "a") as log:
        log.write('["torn')
    read: list[str] = []
    monkeypatch.setattr(digests, "_digest", lambda ref: read.append(ref.path))
    assert FeatureCache(tmp_path / "cache", key="b", shape=SHAPE).digests(refs[:2]) == expected[:2]
    assert read == []
    monkeypatch.undo()
    file.write_bytes(b"01x3456789")
    changed = cache.digests(refs[:2])
    assert changed == [hashlib.sha256(x).hexdigest() for x in (b"01x3456789", b"x34")]


def test_a_file_just_written_is_not_trusted_to_stay(tmp_path: Path) -> None:
    """Two changes within one tick of the clock look alike, so a fresh file is read every time."""
    file = tmp_path / "a.bin"
    file.write_bytes(b"0123456789")
    cache = FeatureCache(tmp_path / "cache", key="a", shape=SHAPE)
    cache.digests([ImageRef(str(file))])
    assert not (cache.folder / "files.jsonl").exists()


def test_reading_a_batch_is_fast(tmp_path: Path) -> None:
    """64 entries of 49 x 1280 from memory: some milliseconds; the bound leaves room for a busy machine."""
    cache = FeatureCache(tmp_path, key="a", shape=(49, 1280))
    keys = [key(i) for i in range(128)]
    with cache.writer() as writer:
        for start in range(0, 128, 32):
            writer.add(keys[start : start + 32], torch.full((32, 49, 1280), float(start)))
    batch = random.Random(0).sample(keys, 64)
    cache.read(batch)
    times = []
    for _ in range(7):
        start_time = time.perf_counter()
        cache.read(batch)
        times.append(time.perf_counter() - start_time)
    assert min(times) < 0.05
