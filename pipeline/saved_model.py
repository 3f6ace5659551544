"""A model with everything that captioning needs of it, written to a model folder and read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from latentcap.config import ModelConfig
from latentcap.data.batches.context import ContextFields, load_context_tokenizer
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.batches.views import ViewSlots
from latentcap.inference.engine import stored_backbone
from latentcap.model.caption_model import CaptionModel
from latentcap.model_folder import FORMAT_VERSION, read_config
from latentcap.model_tensors import check_finite, in_half, load_state, read_tensors
from latentcap.search.config import SearchConfig

CNN = "backbone."  # how the names of its tensors begin
CONTEXT_ENCODER = "context_encoder"  # sub-folder with the config and tokenizer of a transformers encoder


def read_settings(folder: Path) -> ModelConfig:
    """The settings of a folder's model; a transformers encoder that came with it is named by its place there."""
    settings = ModelConfig.from_dict(read_config(folder)["model"])
    if settings.context.encoder == CONTEXT_ENCODER:
        settings.context.encoder = str(folder / CONTEXT_ENCODER)
    return settings


def read_fields(folder: Path) -> ContextFields:
    """The numbers and categories that a folder's model reads."""
    fields = read_config(folder)["fields"]
    return ContextFields(
        numbers={name: (mean, std) for name, (mean, std) in fields["numbers"].items()},
        categories=fields["categories"],
    )


def read_slots(folder: Path) -> ViewSlots:
    """Where a folder's model has its views; those without names are in the order in which they are given."""
    config = read_config(folder)
    return ViewSlots(ModelConfig.from_dict(config["model"]).max_views, tuple(config.get("views", ())))


@dataclass
class SavedModel:
    """What a model folder holds.

    Attributes:
        model: with its weights.
        tokenizer: of captions.
        image: how images are fitted and normalised.
        slots: where views are put.
        search: how captions are searched for.
        context_tokenizer: of the context, where a transformers encoder reads that.
        state_findings: a chest X-ray draft gets a sentence for each finding of the label head that it does not state.
    """

    model: CaptionModel
    tokenizer: CaptionTokenizer
    image: ImageConfig
    slots: ViewSlots
    search: SearchConfig
    context_tokenizer: Any = None
    state_findings: bool = False

    @classmethod
    def read(cls, folder: Path, *, compiled: torch.dtype | None = None) -> SavedModel:
        """Read a model folder.

        ``compiled`` names a precision of which the CNN is not built where a compiled network of it is known.

        Raises UserError where it is not whole, not ours, or does not fit its own config.
        """
        config = read_config(folder)
        tokenizer = CaptionTokenizer.load(folder / "tokenizer.json")
        context_folder = folder / CONTEXT_ENCODER
        settings, state = read_settings(folder), read_tensors(folder / "model.safetensors")
        if settings.context.encoder == "none":  # folders of before 2026-11-27 have weights that nothing read
            state = {name: value for name, value in state.items() if not name.startswith("summarise_context.")}
        backbone = None
        if compiled is not None:
            own = {name.removeprefix(CNN): value for name, value in state.items() if name.startswith(CNN)}
            backbone = stored_backbone(settings.backbone, own, compiled)
        model = CaptionModel(
            settings,
            vocab_size=len(tokenizer),
            fields=read_fields(folder),
            labels=config.get("labels"),
            label_lists=config.get("label_lists"),
            load_weights=False,
            backbone=backbone,
        )
        load_state(model, state, folder)
        return cls(
            model,
            tokenizer,
            image=ImageConfig.from_dict(config["image"]),
            slots=read_slots(folder),
            search=SearchConfig.from_dict(config["search"]),
            context_tokenizer=load_context_tokenizer(context_folder) if context_folder.is_dir() else None,
            state_findings=config.get("state_findings", False),
        )

    def write(self, folder: Path, *, half: bool = True, card: str | None = None) -> None:
        """Write a model folder, as ``Captioner.save`` says. The config is written last: a folder with one is whole."""
        check_finite(self.model.state_dict(), "the model")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").unlink(missing_ok=True)
        state = {
            name: (in_half(value) if half else value).detach().cpu().contiguous()
            for name, value in self.model.state_dict().items()
        }
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        self.tokenizer.save(folder / "tokenizer.json")
        settings = self.model.config.to_dict()
        context = self.model.context
        if context is not None and context.config.encoder != "embedding":
            context.encoder.config.save_pretrained(folder / CONTEXT_ENCODER)
            self.context_tokenizer.save(str(folder / CONTEXT_ENCODER / "tokenizer.json"))
            settings["context"]["encoder"] = CONTEXT_ENCODER
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")
        fields = context.fields if context is not None else ContextFields()
        config = {
            "format": "latentcap",
            "version": FORMAT_VERSION,
            "model": settings,
            "fields": {"numbers": fields.numbers, "categories": fields.categories},
            **({"labels": self.model.labels.classes} if self.model.labels is not None else {}),
            **({"label_lists": lists} if (lists := getattr(self.model.labels, "lists", {})) else {}),
            **({"state_findings": True} if self.state_findings else {}),
            **({"views": list(self.slots.names)} if self.slots.names else {}),
            "image": self.image.to_dict(),
            "search": self.search.to_dict(),
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
