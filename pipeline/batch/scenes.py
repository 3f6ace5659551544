"""The scenes of a video: frames that look like the one that was captioned last are part of its scene."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import normalize

from latentcap.captioner import Caption, Captioner
from latentcap.data.video import Sample
from latentcap.search.config import SearchConfig

ALIKE = 0.9  # cosine of mean regions: photographs of different things stay below .75, a pan over a fifth above .91
FRAMES = 8  # through the CNN at once


@dataclass
class Scene:
    """Seconds from the start of the video, and their caption."""

    start: float
    end: float
    caption: Caption


def find_scenes(
    captioner: Captioner, frames: Iterator[Sample], context: str | None, search: SearchConfig
) -> Iterator[Scene]:
    """Scenes in order, without gaps. A frame begins one where the mean of its CNN regions is unlike that of the frame
    that was captioned last, and its caption another one. Raises OSError where the frames do.
    """
    scene: Scene | None = None
    last: Tensor | None = None
    while chunk := list(islice(frames, FRAMES)):
        views = [[captioner.transform(frame.image)] for frame in chunk]
        with torch.inference_mode():
            memory = captioner.encode(views, captioner.collate_context([context] * len(chunk)))
            assert memory.pooled is not None
            looks = normalize(memory.pooled.float(), dim=1)
            new = []
            for place, look in enumerate(looks):
                if last is None or float(look @ last) < ALIKE:
                    new.append(place)
                    last = look
            found = memory.select(torch.tensor(new, dtype=torch.long, device=captioner.device))
        captions = captioner.caption_memory(found, [views[place] for place in new], search) if new else []
        captioned = dict(zip(new, captions, strict=True))
        for place, frame in enumerate(chunk):
            caption = captioned.get(place)
            if scene is None or (caption is not None and caption.text != scene.caption.text):
                assert caption is not None, "the first frame is captioned"
                if scene is not None:
                    yield scene
                scene = Scene(frame.start, frame.end, caption)
            scene.end = frame.end
    if scene is not None:
        yield scene
