"""Runs that are killed at random moments: whether they end with every caption, once, in files that are whole."""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import tarfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from latentcap.batch.inputs import Inputs
from latentcap.batch.journal import Journal
from latentcap.batch.local_engine import LocalEngine
from latentcap.batch.outputs import make_output
from latentcap.batch.outputs.parts import ParquetParts
from latentcap.batch.run import Run
from latentcap.batch.run_folder import RunFolder
from latentcap.batch.settings import WorkerSettings
from latentcap.batch.worker import Worker
from latentcap.bench.captioning import pictures
from latentcap.bench.read_back import FORMATS, Told, read_back
from latentcap.bench.timing import Section, Setting
from latentcap.data.example import ImageRef

IMAGES, IN_TAR, SIDE = 12, 3, 96
BLOCK, PER_PART = 3, 4
KILLS = 6  # of one output, then it may end
SEARCH = {"beam_size": 1, "num_captions": 1, "max_length": 8}
WRITTEN_BY_HAND = "what was there"


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


def bench(setting: Setting, *, folder: Path, images: Path | None) -> list[Section]:
    """As many kills as fit into ``setting.seconds``, all formats in turn."""
    torch.set_num_threads(1)  # children are forks: no thread of ours may compute
    moments = random.Random(0)
    tallies = {kind: Tally() for kind in FORMATS}
    with pictures(images, count=IMAGES + IN_TAR) as refs, TemporaryDirectory() as temporary:
        photos = _photos(Path(temporary, "photos"), refs)
        settings = WorkerSettings(str(folder), engine="torch")
        engine = LocalEngine(settings, SEARCH, workers=1)
        engine.worker(list(Inputs([refs[0].path])))  # what the first image takes longer is not killed again and again
        killer = Killer(engine, photos, Path(temporary), moments)
        end = time.monotonic() + (0 if setting.quick else setting.seconds)
        for number, kind in enumerate(cycle(FORMATS)):
            if number >= len(FORMATS) and time.monotonic() > end:
                break
            killer(kind, tallies[kind])
            done = sum(tally.kills for tally in tallies.values())
            setting.say(f"kills: {done} so far, {kind}: {tallies[kind]}")
    return [_section(tallies, folder)]


def _section(tallies: dict[str, Tally], folder: Path) -> Section:
    section = Section("Runs killed at random moments (SIGKILL), then gone on with")
    names = ("outputs", "kills", "captions", "lost", "twice", "other", "torn")
    for kind, tally in tallies.items():
        section.rows.append({"format": kind} | {name: getattr(tally, name) for name in names})
    section.rows.append(
        {"format": "all"} | {name: sum(getattr(tally, name) for tally in tallies.values()) for name in names}
    )
    section.notes = [
        f"{folder.name}, {IMAGES} images in files, {IN_TAR} in a tar and a broken one; blocks of {BLOCK}, Parquet "
        f"parts of {PER_PART}, so that every format writes several times. An output is one captioning job: up to "
        f"{KILLS} runs are killed, each at a moment drawn evenly from the time that a whole run takes, and the last "
        "goes to its end.",
        "captions: those in the outputs at their end. lost, twice, other: missing there, there twice, or not what a "
        "run without a kill gives. torn: after a kill or at the end, a file that the format's usual reader cannot "
        "read. A text that was there before (txt, caption, --existing append) has to stay, once.",
    ]
    return section


class Killer:
    """Captions ``photos`` in children, which it kills."""

    def __init__(self, engine: LocalEngine, photos: Path, root: Path, moments: random.Random) -> None:
        self.engine, self.photos, self.root, self.moments = engine, photos, root, moments
        self._expected: dict[str, tuple[list[Told], list[str]]] = {}

    def __call__(self, kind: str, tally: Tally) -> None:
        """One output: kills, and a run to its end."""
        if kind not in self._expected:
            whole = Job(kind, self.root / f"{kind}-whole", self.photos)
            tally.duration = self._run(whole)
            self._expected[kind] = whole.captions(), whole.failed()
        expected, failed = self._expected[kind]
        job = Job(kind, self.root / f"{kind}-{tally.outputs}", self.photos)
        for _ in range(KILLS):
            if ended := self._run(job, self.moments.uniform(0, tally.duration)):
                tally.duration = ended
                break
            tally.kills += 1
            tally.torn += _count(job, [], Tally()) is None
        else:
            tally.duration = self._run(job)
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
    import pyarrow

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


class Job:
    """One output in a folder of its own."""

    def __init__(self, kind: str, place: Path, photos: Path) -> None:
        self.kind, self.place, self.photos = kind, place, photos
        self.path, self.folder = place / ("out.jsonl" if kind == "jsonl" else "out"), place / "out.run"
        place.mkdir()
        if kind == "embed":
            self.photos = place / "photos"
            shutil.copytree(photos, self.photos)
        if kind in ("txt", "caption"):
            self.path.mkdir()
            (self.path / f"000.{kind}").write_text(WRITTEN_BY_HAND + "\n")

    def run(self, engine: LocalEngine) -> None:
        output = make_output(None if self.kind == "embed" else self.path, self.folder, self.kind, existing="append")
        if isinstance(output, ParquetParts):
            output.per_part = PER_PART
        settings = replace(engine.settings, keep_images=output.needs_images, keep_ids=output.needs_ids)
        engine.worker = Worker(engine.worker.captioner, settings)
        with RunFolder(self.folder, output=str(output)) as folder:
            folder.begin({"format": self.kind}, empty=False)
            Run(Inputs([str(self.photos)]), output, folder, block=BLOCK, quiet=True)(engine.map)

    def captions(self) -> list[Told]:
        by_hand = (f"000.{self.kind}", WRITTEN_BY_HAND)
        return [told for told in read_back(self.kind, self.path, self.photos) if told != by_hand]

    def failed(self) -> list[str]:
        return [str(record["file"]) for record in Journal(self.folder / "errors.jsonl")]


def _photos(folder: Path, refs: Sequence[ImageRef]) -> Path:
    """Small copies in three kinds of files and in a tar, and one that is cut off."""
    folder.mkdir()
    copies = []
    for number, ref in enumerate(refs):
        image = ref.open()
        image.thumbnail((SIDE, SIDE))
        copies.append(folder / f"{number:03}{('.jpg', '.png', '.webp')[number % 3]}")
        image.save(copies[-1])
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for copy in copies[:IN_TAR]:
            archive.add(copy, f"9{copy.name}")
    (folder / "777broken.jpg").write_bytes(copies[0].read_bytes()[:200])
    return folder
