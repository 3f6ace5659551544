"""Captioning of whole folders: the program against its own backbone, the price of beams, memory at many files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from latentcap.batch.inputs import Input, Inputs
from latentcap.batch.local_engine import LocalEngine
from latentcap.batch.outputs import make_output
from latentcap.batch.run import Run
from latentcap.batch.run_folder import RunFolder
from latentcap.batch.settings import WorkerSettings
from latentcap.bench.captioning import pictures
from latentcap.bench.memory import kib
from latentcap.bench.timing import Section, Setting, Spread, in_turns, ratio, type_name
from latentcap.captioner import CPU_BATCH
from latentcap.data.batches.transforms import eval_transform, load_image
from latentcap.data.cores import available_cores
from latentcap.data.example import ImageRef
from latentcap.data.jsonl import to_line
from latentcap.inference.engine import inference_backbone

DISTINCT, FEW = 752, 128  # a whole number of blocks for each of two threads, so that no thread waits at the end
BEAMS = (1, 3, 5, 10)
FILES = (1_000, 10_000, 100_000)
MEASURED_SECONDS = 15  # of a run over many files; then it is interrupted, as by Ctrl-C
LEFT = 64  # files without a caption in a run that is resumed


def bench(setting: Setting, *, folder: Path, images: Path | None) -> list[Section]:
    """End-to-end rates, the cost of beams, and rate and memory at many files."""
    with pictures(images, count=8 if setting.quick else DISTINCT) as refs:
        shown = "drawn scenes" if images is None else images.name
        return [
            _against_backbone(setting, folder, refs, shown),
            _beams(setting, folder, refs[:FEW]),
            _many_files(setting, folder, refs),
        ]


def _against_backbone(setting: Setting, folder: Path, refs: Sequence[ImageRef], shown: str) -> Section:
    setting.say(f"batch: {len(refs)} files to captions, against the CNN alone")
    workers = available_cores()
    with TemporaryDirectory() as temporary:
        engines = {beams: engine_for(setting, folder, beams, workers) for beams in (1, 3)}
        alone, layout = _backbone_alone(setting, engines[1], refs)
        calls: dict[str, Callable[[], object]] = {"backbone": alone}
        for beams, one in engines.items():
            calls[f"beam {beams}"] = program(one, refs, Path(temporary))
        times = in_turns(calls, setting, warmup=1)
    section = Section(
        f"From files to a JSONL of captions: {len(refs)} images, {workers} threads, against the CNN alone"
    )
    goals = {"backbone": None, "beam 1": 0.9, "beam 3": 0.75}
    for name, values in times.items():
        section.rows.append(
            {
                "what": {"backbone": "CNN alone", "beam 1": "greedy"}.get(name, name),
                "images/s": Spread.of([len(refs) / value for value in values]),
                "of the CNN's rate": None if name == "backbone" else ratio(times["backbone"], values),
                "goal": goals[name],
            }
        )
    section.notes = [
        f"{folder.name}, CNN in {type_name(engines[1].worker.captioner.dtype)}, {shown}. The CNN alone: the folded "
        f"copy that captions too, images decoded and normalised before, {layout}, the fastest layout tried. The "
        "program: reading, decoding, CNN, search, and a journal that waits for the disk; blocks divide evenly among "
        "threads, as they all but do in a long run.",
    ]
    return section


def engine_for(setting: Setting, folder: Path, beams: int, workers: int) -> LocalEngine:
    settings = WorkerSettings(str(folder), device=str(setting.device))
    return LocalEngine(settings, {"beam_size": beams, "num_captions": 1}, workers=workers)


def _backbone_alone(
    setting: Setting, engine: LocalEngine, refs: Sequence[ImageRef]
) -> tuple[Callable[[], object], str]:
    """The network that captions, at its best: the layout of threads and batches that some images go through fastest.

    Returns a call that takes all images through it, and what the layout is.
    """
    captioner = engine.worker.captioner
    net = inference_backbone(captioner.model.backbone, captioner.dtype, engine=captioner.engine)
    images = [eval_transform(captioner.image)(load_image(ref, captioner.image)) for ref in refs]
    tensors = torch.stack(images)

    def forward(part: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(part.unsqueeze(1).to(captioner.device))

    def call(images: Tensor, workers: int, batch: int) -> object:
        threads = torch.get_num_threads()
        share = max(1, threads // workers)
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            for _ in pool.map(forward, images.split(batch)):
                pass
        torch.set_num_threads(threads)
        return None

    on_cpu = captioner.device.type == "cpu"
    layouts = {
        f"{batch} at a time in each of {workers} threads": (workers, batch)
        for workers in dict.fromkeys((engine.workers, 1))
        for batch in ((CPU_BATCH, 4 * CPU_BATCH) if on_cpu else (engine.batch_size,))
    }
    tries = {name: partial(call, tensors[:FEW], *layout) for name, layout in layouts.items()}
    times = in_turns(tries, replace(setting, repeats=2), warmup=1)
    best = min(layouts, key=lambda name: min(times[name]))
    return partial(call, tensors, *layouts[best]), best


def program(engine: LocalEngine, refs: Sequence[ImageRef], folder: Path) -> Callable[[], object]:
    """One run of the batch program, in this process, with the model loaded."""
    items = [Input(f"{n:06}", (ref,)) for n, ref in enumerate(refs)]
    turns = iter(range(1_000_000))

    def call() -> object:
        path = folder / f"{id(engine)}-{next(turns)}.jsonl"
        run = path.with_name(path.name + ".run")
        with RunFolder(run, output=str(path)) as run_folder:
            output = make_output(path, run, "jsonl")
            return Run(_Listed(items), output, run_folder, block=engine.block(len(items)), quiet=True)(engine.map)

    return call


class _Listed:
    """Inputs that are known already."""

    def __init__(self, items: Sequence[Input]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Input]:
        return iter(self.items)


def _beams(setting: Setting, folder: Path, refs: Sequence[ImageRef]) -> Section:
    setting.say(f"batch: beam {', '.join(map(str, BEAMS))}")
    workers = available_cores()
    with TemporaryDirectory() as temporary:
        calls = {beams: program(engine_for(setting, folder, beams, workers), refs, Path(temporary)) for beams in BEAMS}
        times = in_turns({str(beams): call for beams, call in calls.items()}, setting, warmup=1)
    section = Section("What beams cost, from files to captions")
    for beams in BEAMS:
        section.rows.append(
            {
                "beams": beams,
                "ms an image": Spread.of([1000 * value / len(refs) for value in times[str(beams)]]),
                "times greedy": ratio(times[str(beams)], times["1"]),
            }
        )
    return section


def _many_files(setting: Setting, folder: Path, refs: Sequence[ImageRef]) -> Section:
    """Each row in fresh processes; the folders are hard links of a few hundred images."""
    section = Section("What many files cost latentcap caption, greedy, each run in a fresh process")
    counts = (80, 120) if setting.quick else FILES
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        distinct = _copied(root / "distinct", refs)
        least: dict[str, float] = {}
        for count in counts:
            setting.say(f"batch: {count:,} files")
            source = _linked(root / str(count), distinct, count)
            fresh = _measure(source, folder, root / f"{count}.jsonl", str(setting.device))
            resumed = _resume(source, folder, root / f"{count}-resumed.jsonl", str(setting.device))
            least = least or resumed
            section.rows.append(
                {
                    "files": count,
                    "first caption s": fresh["first"],
                    "images/s": fresh["rate"],
                    "peak MB": round(fresh["peak"]),
                    "resumed: first caption s": resumed["first"],
                    "resumed: peak MB": round(resumed["peak"]),
                    f"MB over {counts[0]:,}": round(resumed["peak"] - least["peak"]),
                }
            )
    section.notes = [
        f"{folder.name}. All files are queued; a fresh run is interrupted {MEASURED_SECONDS} s after its first "
        "caption, for all of them would take hours. first caption: from the command to the first line in the output, "
        "files in the system's cache.",
        f"resumed: all but the last {LEFT} files have a caption from before, and the run goes to its end: every name "
        "is listed, counted, looked up and kept. Goals: at most 200 MB more at 100,000 files than at 1,000, and the "
        "first caption of a fresh run within 4 s.",
    ]
    return section


def _resume(source: Path, model: Path, output: Path, device: str) -> dict[str, float]:
    """A run that has little left to do, to its end."""
    with RunFolder(output.with_name(f"{output.name}.run"), output=str(output)) as run:
        run.update(status="stopped")
    with open(output, "wb") as file:
        names = [item.name for item in Inputs([str(source)])]
        for name in names[:-LEFT]:
            caption = "many buildings and green trees are in a school"
            file.write(to_line({"file": name, "caption": caption, "score": -2.0, "confidence": 0.5}))
    return _measure(source, model, output, device)


def _copied(folder: Path, refs: Sequence[ImageRef]) -> list[Path]:
    """The images on the disk that the links will be on."""
    folder.mkdir()
    copies = [folder / f"{index}.jpg" for index in range(len(refs))]
    for copy, ref in zip(copies, refs, strict=True):
        copy.write_bytes(ref.read_bytes())
    return copies


def _linked(folder: Path, images: Sequence[Path], count: int) -> Path:
    """``count`` names of the images, a thousand in a folder."""
    for index in range(count):
        target = folder / f"{index // 1000:03}" / f"{index:06}.jpg"
        if index % 1000 == 0:
            target.parent.mkdir(parents=True)
        os.link(images[index % len(images)], target)
    return folder


def _measure(source: Path, model: Path, output: Path, device: str) -> dict[str, float]:
    """Run the program, at most ``MEASURED_SECONDS`` after its first caption: when it came, images a second, peak MB."""
    more = ["--beam-size", "1", "--device", device, "--quiet"]
    command = [
        sys.executable,
        "-m",
        "latentcap.cli.main",
        "caption",
        str(source),
        "--model",
        str(model),
        "--output",
        str(output),
        *more,
    ]
    before = output.stat().st_size if output.is_file() else 0
    start = time.perf_counter()
    process = subprocess.Popen(command)
    first, interrupted, peak = None, False, 0
    while process.poll() is None:
        time.sleep(0.01)
        now, peak = time.perf_counter(), max(peak, kib(process.pid, "VmHWM"))
        if first is None and output.is_file() and output.stat().st_size > before:
            first = now
        if first is not None and now - first > MEASURED_SECONDS and not interrupted:
            interrupted = True
            process.send_signal(signal.SIGINT)
    if first is None or process.returncode not in (0, 130):
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    with open(output, "rb") as file:
        file.seek(before)
        lines = sum(1 for _ in file)
    return {"first": first - start, "rate": lines / (time.perf_counter() - first), "peak": peak / 1024}
