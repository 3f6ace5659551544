"""The predictor: images in, captions out."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from latentcap.caption import Caption, caption_of
from latentcap.data.batches.context import ContextBatch, ContextCollator, ContextFields
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.batches.transforms import fit_image, load_image, normalise
from latentcap.data.batches.views import ViewSlots, in_slots
from latentcap.data.errors import UserError
from latentcap.data.image import ImageRef, to_rgb
from latentcap.data.readers.medical.composed import state
from latentcap.in_the_box import find_model
from latentcap.inference.device import usable_device
from latentcap.inference.engine import choose_computing
from latentcap.inference.folded_model import FoldedModel
from latentcap.model.caption_model import CaptionModel
from latentcap.model.fusion import Memory
from latentcap.model.prune import parse_budget, set_budget
from latentcap.saved_model import SavedModel
from latentcap.search.captions import search_captions
from latentcap.search.config import SearchConfig
from latentcap.search.wording import resolve

CPU_BATCH = 8  # images that a CPU takes through the CNN at once: more do not stay in its cache

__all__ = ["Caption", "Captioner"]

ImageLike: TypeAlias = Image.Image | str | Path | ImageRef


class Captioner:
    """A trained model with everything needed to caption.

    >>> captioner = Captioner.from_pretrained("photos")
    >>> captioner.caption(["airport.jpg"])[0].text
    """

    def __init__(
        self,
        model: CaptionModel,
        *,
        tokenizer: CaptionTokenizer,
        image: ImageConfig,
        slots: ViewSlots | None = None,
        search: SearchConfig | None = None,
        context_tokenizer: Any = None,
        state_findings: bool = False,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.image = image
        self.slots = slots or ViewSlots(model.config.max_views)
        self.search = search or SearchConfig(max_length=model.config.decoder.max_length)
        self.transform = partial(fit_image, config=image)
        self.context_tokenizer = context_tokenizer
        self.state_findings = state_findings
        fields = model.context.fields if model.context else ContextFields()
        self.collate_context = ContextCollator(
            tokenizer=context_tokenizer or tokenizer,
            fields=fields,
            max_tokens=model.config.context.max_tokens,
            enabled=model.context is not None,
        )
        self.dtype = torch.float32
        self.engine: str | None = None  # what runs the CNN: the fastest that is installed
        self._folded = FoldedModel(self.model)  # several threads may caption with one captioner

    @property
    def device(self) -> torch.device:
        return self.model.decoder.bias.device

    # Folders -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        heads: str | None = None,
        engine: str | None = None,
        revision: str | None = None,
    ) -> Captioner:
        """Load a model folder.

        Args:
            folder: its path, the name of a model in the box such as "photos", or "user/name" on the hub; a model folder
                of that name comes first.
            dtype: what the CNN and the products of the decoder are computed in; by default bfloat16 where the processor
                has it, float32 by "onnxruntime".
            heads: a head budget such as "1+1": only the first visual + text heads are kept (all, by default).
            engine: what runs the CNN, "openvino", "onnxruntime" or "torch"; by default the fastest that is installed.
            revision: of a repository on the hub: a branch, a tag or a commit.

        Raises:
            UserError: the folder lacks a file, comes from another version, does not fit its own config, or has fewer
                heads; the device or the engine is not there.
        """
        device = usable_device(device)
        engine, dtype = choose_computing(engine, device, dtype)
        saved = SavedModel.read(find_model(folder, revision), compiled=dtype if engine == "openvino" else None)
        if heads is not None:
            set_budget(saved.model, *parse_budget(heads))
        captioner = cls(
            saved.model.to(device),
            tokenizer=saved.tokenizer,
            image=saved.image,
            slots=saved.slots,
            search=saved.search,
            context_tokenizer=saved.context_tokenizer,
            state_findings=saved.state_findings,
        )
        captioner.dtype, captioner.engine = dtype, engine
        return captioner

    def save(self, folder: str | Path, *, half: bool = True, card: str | None = None) -> None:
        """Write the model folder: ``config.json``, ``model.safetensors`` (half precision by default), tokenizer.

        Tensors with values that half precision cannot hold, such as large batch statistics, stay in float32.

        ``README.md``, the model card, is written where ``card`` gives its text. The config is written last: a folder
        with one is whole.
        """
        saved = SavedModel(
            self.model,
            self.tokenizer,
            self.image,
            self.slots,
            self.search,
            self.context_tokenizer,
            self.state_findings,
        )
        saved.write(Path(folder), half=half, card=card)

    # Captioning --------------------------------------------------------------------------------------------------

    def caption(
        self,
        images: Sequence[ImageLike | Sequence[ImageLike]],
        context: Sequence[str | None] | str | None = None,
        *,
        numbers: Sequence[Mapping[str, float | None]] | None = None,
        categories: Sequence[Mapping[str, str | None]] | None = None,
        views: Sequence[Sequence[str]] | None = None,
        batch_size: int = 16,
        return_attention: bool = False,
        **search: Any,
    ) -> list[Caption]:
        """Caption images.

        Args:
            images: PIL images or paths; a sequence of them in place of one is several views of one example.
            context: what is known of each image, or one text for all.
            numbers, categories: named fields of each image; a field that is absent or None is missing.
            views: the names of each example's views (``["lateral"]``), where the model was trained with named ones.
            batch_size: images that go through the CNN at once.
            return_attention: fill ``visual_attention`` and ``text_attention``.
            search: settings of :class:`SearchConfig` (beam_size, max_length, ...) that differ from the model's own.

        Raises:
            UserError: for a setting or context field that the model does not know.
            OSError: for a path that holds no readable image.
        """
        config = self.search_config(**search)
        if isinstance(images, str | Path | Image.Image | ImageRef):
            raise UserError("caption() takes a list of images. For one image: caption([image]).")
        contexts = [context] * len(images) if isinstance(context, str) or context is None else list(context)
        for name, values in (
            ("context", contexts),
            ("numbers", numbers),
            ("categories", categories),
            ("views", views),
        ):
            if values is not None and len(values) != len(images):
                raise UserError(f"{name} has {len(values)} entries for {len(images)} images: give one for each image.")
        captions: list[Caption] = []
        for start in range(0, len(images), batch_size):
            window = slice(start, start + batch_size)
            tensors = [[self._tensor(view) for view in _views(image)] for image in images[window]]
            batch = self.collate_context(
                contexts[window],
                numbers=None if numbers is None else numbers[window],
                categories=None if categories is None else categories[window],
            )
            named = None if views is None else views[window]
            captions += self.caption_tensors(tensors, batch, config, named=named, return_attention=return_attention)
        return captions

    def search_config(self, **changes: Any) -> SearchConfig:
        """The model's own search settings with some changed, for which see :class:`SearchConfig`.

        Raises UserError for settings that do not exist or contradict each other, and for required words that the model
        does not know.
        """
        config = self.search.changed(**changes)
        resolve(config, self.tokenizer)
        return config

    def caption_tensors(
        self,
        views: list[list[Tensor]],
        context: ContextBatch,
        config: SearchConfig,
        *,
        named: Sequence[Sequence[str]] | None = None,
        return_attention: bool = False,
    ) -> list[Caption]:
        """Caption transformed images: for each example its views, each what ``transform`` gives, bytes (3, H, W).

        ``named`` are the views' names, empty for an example where nobody knows them.
        """
        with torch.inference_mode():
            memory = self.encode(views, context, named=named)
        return self.caption_memory(memory, views, config, return_attention=return_attention)

    def caption_memory(
        self, memory: Memory, views: list[list[Tensor]], config: SearchConfig, *, return_attention: bool = False
    ) -> list[Caption]:
        """Captions of what :meth:`encode` made of ``views``."""
        seeds = [pixel_seed(example) for example in views] if config.sample else None
        with torch.inference_mode():
            found = search_captions(
                self.model,
                memory,
                self.tokenizer,
                config,
                decoder=self._folded.decoder(self.dtype),
                seeds=seeds,
                keep_attention=return_attention,
            )
            grid = self.model.backbone.grid
            captions = [caption_of(hypotheses, self.tokenizer, grid=grid) for hypotheses in found]
            if self.model.labels is not None and memory.labels is not None:
                for caption, guess in zip(captions, self.model.labels.predict(memory.labels), strict=True):
                    caption.labels = {name: value for name, (value, _) in guess.items()}
                    caption.label_scores = {name: round(share, 4) for name, (_, share) in guess.items()}
                    for each in (caption, *caption.alternatives):
                        each.text = self.with_findings(each.text, caption.labels)
        return captions

    def with_findings(self, draft: str, labels: Mapping[str, str]) -> str:
        """A draft that states what the label head predicts, where the model folder says so."""
        return state(draft, labels) if self.state_findings else draft

    def encode(
        self,
        views: list[list[Tensor]],
        context: ContextBatch | None,
        *,
        named: Sequence[Sequence[str]] | None = None,
    ) -> Memory:
        """Views and context to the memory that words are written from. The CNN runs on existing views only."""
        named = named or [()] * len(views)
        slots = [self.slots.place(len(example), names) for example, names in zip(views, named, strict=True)]
        most = 1 + max(slot for row in slots for slot in row)
        context = None if context is None else context.to(self.device)
        size = max(1, CPU_BATCH // most) if self.device.type == "cpu" else len(views)
        parts = []
        for start in range(0, len(views), size):
            rows = slice(start, start + size)
            regions, mask = self._regions(views[rows], slots[rows], most)
            known = None if context is None else context.rows(rows)
            parts.append(self.model.encode(regions=regions, view_mask=mask, context=known))
        return Memory.joined(parts)

    def _regions(self, views: list[list[Tensor]], slots: list[list[int]], most: int) -> tuple[Tensor, Tensor]:
        """Regions (B, most * cells, C), 0 for views that do not exist, and which exist, (B, most)."""
        backbone = self._folded.backbone(self.dtype, self.engine)
        pixels = torch.stack([view for example in views for view in example]).to(self.device)
        regions = backbone(normalise(pixels, self.image).unsqueeze(1))  # (sum of views, cells, C)
        placed, mask = in_slots(regions, slots, size=most)
        return placed.flatten(1, 2), mask

    def _tensor(self, image: ImageLike) -> Tensor:
        if isinstance(image, Image.Image):
            return self.transform(to_rgb(image))
        if not isinstance(image, str | os.PathLike | ImageRef):
            raise UserError(
                f"an image is a path or a PIL image, not {type(image).__name__}. An array: Image.fromarray(array); the "
                "bytes of a file: Image.open(io.BytesIO(data))."
            )
        ref = image if isinstance(image, ImageRef) else ImageRef(str(image))
        return self.transform(load_image(ref, self.image))


def pixel_seed(views: Sequence[Tensor]) -> int:
    """A number of what the views show: with it an image is sampled alike in any batch, place and run."""
    digest = 0
    for view in views:
        digest = zlib.crc32(view.cpu().contiguous().numpy().data, digest)
    return digest


def _views(image: Any) -> list[ImageLike]:
    return list(image) if isinstance(image, list | tuple) else [image]
