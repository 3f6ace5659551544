"""A model as two ONNX graphs: what is computed once for each image, and one word for all beams.

Dimension letters: see ``latent_attention.py``; V views, M context positions, L tokens of context, N regions, F numbers,
F' categories, E embedding size, Y words of the vocabulary.
"""

from __future__ import annotations

import copy
import math
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from latentcap.data.batches.context import ContextBatch
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.transforms import normalise
from latentcap.export.weights import with_plain_weights
from latentcap.inference.folded_backbone import inference_copy
from latentcap.inference.folded_decoder import FoldedDecoder, FoldedState
from latentcap.model.caption_model import CaptionModel
from latentcap.model.fusion import Memory

OPSET = 17
CONTEXT_INPUTS = ("tokens", "token_mask", "numbers", "categories")
STATES = ("asking", "asking_cell", "speaking", "speaking_cell", "latents")
AXES = {
    "pixels": {0: "batch", 1: "views"},
    "view_mask": {0: "batch", 1: "views"},
    "tokens": {0: "batch", 1: "context_tokens"},
    "token_mask": {0: "batch", 1: "context_tokens"},
    "numbers": {0: "batch"},
    "categories": {0: "batch"},
    "visual": {0: "batch", 1: "regions"},
    "visual_mask": {0: "batch", 1: "regions"},
    "context": {0: "batch", 1: "context"},
    "context_mask": {0: "batch", 1: "context"},
    "visual_keys": {0: "batch", 1: "regions"},
    "context_keys": {0: "batch", 1: "context"},
    "summary": {0: "batch"},
    "word": {0: "batch", 1: "beams"},
    "parent": {0: "batch", 1: "beams"},
    "log_probs": {0: "batch", 1: "beams"},
    **{name: {0: "batch", 1: "parents"} for name in STATES[:-1]},
    "latents": {0: "batch", 1: "parents", 2: "written"},
    **{f"next_{name}": {0: "batch", 1: "beams"} for name in STATES[:-1]},
    "next_latents": {0: "batch", 1: "beams", 2: "so_far"},
}


class EncodeGraph(nn.Module):
    """Bytes and context to the memory that words are written from.

    Inputs: ``pixels`` (B, V, C, H, W) bytes; ``view_mask`` (B, V) of a model with several views; of one with context
    ``tokens`` and ``token_mask`` (B, L), L at least 1, ``numbers`` (B, F), NaN where missing, and ``categories``
    (B, F'), -1 where missing. Outputs: see :attr:`memory`; then for each label the probabilities of its classes.
    """

    def __init__(self, model: CaptionModel, image: ImageConfig) -> None:
        super().__init__()
        fields = model.context.fields if model.context is not None else None
        several = model.config.max_views > 1
        self.image, self.backbone = image, inference_copy(model.backbone.built, torch.float32)
        self.model = _spelled_out(model)
        self.inputs = ("pixels", *(("view_mask",) if several else ()))
        self.memory = memory_names(model)
        self.labels = tuple(f"label_{index}" for index in range(len(model.labels.classes if model.labels else ())))
        if fields is not None:
            given = dict.fromkeys(CONTEXT_INPUTS[:2]) | {
                name: None for name, known in zip(CONTEXT_INPUTS[2:], (fields.numbers, fields.categories), strict=True)
                if known
            }  # fmt: skip
            self.inputs += tuple(given)
        self.fields = fields

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        known = dict(zip(self.inputs, given, strict=True))
        regions, mask = self.backbone(normalise(known["pixels"], self.image)), known.get("view_mask")
        if mask is not None:
            cells = math.prod(self.backbone.grid)
            regions = (regions.unflatten(1, (-1, cells)) * mask[..., None, None]).flatten(1, 2)
        memory = self.model.encode(regions=regions, view_mask=mask, context=self._context(known))
        found = [getattr(memory, name) for name in self.memory]
        head = self.model.labels
        if head is not None and memory.labels is not None:
            found += [head.shares(name, logits) for name, logits in head.by_label(memory.labels).items()]
        return tuple(found)

    def _context(self, known: dict[str, Tensor]) -> ContextBatch | None:
        if self.fields is None:
            return None
        tokens, mask = known["tokens"], known["token_mask"]
        numbers = known.get("numbers", mask.new_zeros(tokens.shape[0], 0, dtype=torch.float32))
        return ContextBatch(tokens, mask, numbers, known.get("categories", tokens[:, :0]))

    def examples(self) -> tuple[Tensor, ...]:
        """What the graph is traced with: sizes that differ in every axis."""
        fields, views = self.fields, 2 if "view_mask" in self.inputs else 1
        values = {
            "pixels": torch.randint(0, 256, (3, views, self.image.in_chans, *self.image.size), dtype=torch.uint8),
            "view_mask": torch.tensor([[True, True], [True, False], [True, True]]),
            "tokens": torch.ones(3, 5, dtype=torch.long),
            "token_mask": torch.ones(3, 5, dtype=torch.bool),
            "numbers": torch.zeros(3, len(fields.numbers) if fields else 0),
            "categories": torch.zeros(3, len(fields.categories) if fields else 0, dtype=torch.long),
        }  # fmt: skip
        return tuple(values[name] for name in self.inputs)


