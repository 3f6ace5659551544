"""From JPEG files to captions: images per second against other captioners, latency, start-up, sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean
from tempfile import TemporaryDirectory

import torch
from torch import nn

from latentcap.bench.rivals import Rival, rivals
from latentcap.bench.timing import (
    Section,
    Setting,
    Spread,
    in_turns,
    milliseconds,
    ratio,
    seconds,
    type_name,
)
from latentcap.captioner import Captioner
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from latentcap.data.kinds import is_image
from latentcap.inference.precision import multiplies_bfloat16
from latentcap.model.caption_model import CaptionModel

BEAMS, IMAGES = 3, 32
BATCHES = {"cpu": 16, "cuda": 64}  # images at once
ON_A_GPU = 8  # times as many images

# Run by a fresh interpreter, as by a user: what a model costs before its first caption.
START = """
import json, sys, time
start = time.perf_counter()
from latentcap.captioner import Captioner
imported = time.perf_counter()
captioner = Captioner.from_pretrained(sys.argv[1], device=sys.argv[3])
loaded = time.perf_counter()
captioner.caption([sys.argv[2]])
print(json.dumps([imported - start, loaded - imported, time.perf_counter() - loaded]))
"""


@contextmanager
def pictures(source: Path | None, count: int = IMAGES) -> Iterator[list[ImageRef]]:
    """The first ``count`` images of a folder or tar, as files; drawn scenes, 224 pixels wide, where none is given.

    Raises UserError where there are no images.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if source is None:
            _draw_scenes(folder, count)
        elif source.is_file() and tarfile.is_tarfile(source):
            with tarfile.open(source) as archive:
                members = (member for member in archive if member.isfile() and is_image(member.name))
                for index, member in zip(range(count), members, strict=False):
                    file = archive.extractfile(member)
                    assert file is not None
                    (folder / f"{index:03}{Path(member.name).suffix}").write_bytes(file.read())
        elif source.is_dir():
            folder = source
        else:
            raise UserError(f"--images {source}: is no folder and no tar archive. Give one that holds images.")
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and is_image(path.name)]
        if not files:
            raise UserError(f"--images {source}: holds no images, such as .jpg or .png files.")
        yield [ImageRef(str(path)) for path in files[:count]]


def _draw_scenes(folder: Path, count: int) -> None:
    from latentcap.data.scenes import sample_scene
    from latentcap.data.scenes.paint import paint_scene

    for index in range(count):
        random = Random(index)
        scene = paint_scene(sample_scene(random, held_out=False), random, size=224)
        scene.save(folder / f"{index:03}.jpg", quality=90)


def bench(setting: Setting, *, folder: Path, images: Path | None) -> list[Section]:
    """Throughput, latency and start-up of the model in ``folder``."""
    captioner = Captioner.from_pretrained(folder, device=setting.device)
    many = IMAGES * (ON_A_GPU if setting.device.type == "cuda" else 1)
    with pictures(images, count=many) as refs:
        shown = "drawn scenes" if images is None else images.name
        throughput = _throughput(setting, captioner, refs, folder, shown)
        latency = _latency(setting, captioner, refs[:IMAGES])
        start = _start(setting, folder, refs[0])
    return [throughput, latency, start]


def _throughput(setting: Setting, captioner: Captioner, refs: list[ImageRef], folder: Path, shown: str) -> Section:
    refs, size = refs[:2] if setting.quick else refs, BATCHES[setting.device.type]
    setting.say(f"captioning: {len(refs)} images with {folder}, to see how long its captions are")
    lengths = [len(caption.tokens) for caption in captioner.caption(refs, beam_size=BEAMS)]
    tokens = min(max(1, round(mean(lengths))), captioner.search.max_length)
    builders = rivals(tiny=setting.quick)
    others: list[Rival] = []
    for index, build in enumerate(builders, start=1):
        setting.say(f"captioning: building rival {index}/{len(builders)} with random weights")
        torch.manual_seed(0)
        others.append(build())
    section = Section(f"Captioning: JPEG file to text, batch {size}, beam {BEAMS}")
    native = multiplies_bfloat16(setting.device)
    for dtype in (torch.float32, torch.bfloat16) if native else (torch.float32,):
        setting.say(f"captioning: {', '.join(['ours', *(rival.name for rival in others)])} in {type_name(dtype)}")
        section.rows += _at_precision(setting, folder, others, refs, tokens=tokens, dtype=dtype)
    section.notes = [
        f"Ours: {folder.name}, captions of {mean(lengths):.1f} tokens on average. Theirs: the architecture of each in "
        f"transformers {_version()} with random weights, which never end a caption, so they write exactly {tokens} "
        "tokens, the mean length of ours. Their ids are not turned into text.",
        f"{len(refs)} images ({shown}); theirs are timed on one batch of {min(size, len(refs))} a turn. Decoding, "
        "resizing and normalising are in the time, with Pillow and torch for all.",
        "bfloat16: the CNN and the matrix products of ours, which is what its programs use by default where the "
        "processor has it; the whole model of theirs, as model.to(torch.bfloat16) gives."
        if native
        else "bfloat16 is left out: this processor does not multiply it.",
    ]
    return section


