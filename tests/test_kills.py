"""Runs that are killed: the benchmark finds nothing lost where nothing is, and says so where something is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from latentcap.batch.local_engine import LocalEngine
from latentcap.batch.settings import WorkerSettings
from latentcap.bench.kill_jobs import Job, make_sources
from latentcap.bench.kills import Killer, Tally, _count
from latentcap.bench.small_model import small_model
from latentcap.data.image import ImageRef
from tests.helpers import picture


@pytest.fixture
def killer(tmp_path: Path) -> Killer:
    """A tiny model and a few images."""
    torch.set_num_threads(1)
    model = small_model(tmp_path / "model")
    engine = LocalEngine(WorkerSettings(str(model), engine="torch"), {"beam_size": 1}, workers=1)
    for number in range(4):
        picture(40, 30, seed=number).save(tmp_path / f"{number}.png")
    refs = [ImageRef(str(tmp_path / f"{number}.png")) for number in range(4)]
    return Killer(engine, make_sources(tmp_path, refs, few=3), tmp_path, random.Random(1))


@pytest.mark.parametrize("kind", ["csv", "txt", "vtt", "fhir", "dicom-sr"])
def test_killed_runs_end_whole(kind: str, killer: Killer) -> None:
    for needed in {"vtt": ["av"], "fhir": ["pydicom"], "dicom-sr": ["pydicom"]}.get(kind, []):
        pytest.importorskip(needed)
    tally = Tally()
    killer(kind, tally)
    assert tally.outputs == 1
    assert tally.captions == (4 + 3 if kind in ("csv", "txt") else 3)  # three photos are in the tar, too
    assert tally.lost == tally.twice == tally.other == tally.torn == 0


def test_what_is_wrong_is_counted(killer: Killer) -> None:
    job = Job("jsonl", killer.root / "job", killer.sources)
    line = '{"file": "%s", "caption": "%s"}\n'
    job.path.write_text(line % ("a", "one") + line % ("a", "one") + line % ("b", "other") + '{"file": "c"')
    tally = Tally()
    assert _count(job, [("a", "one"), ("b", "two"), ("d", "four")], tally) is not None
    assert (tally.captions, tally.twice, tally.other, tally.lost) == (3, 1, 1, 1)
    job.path.write_text("torn\n")
    assert _count(job, [], tally) is None