class StepGraph(nn.Module):
    """One word for all beams: the folded decoder, that looks nothing up which it can compute from less.

    Inputs: ``word`` (B, G), the last word of each beam; ``parent`` (B, G), the beam of the step before that each
    continues; the memory; the states (B, G', ...), all 0 and without ``latents`` before the first word. Outputs:
    ``log_probs`` (B, G, Y), -inf for what is never generated, and the next states.
    """

    def __init__(self, model: CaptionModel, never: Sequence[int]) -> None:
        super().__init__()
        self.folded = FoldedDecoder(_spelled_out(model).decoder, torch.float32, packed=False)
        self.memory = memory_names(model)
        self.inputs = ("word", "parent", *self.memory, *STATES)
        self.outputs = ("log_probs", *(f"next_{name}" for name in STATES))
        self.size = len(model.decoder.bias)
        self.never = torch.zeros(self.size).index_fill(0, torch.tensor(never), -math.inf)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        known = dict(zip(self.inputs, given, strict=True))
        memory, folded = self._memory(known), self.folded
        state = FoldedState(tuple(_of_parents(known[name], known["parent"]) for name in STATES), memory.summary)
        words = embedding(known["word"], folded.vocabulary.weight)
        gates = linear(words + memory.summary.unsqueeze(1), folded.image, folded.image_bias) + folded.recurrent(
            state.beams[0]
        )
        logits, state, _ = folded.step_from_gates(gates, known["word"], memory, state)
        return logits[..., : self.size].log_softmax(-1) + self.never, *state.beams

    def _memory(self, known: dict[str, Tensor]) -> Memory:
        summary = known["summary"]
        nothing = summary.new_zeros(summary.shape[0], 1, self.folded.latents.shape[1])  # one place, which none may read
        return Memory(
            known.get("visual", nothing),
            known.get("visual_mask"),
            known.get("context", nothing),
            known.get("context_mask", summary.new_zeros(summary.shape[0], 1, dtype=torch.bool)),
            summary,
            visual_keys=known.get("visual_keys"),
            context_keys=known.get("context_keys"),
        )

    def examples(self, memory: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the graph is traced with, given the memory of 3 examples: sizes that differ in every axis."""
        hidden, latent = self.folded.decoder.query_lstm.hidden_size, self.folded.latents.shape[1]
        word, parent = torch.full((3, 4), 4), torch.tensor([[0, 1, 1, 0]] * 3)
        states = [torch.zeros(3, 2, hidden) for _ in STATES[:-1]]
        return (word, parent, *memory, *states, torch.zeros(3, 2, 6, latent))


def _of_parents(state: Tensor, parent: Tensor) -> Tensor:
    """What each beam continues: ``state`` (B, G', ...) at ``parent`` (B, G), also where it has no words yet."""
    for axis in range(2, state.dim()):
        parent = parent.unsqueeze(-1).expand(*[-1] * parent.dim(), state.size(axis))
    return state.gather(1, parent)


def memory_names(model: CaptionModel) -> tuple[str, ...]:
    """What the encoder hands to the decoder: the memory without what the model has none of."""
    names = ["visual"] * (model.decoder.fusion.visual is not None)
    names += ["visual_mask"] * bool(names and model.config.max_views > 1)
    names += ["context", "context_mask"] * (model.context is not None and model.decoder.fusion.text is not None)
    keys = [f"{name}_keys" for name in ("visual", "context") if name in names]
    return (*names, *(keys if model.decoder.fusion.position == "keys" else ()), "summary")


def make_graphs(model: CaptionModel, image: ImageConfig, never: Sequence[int]) -> dict[str, onnx.ModelProto]:
    """The graphs ``encode`` and ``step`` in float32, for any batch; ``never`` are the ids that are never generated."""
    encode, step = EncodeGraph(model, image).eval(), StepGraph(model, never).eval()
    given = encode.examples()
    with torch.no_grad():
        found = encode(*given)
        memory = [value.clone() for value in found[: len(encode.memory)]]
        return {
            "encode": _traced(encode, given, encode.inputs, (*encode.memory, *encode.labels)),
            "step": _traced(step, step.examples(memory), step.inputs, step.outputs),
        }


def _traced(
    graph: nn.Module, given: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    axes = {name: AXES.get(name, {0: "batch"}) for name in (*inputs, *outputs)}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = str(Path(folder, "graph.onnx"))
        warnings.simplefilter("ignore")  # shapes that a trace takes for constants are constants here
        torch.onnx.export(
            graph, given, file, input_names=[*inputs], output_names=[*outputs], dynamic_axes=axes, opset_version=OPSET,
            dynamo=False, do_constant_folding=False,  # it takes sizes of the example for constants
        )  # fmt: skip
        return with_plain_weights(onnx.load(file))


class _RMSNorm(nn.Module):
    """``nn.RMSNorm`` in operations that ONNX has had for long."""

    def __init__(self, norm: nn.RMSNorm) -> None:
        super().__init__()
        self.weight = norm.weight
        self.eps = torch.finfo(norm.weight.dtype).eps if norm.eps is None else norm.eps

    def forward(self, values: Tensor) -> Tensor:
        return values * (values.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight


def _spelled_out(model: CaptionModel) -> CaptionModel:
    """A copy without its CNN, whose layers all have a counterpart in ONNX."""
    backbone, model.backbone = model.backbone, nn.Module()  # type: ignore[assignment]
    try:
        copied = copy.deepcopy(model)
    finally:
        model.backbone = backbone
    copied.backbone.grid = backbone.grid
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.RMSNorm):
                setattr(module, name, _RMSNorm(child))
    return copied.eval().requires_grad_(False)
