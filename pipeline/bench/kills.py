"""Runs that are killed at random moments: whether they end with every caption, once, in files that are whole."""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow
import torch

from latentcap.batch.local_engine import LocalEngine
from latentcap.batch.outputs import FORMATS
from latentcap.batch.settings import WorkerSettings
from latentcap.bench.captioning import pictures
from latentcap.bench.kill_jobs import BLOCK, EVERY, IN_TAR, PER_PART, SHOTS, Job, Sources, make_sources
from latentcap.bench.read_back import Told
from latentcap.bench.small_model import small_model
from latentcap.bench.timing import Section, Setting

IMAGES, FEW = 12, 7  # photos, and films or studies
KILLS = 6  # of one output, then it may end
SEARCH = {"beam_size": 1, "num_captions": 1, "max_length": 8}
LEAST = 0.3  # of a whole run's time: what one with nothing left to caption still has to do


@dataclass
class Tally:
    """What became of the outputs of one format."""

    outputs: int = 0
    kills: int = 0
    captions: int = 0
    lost: int = 0
    twice: int = 0
    other: int = 0
    torn: int = 0
    duration: float = 0.0


def bench(setting: Setting, *, images: Path | None) -> list[Section]:
    """As many kills as fit into ``setting.seconds``, all formats in turn."""
    torch.set_num_threads(1)  # children are forks: no thread of ours may compute
    moments = random.Random(0)
    tallies = {kind: Tally() for kind in FORMATS}
    with pictures(images, count=IMAGES) as refs, TemporaryDirectory() as temporary:
        root = Path(temporary)
        sources = make_sources(root, refs, few=FEW)
        engine = LocalEngine(WorkerSettings(str(small_model(root / "model")), engine="torch"), SEARCH, workers=1)
        killer = Killer(engine, sources, root, moments)
        end = time.monotonic() + (0 if setting.quick else setting.seconds)
        for number, kind in enumerate(cycle(FORMATS)):
            if number >= len(FORMATS) and time.monotonic() > end:
                break
            killer(kind, tallies[kind])
            done = sum(tally.kills for tally in tallies.values())
            setting.say(f"kills: {done} so far, {kind}: {tallies[kind]}")
    return [_section(tallies)]


def _section(tallies: dict[str, Tally]) -> Section:
    section = Section("Runs killed at random moments (SIGKILL), then gone on with")
    names = ("outputs", "kills", "captions", "lost", "twice", "other", "torn")
    for kind, tally in tallies.items():
        section.rows.append({"format": kind} | {name: getattr(tally, name) for name in names})
    section.rows.append(
        {"format": "all"} | {name: sum(getattr(tally, name) for tally in tallies.values()) for name in names}
    )
    section.notes = [
        f"An output is one captioning job: {IMAGES} images in files, {IN_TAR} in a tar and a broken one; for srt and "
        f"vtt {FEW} films of {SHOTS} seconds and a broken one, a frame every {EVERY:g} s; for fhir and dicom-sr {FEW} "
        f"DICOM studies and a broken one. Blocks of {BLOCK}, Parquet parts of {PER_PART}, so that every format writes "
        "several times. The model is a small one with random weights: the less time it takes, the more kills come "
        "while something is written.",
        f"Up to {KILLS} runs of an output are killed, each at a moment drawn evenly from the time that what is left "
        "may take, and the last goes to its end. A run that ends before its moment is the last.",
        "captions: those in the outputs at their end. lost, twice, other: missing there, there twice, or not what a "
        "run without a kill gives. torn: after a kill or at the end, a file that the format's usual reader cannot "
        "read. A text that was there before (txt, caption, --existing append) has to stay, once.",
    ]
    return section


class Killer:
    """Captions ``sources`` in children, which it kills."""

    def __init__(self, engine: LocalEngine, sources: Sources, root: Path, moments: random.Random) -> None:
        self.engine, self.sources, self.root, self.moments = engine, sources, root, moments
        self._expected: dict[str, tuple[list[Told], list[str]]] = {}

    def __call__(self, kind: str, tally: Tally) -> None:
        """One output: kills, and a run to its end."""
        if kind not in self._expected:
            whole = Job(kind, self.root / f"{kind}-whole", self.sources)
            whole.prepare(self.engine)
            self.engine.worker(list(whole.inputs()))  # what the first takes longer is not killed again and again
            tally.duration = self._run(whole)
            self._expected[kind] = whole.captions(), whole.failed()
        expected, failed = self._expected[kind]
        job = Job(kind, self.root / f"{kind}-{tally.outputs}", self.sources)
        for _ in range(KILLS):
            left = max(LEAST, 1 - job.done() / len(expected))
            if self._run(job, self.moments.uniform(0, left * tally.duration)):
                break
            tally.kills += 1
            tally.torn += _count(job, [], Tally()) is None
        else:
            self._run(job)
        tally.outputs += 1
        if _count(job, expected, tally) is None:
            tally.torn += 1
        tally.lost += len(set(failed) ^ set(job.failed()))
        shutil.rmtree(job.place)

    def _run(self, job: Job, seconds: float = math.inf) -> float:
        """One run in a child, killed after so many seconds. Returns how long it took, 0 where it was killed."""
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                job.run(self.engine)
                code = 0
            finally:
                os._exit(code)
        while (left := seconds - (time.monotonic() - start)) > 0:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                if status:
                    raise RuntimeError(f"a run that nobody killed ended with {os.waitstatus_to_exitcode(status)}")
                return time.monotonic() - start
            time.sleep(min(0.005, left))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return 0.0 if os.WIFSIGNALED(status) else seconds


def _count(job: Job, expected: Sequence[Told], tally: Tally) -> list[Told] | None:
    """Compare what an output holds; None where a file of it is torn."""
    try:
        found = job.captions()
    except (ValueError, KeyError, OSError, pyarrow.ArrowException):
        return None
    names = Counter(name for name, _ in found)
    wanted = dict(expected)
    tally.captions += len(found)
    tally.twice += sum(names.values()) - len(names)
    tally.lost += len(wanted.keys() - names.keys())
    tally.other += sum(wanted.get(name) != text for name, text in dict(found).items())
    return found
