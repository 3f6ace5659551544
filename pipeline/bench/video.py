"""Live captions of a video: from frame to caption, with all heads and with one of each kind."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from latentcap.batch.live import LiveCaption, caption_live, percentiles
from latentcap.bench.captioning import pictures
from latentcap.bench.timing import Section, Setting, milliseconds, ratio
from latentcap.captioner import Captioner
from latentcap.data.image import ImageRef
from latentcap.data.live import LiveVideo

SIZE, RATE, SHOTS = (640, 480), 30, 10  # shots of a second each
CAPTIONS = 20  # of each turn
GOAL, GOAL_RATIO = 25.0, 1.15  # milliseconds, of two cores with AMX; all heads beside one of each kind
ONE = "1+1"


def bench(setting: Setting, *, folder: Path, images: Path | None) -> list[Section]:
    """Both budgets in turns, each on the newest frame of a clip that is played at its own speed."""
    heads = {"all": None, ONE: ONE}
    captioners = {
        name: Captioner.from_pretrained(folder, device=setting.device, heads=given) for name, given in heads.items()
    }
    count = 2 if setting.quick else CAPTIONS
    found: dict[str, list[LiveCaption]] = {name: [] for name in captioners}
    with pictures(images) as refs, TemporaryDirectory() as temporary:
        clip = draw_clip(Path(temporary, "clip.mp4"), refs[:SHOTS])
        frame = refs[0].open().resize(SIZE)
        for captioner in captioners.values():
            captioner.caption([frame])
        for turn in range(setting.repeats):
            for name, captioner in captioners.items():
                setting.say(f"video: turn {turn + 1} of {setting.repeats}, heads {name}")
                while len(found[name]) < (turn + 1) * count:
                    with LiveVideo(str(clip)) as video:
                        left = (turn + 1) * count - len(found[name])
                        found[name] += islice(caption_live(captioner, video), left)
        setting.say("video: processor time")
        alone = _alone(captioners, frame, setting, count)
    section = Section(f"Live captions at {SIZE[0]} x {SIZE[1]}, {RATE} frames a second")
    for name, captions in found.items():
        median, most = percentiles([caption.latency for caption in captions])
        computing = percentiles([caption.computing for caption in captions])
        section.rows.append(
            {
                "heads": name,
                "captions": len(captions),
                "frame to caption p50 ms": median,
                "p95 ms": most,
                "computing p50 ms": computing[0],
                "computing p95 ms": computing[1],
                "goal p50 ms": GOAL,
                "met": median <= GOAL,
            }
        )
    shown = "drawn scenes" if images is None else images.name
    section.notes = [
        "From frame to caption is from the moment a frame is there: what it waits while the one before is captioned "
        "counts. The goal is for two cores with AMX.",
        f"{setting.repeats} turns of {count} captions each. The clip pans over images ({shown}), one a second.",
    ]
    return [section, alone]


def _alone(captioners: Mapping[str, Captioner], frame: Image.Image, setting: Setting, count: int) -> Section:
    """Processor time of a caption, without a stream beside it, which what else the machine does hardly changes."""
    times: dict[str, list[float]] = {name: [] for name in captioners}
    for _ in range(setting.repeats):
        for name, captioner in captioners.items():
            start = time.process_time()
            for _ in range(count):
                captioner.caption([frame])
            times[name].append((time.process_time() - start) / count)
    section = Section("Processor time of a caption, all cores together")
    for name, seconds in times.items():
        slower = ratio(seconds, times[ONE])
        row = {"heads": name, "frames": setting.repeats * count, "processor ms": milliseconds(seconds)}
        section.rows.append(row | {f"beside {ONE}": slower, "goal": GOAL_RATIO, "met": slower.median <= GOAL_RATIO})
    section.notes = [f"{setting.repeats} turns of {count} frames each."]
    return section


def draw_clip(path: Path, refs: Iterable[ImageRef], *, size: tuple[int, int] = SIZE, rate: int = RATE) -> Path:
    """A film of slow pans over images, a second each."""
    import av

    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for ref in refs:
            image = ref.open().resize((width + 2 * rate, height))
            for step in range(rate):
                frame = av.VideoFrame.from_image(image.crop((2 * step, 0, 2 * step + width, height)))
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
