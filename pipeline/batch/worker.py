"""From inputs to records: read, decode, caption; whatever goes wrong with an image is in its own record."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from latentcap.batch.image_file import check_file
from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record
from latentcap.batch.scenes import find_scenes
from latentcap.batch.settings import WorkerSettings
from latentcap.captioner import Caption, Captioner
from latentcap.data.batches.transforms import load_image
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from latentcap.data.readers.medical.headings import under_headings
from latentcap.data.video import samples
from latentcap.inference.precision import dtype_named

DIGITS = 4  # of scores and confidences


class Worker:
    """Captions blocks of inputs. Threads may share one.

    ``settings`` say the search, by default the model's own, and the texts around each caption. A record is
    ``{"file", "caption", "score", "confidence"}``, with ``"alternatives"`` where more than one caption was asked for,
    ``"labels"`` where the model has a label head, ``"images"`` of a DICOM study, and ``"context"`` where there was one;
    or ``{"file", "error"}``. With ``words`` each caption has ``"words"`` too, [word, probability] of each; with
    ``keep_images`` ``"_images"``, where its views are, for outputs that need the images again; with ``keep_ids``
    ``"_id"``, a table's; with ``sections`` ``"sections"``, the sentences of the caption by heading.
    """

    def __init__(self, captioner: Captioner, settings: WorkerSettings) -> None:
        self.captioner, self.settings = captioner, settings
        self.search = settings.search or captioner.search
        self.most = 1 << 30  # images that fit into memory at once, as far as is known

    @classmethod
    def load(cls, settings: WorkerSettings) -> Self:
        """A worker with the model that the settings name. Raises UserError where it cannot be loaded."""
        dtype = dtype_named(settings.dtype)
        captioner = Captioner.from_pretrained(
            settings.model, device=settings.device, dtype=dtype, heads=settings.heads, engine=settings.engine
        )
        return cls(captioner, settings)

    def __call__(self, block: Sequence[Input]) -> list[Record]:
        """One record for each input, in order."""
        found: dict[int, Record] = {}
        ready: list[tuple[int, list[Tensor]]] = []
        for place, item in enumerate(block):
            try:
                if item.video:
                    found[place] = self._film(item)
                    continue
                ready.append((place, self._read(item)))
            except OSError as error:
                found[place] = failure(item, error)
        while ready:
            part, ready = ready[: self.most], ready[self.most :]
            items = [block[place] for place, _ in part]
            captions = self._caption(items, [views for _, views in part])
            for (place, _), item, caption in zip(part, items, captions, strict=True):
                found[place] = self._record(item, caption) if isinstance(caption, Caption) else failure(item, caption)
        return [found[place] for place in range(len(block))]

    def _read(self, item: Input) -> list[Tensor]:
        """The views of an input, each (C, H, W). Raises OSError for what cannot be read or decoded."""
        if item.error:
            raise OSError(item.error)
        most = self.captioner.model.config.max_views
        if len(item.images) > most:
            raise OSError(f"{len(item.images)} views, where the model was trained with at most {most}")
        views = []
        for image in item.images:
            try:
                views.append(self._view(image))
            except OSError as error:
                if len(item.images) == 1:
                    raise
                raise OSError(f"its image {os.path.basename(str(image))}: {error.strerror or error}") from None
        return views

    def _view(self, image: ImageRef) -> Tensor:
        check_file(image)
        try:
            return self.captioner.transform(load_image(image, self.captioner.image))
        except MemoryError:
            raise OSError("decoded, it does not fit into memory") from None

    def _film(self, item: Input) -> Record:
        """The record of a video: its scenes as ``"segments"``, and the caption that stands longest."""
        if item.error:
            raise OSError(item.error)
        check_file(item.images[0], most=math.inf)
        frames = samples(item.images[0], self.settings.every)
        try:
            scenes = list(find_scenes(self.captioner, frames, item.context, self.search))
        except (OSError, UserError):
            raise
        except Exception as error:
            return failure(item, error.with_traceback(None))
        longest = max(scenes, key=lambda scene: scene.end - scene.start)
        segments = [
            {"start": round(scene.start, 3), "end": round(scene.end, 3), **self._entry(scene.caption, item.context)}
            for scene in scenes
        ]
        return {**self._record(item, longest.caption), "segments": segments}

    def _caption(self, items: Sequence[Input], views: list[list[Tensor]]) -> list[Caption | Exception]:
        """Captions of a batch; where it fails, of its halves, down to the one image that it fails with."""
        try:
            context = self.captioner.collate_context(
                [item.context for item in items],
                numbers=[item.numbers for item in items],
                categories=[item.categories for item in items],
            )
            named = [item.views for item in items]
            return list(self.captioner.caption_tensors(views, context, self.search, named=named))
        except UserError:
            raise
        except Exception as error:
            if len(items) == 1:
                return [error.with_traceback(None)]
            problem = error.with_traceback(None)
        half = (len(items) + 1) // 2
        if is_out_of_memory(problem):
            self.most = min(self.most, half)
            if self.captioner.device.type == "cuda":
                torch.cuda.empty_cache()
        parts = self._caption(items[:half], views[:half]) + self._caption(items[half:], views[half:])
        if not any(isinstance(part, Caption) for part in parts):
            raise problem  # not one image is captioned: the fault is not an image's
        return parts

    def _record(self, item: Input, caption: Caption) -> Record:
        record: Record = {"file": item.name, **self._entry(caption, item.context)}
        if caption.alternatives:
            record["alternatives"] = [self._entry(other, item.context) for other in caption.alternatives]
        if caption.labels:
            record["labels"] = caption.labels
        if self.settings.sections:
            record["sections"] = under_headings(caption.text)
        if item.study:
            record["images"] = list(map(str, item.images))
        if item.id and self.settings.keep_ids:
            record["_id"] = item.id
        if item.context:
            record["context"] = item.context
        if self.settings.keep_images:
            record["_images"] = [list(image.place) for image in item.images]
            if item.study:
                record["_study"] = item.study
        return record

    def _entry(self, caption: Caption, context: str | None) -> Record:
        entry: Record = {
            "caption": self.settings.wording(caption.text, context),
            "score": round(caption.score, DIGITS),
            "confidence": round(caption.confidence, DIGITS),
        }
        if self.settings.words:
            entry["words"] = [[word, round(probability, DIGITS)] for word, probability in caption.words]
        return entry


def failure(item: Input, error: Exception) -> Record:
    """The record of an input that has no caption."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
    elif is_out_of_memory(error):
        reason = "out of memory, even with this image alone"
    else:
        reason = f"{type(error).__name__}: {error}"
    return {"file": item.name, "error": reason}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the processor or of a GPU."""
    reason = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in reason or "can't allocate memory" in reason)
    )
