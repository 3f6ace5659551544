"""What a process that captions loads and writes, as plain values, known before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field

from latentcap.batch.wording import Wording
from latentcap.search.config import SearchConfig

BATCH = 128  # images at once by default: a step of the search reads all of the decoder, for one image or for many


@dataclass(frozen=True)
class WorkerSettings:
    """Everything that a process needs to caption.

    ``device`` is cpu, cuda, cuda:1, mps; ``heads`` a budget such as "1+1", None for all;
    ``engine`` what runs the CNN, None the fastest that is installed; ``every`` the seconds between frames of videos.
    """

    model: str
    device: str = "cpu"
    dtype: str | None = None
    heads: str | None = None
    engine: str | None = None
    search: SearchConfig | None = None
    wording: Wording = field(default_factory=Wording)
    words: bool = False
    keep_images: bool = False
    keep_ids: bool = False
    every: float = 0.0
    sections: bool = False
