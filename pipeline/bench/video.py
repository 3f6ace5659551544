"""Live captions of a video: from frame to caption, with all heads and with one of each kind."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from latentcap.batch.live import LiveCaption, caption_live, percentiles
from latentcap.bench.captioning import pictures
from latentcap.bench.timing import Section, Setting
from latentcap.captioner import Captioner
from latentcap.data.image import ImageRef
from latentcap.data.live import LiveVideo

SIZE, RATE, SHOTS = (640, 480), 30, 10  # shots of a second each
CAPTIONS = 40  # of each turn
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
        for captioner in captioners.values():
            captioner.caption([refs[0]])
        for turn in range(setting.repeats):
            for name, captioner in captioners.items():
                setting.say(f"video: turn {turn + 1} of {setting.repeats}, heads {name}")
                while len(found[name]) < (turn + 1) * count:
                    with LiveVideo(str(clip)) as video:
                        left = (turn + 1) * count - len(found[name])
                        found[name] += islice(caption_live(captioner, video), left)
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
    ratio = section.rows[0]["computing p50 ms"] / section.rows[1]["computing p50 ms"]
    said = "met" if ratio <= GOAL_RATIO else "not met"
    shown = "drawn scenes" if images is None else images.name
    section.notes = [
        f"All heads compute {ratio:.2f} times as long as one of each kind (p50); the goal of {GOAL_RATIO} is {said}.",
        "From frame to caption is from the moment a frame is there: what it waits while the one before is captioned "
        "counts. The goal is for two cores with AMX.",
        f"{setting.repeats} turns of {count} captions each. The clip pans over images ({shown}), one a second.",
    ]
    return [section]


def draw_clip(path: Path, refs: Iterable[ImageRef]) -> Path:
    """A film of slow pans over images, a second each."""
    import av

    width, height = SIZE
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for ref in refs:
            image = ref.open().resize((width + 2 * RATE, height))
            for step in range(RATE):
                frame = av.VideoFrame.from_image(image.crop((2 * step, 0, 2 * step + width, height)))
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
