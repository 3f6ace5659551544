"""Captioning of whole folders: the program against its own backbone, the price of beams, memory at many files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from data.example import ImageRef
from data.transforms import load_image
from pipeline.batch.engine import Engine
from pipeline.batch.inputs import Input
from pipeline.batch.outputs import make_output
from pipeline.batch.run import Run
from pipeline.batch.run_folder import RunFolder
from pipeline.batch.worker import WorkerSettings
from pipeline.captioner import CPU_BATCH
from pipeline.folding import inference_copy
from scripts.bench_captioning import pictures
from scripts.bench_timing import Section, Setting, Spread, in_turns, ratio, type_name

IMAGES, DISTINCT = 128, 400
BEAMS = (1, 3, 5, 10)
FILES = (1_000, 10_000, 100_000)
MEASURED_SECONDS = 60  # of a run with the real model; then it is interrupted, as by Ctrl-C


def bench(setting: Setting, *, folder: Path, images: Path | None) -> list[Section]:
    """End-to-end rates, the cost of beams, and rate and memory at many files."""
    with pictures(images, count=8 if setting.quick else DISTINCT) as refs:
        shown = "drawn scenes" if images is None else images.name
        few = refs[: 8 if setting.quick else IMAGES]
        return [
            _against_backbone(setting, folder, few, shown),
            _beams(setting, folder, few),
            _many_files(setting, folder, refs),
        ]


def _against_backbone(setting: Setting, folder: Path, refs: Sequence[ImageRef], shown: str) -> Section:
    setting.say(f"batch: {len(refs)} files to captions, against the CNN alone")
    workers = os.cpu_count() or 1
    with TemporaryDirectory() as temporary:
        engines = {beams: _engine(setting, folder, beams, workers) for beams in (1, 3)}
        engine = engines[1]
        calls: dict[str, Callable[[], object]] = {"backbone": _backbone_alone(engine, refs)}
        for beams, one in engines.items():
            calls[f"beam {beams}"] = _program(one, refs, Path(temporary))
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
        f"{folder.name}, CNN in {type_name(engine.worker.captioner.dtype)}, {shown}. The CNN alone: images decoded and "
        f"normalised before, {CPU_BATCH} at a time in each of as many threads. The program: reading, decoding, CNN, "
        "search, and a journal that waits for the disk.",
    ]
    return section


def _engine(setting: Setting, folder: Path, beams: int, workers: int) -> Engine:
    settings = WorkerSettings(str(folder), device=str(setting.device))
    return Engine(settings, {"beam_size": beams, "num_captions": 1}, workers=workers)


def _backbone_alone(engine: Engine, refs: Sequence[ImageRef]) -> Callable[[], object]:
    captioner = engine.worker.captioner
    net = inference_copy(captioner.model.backbone, captioner.dtype)
    tensors = torch.stack([captioner.transform(load_image(ref, captioner.image)) for ref in refs])
    parts = tensors.split(CPU_BATCH if captioner.device.type == "cpu" else engine.batch_size)

    def forward(part: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(part.unsqueeze(1).to(captioner.device, captioner.dtype))

    def call() -> object:
        threads = torch.get_num_threads()
        share = max(1, threads // engine.workers)
        with ThreadPoolExecutor(engine.workers, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            list(pool.map(forward, parts))
        torch.set_num_threads(threads)
        return None

    return call


def _program(engine: Engine, refs: Sequence[ImageRef], folder: Path) -> Callable[[], object]:
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
    workers = os.cpu_count() or 1
    with TemporaryDirectory() as temporary:
        calls = {beams: _program(_engine(setting, folder, beams, workers), refs, Path(temporary)) for beams in BEAMS}
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
    """Each row in a fresh process; the folders are hard links of a few hundred images."""
    section = Section("Rate and memory of scripts/caption.py at many files, each in a fresh process")
    counts = (20, 40) if setting.quick else FILES
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        distinct = _copied(root / "distinct", refs)
        models = {"real": (folder, MEASURED_SECONDS), "smallest": (_small_model(root / "small"), None)}
        sources = {count: _linked(root / str(count), distinct, count) for count in counts}
        for name, (model, limit) in models.items():
            base = None
            for count, source in sources.items():
                setting.say(f"batch: {count:,} files, {name} model")
                found = _measure(source, model, root / f"{name}-{count}.jsonl", str(setting.device), limit)
                base = found["peak MB"] if base is None else base
                more = {f"MB over {counts[0]:,}": round(found["peak MB"] - base)}
                section.rows.append({"model": name, "files": count, **found, **more})
    section.notes = [
        f"real: {folder.name}, greedy, for {MEASURED_SECONDS} s after its first caption at most; smallest: "
        "timm's test_efficientnet at 64 px with random weights, to the last file, so that all the names go through. "
        "Goal: at most 200 MB more at 100,000 files than at 1,000, and the first caption within 4 s.",
        "first caption: from the command to the first line in the output, files in the system's cache.",
    ]
    return section


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


def _small_model(folder: Path) -> Path:
    from data.tokenizer import CaptionTokenizer
    from data.transforms import ImageConfig
    from pipeline.captioner import Captioner
    from pipeline.config import BackboneConfig, DecoderConfig, FusionConfig, ModelConfig
    from pipeline.model import CaptionModel

    tokenizer = CaptionTokenizer.train(["a few words of no meaning"])
    config = ModelConfig(
        backbone=BackboneConfig(name="test_efficientnet", weights="random", image_size=64),
        fusion=FusionConfig(visual_heads=1, text_heads=1),
        decoder=DecoderConfig(embed_dim=32, hidden_dim=32, max_length=4),
    )
    model = CaptionModel(config, vocab_size=len(tokenizer))
    Captioner(model, tokenizer=tokenizer, image=ImageConfig(size=(64, 64))).save(folder)
    return folder


def _measure(source: Path, model: Path, output: Path, device: str, limit: float | None) -> dict[str, float | int]:
    """Run the program; ``limit``: interrupt it so many seconds after its first caption."""
    more = ["--beam-size", "1", "--device", device, "--quiet"]
    script = Path(__file__).with_name("caption.py")
    command = [sys.executable, str(script), str(source), "--model", str(model), "--output", str(output), *more]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    first, interrupted, peak = None, False, 0
    while process.poll() is None:
        time.sleep(0.01)
        now, peak = time.perf_counter(), max(peak, _peak(process.pid))
        if first is None and output.is_file() and output.stat().st_size:
            first = now
        if first is not None and limit is not None and now - first > limit and not interrupted:
            interrupted = True
            process.send_signal(signal.SIGINT)
    if first is None or process.returncode not in (0, 130):
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    with open(output, "rb") as file:
        lines = sum(1 for _ in file)
    rate = lines / (time.perf_counter() - first)
    return {"first caption s": first - start, "images/s": rate, "peak MB": round(peak / 1024)}


def _peak(process: int) -> int:
    """The most memory that a running process has held, in KiB; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