def _at_precision(
    setting: Setting,
    folder: Path,
    others: list[Rival],
    refs: list[ImageRef],
    *,
    tokens: int,
    dtype: torch.dtype,
) -> list[dict[str, object]]:
    ours = Captioner.from_pretrained(folder, device=setting.device, dtype=dtype)
    size = BATCHES[setting.device.type]
    batch = refs[:size]
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.caption(refs, beam_size=BEAMS, num_captions=1, batch_size=size)
    }
    for rival in others:
        rival.model.to(setting.device, dtype)

        def call(rival: Rival = rival) -> object:
            return rival.caption(batch, beams=BEAMS, tokens=tokens)

        calls[rival.name] = call
    # A turn of the four takes tens of seconds on a small machine, so few turns must do.
    times = in_turns(calls, replace(setting, repeats=min(3, setting.repeats)), warmup=1)
    each = {"ours": [value / len(refs) for value in times.pop("ours")]}
    each |= {name: [value / len(batch) for value in values] for name, values in times.items()}
    rows: list[dict[str, object]] = [
        _row("ours", ours.model, ours.image.size[0], dtype, each["ours"], faster=None, goal=None)
    ]
    for rival in others:
        faster = ratio(each[rival.name], each["ours"])
        rows.append(_row(rival.name, rival.model, rival.image_size, dtype, each[rival.name], faster, rival.goal))
    return rows


def _row(
    name: str,
    model: nn.Module,
    pixels: int,
    dtype: torch.dtype,
    times: list[float],
    faster: Spread | None,
    goal: float | None,
) -> dict[str, object]:
    parameters = parameters_of(model)
    return {
        "model": name,
        "parameters": parameters,
        "MB at 16 bit": round(2 * parameters / 1e6),
        "pixels": pixels,
        "precision": type_name(dtype),
        "images/s": Spread.of([1 / value for value in times]),
        "ours is faster": faster,
        "goal": goal,
        "met": None if faster is None or goal is None else faster.median >= goal,
    }


def _latency(setting: Setting, captioner: Captioner, refs: list[ImageRef]) -> Section:
    setting.say("captioning: latency of one image")
    section = Section("One image at a time, JPEG file to text")
    for beams in (1, BEAMS):
        times = []
        for index, ref in enumerate(refs[:1] * 2 + refs):  # the first two warm up
            call = _call(captioner, ref, beams)
            duration = seconds(call, device=setting.device)
            times += [duration] if index >= 2 else []
        section.rows.append(
            {
                "search": "greedy" if beams == 1 else f"beam {beams}",
                "precision of the CNN": type_name(captioner.dtype),
                "ms an image": milliseconds(times),
            }
        )
    section.notes = [f"Median of {len(refs)} images, in brackets the fastest and the slowest."]
    return section


def _call(captioner: Captioner, ref: ImageRef, beams: int) -> Callable[[], object]:
    return lambda: captioner.caption([ref], beam_size=beams, num_captions=1)


def _start(setting: Setting, folder: Path, ref: ImageRef) -> Section:
    """Each time in a fresh interpreter, with the files in the system's cache after a first time that is not counted."""
    repeats = 1 if setting.quick else min(3, setting.repeats)
    measured = []
    for index in range(repeats + 1):
        setting.say(f"captioning: start-up {index}/{repeats}" if index else "captioning: start-up, warming up")
        start = time.perf_counter()
        command = [sys.executable, "-c", START, str(folder.resolve()), ref.path, str(setting.device)]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(
            command,
            env={**os.environ, **threads},
            capture_output=True,
            text=True,
            check=True,
        )
        parts = json.loads(done.stdout.splitlines()[-1])
        measured.append([*parts, time.perf_counter() - start])
    columns = [Spread.of(values) for values in zip(*measured[1:], strict=True)]
    section = Section("From the command to the first caption, in a fresh process")
    names = ("imports s", "from_pretrained s", "first caption s", "whole process s")
    section.rows = [dict(zip(names, columns, strict=True))]
    size = sum((folder / name).stat().st_size for name in ("config.json", "model.safetensors", "tokenizer.json"))
    section.notes = [f"The model folder {folder.name} has {size / 1e6:.1f} MB."]
    return section


def _version() -> str:
    import transformers

    return transformers.__version__


def parameters_of(model: nn.Module) -> int:
    """How many a model has; those of a CNN that an engine runs are not in the model, but count."""
    held = list(model.parameters())
    if isinstance(model, CaptionModel):
        held += model.backbone.built.parameters()
    return sum(parameter.numel() for parameter in {id(parameter): parameter for parameter in held}.values())
