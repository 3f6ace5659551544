"""Training in float32, bfloat16 and float16: time and memory of a step, and whether the loss comes down alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import mean

import torch
from torch import Tensor, nn

from latentcap.bench.timing import Section, Setting, Spread, autocast, seconds
from latentcap.bench.training import TINY as TINY_MODEL
from latentcap.bench.training import Sizes, models, our_logits
from latentcap.inference.precision import multiplies_bfloat16, use_tensor_cores
from latentcap.model.caption_model import CaptionModel

TYPES = {"float32": torch.float32, "bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}
FACTORS, VALUES, WORDS_EACH = 4, 8, 3  # an image has 4 properties of 8 values; a caption says each in 3 words
WARMUP = 3
TILE = 32  # pixels of a cell's side, where a CNN sees the cells: what it makes one region of
GOAL = 5.0  # times faster than float32 on a GPU, with a trained CNN


class Task:
    """Captions that the regions tell: each property is a code in one cell, among noise, and three words of the caption.

    Args:
        vocab_size: ids from 4 on are used.
        cells: regions of an image, at least one for each property.
        channels: their size.
    """

    def __init__(self, *, vocab_size: int, cells: int, channels: int) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.cells = cells
        self.codes = 2 * torch.randn(FACTORS, VALUES, channels, generator=self.random)
        self.words = torch.randint(4, vocab_size, (FACTORS, VALUES, WORDS_EACH), generator=self.random)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Tokens (B, 1, 13), <bos> first, and regions (B, N, C)."""
        values = torch.randint(VALUES, (size, FACTORS), generator=self.random)
        factors = torch.arange(FACTORS).expand(size, -1)
        regions = torch.randn(size, self.cells, self.codes.shape[-1], generator=self.random)
        places = torch.rand(size, self.cells, generator=self.random).argsort(1)[:, :FACTORS]
        regions[torch.arange(size)[:, None], places] += self.codes[factors, values]
        words = self.words[factors, values].flatten(1)
        return torch.cat((torch.ones(size, 1, dtype=torch.long), words), 1).unsqueeze(1), regions

    def images(self, size: int) -> tuple[Tensor, Tensor]:
        """Tokens and images (B, 1, 3, H, W), of cells that are tiles of ``TILE`` pixels with 3 * TILE * TILE values."""
        tokens, regions = self.batch(size)
        side = TILE * round(self.cells**0.5)
        return tokens, nn.functional.fold(regions.mT, (side, side), TILE, stride=TILE).unsqueeze(1)


@dataclass(frozen=True)
class Plan:
    """What is trained and for how many steps, a step of each precision in turn."""

    sizes: Sizes
    steps: int

    @property
    def trained_cnn(self) -> bool:
        return self.sizes.trainable != "none"


def plans(setting: Setting) -> list[Plan]:
    """First regions from the cache, then images through a CNN that is trained too."""
    if setting.quick:
        return [Plan(replace(TINY_MODEL, trainable=trained), 6) for trained in ("none", "all")]
    if setting.device.type == "cpu":
        return [Plan(Sizes(batch=32), 60), Plan(Sizes(batch=8, trainable="all"), 20)]
    return [Plan(Sizes(trainable=trained), 200) for trained in ("none", "all")]


class Run:
    """A model in training at one precision. The same seed gives every run the same start and the same batches."""

    def __init__(self, name: str, plan: Plan, device: torch.device) -> None:
        torch.manual_seed(0)
        self.dtype, self.device = TYPES[name], device
        self.model = models(plan.sizes, plan.sizes.image_sizes[0])[0].to(device).train()
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.losses: list[float] = []
        self.times: list[float] = []
        self.peak = 0

    def train(self, tokens: Tensor, seen: Tensor) -> None:
        """One step, with its time, loss and peak memory."""
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("highest")
            if self.dtype != torch.float32:
                use_tensor_cores(self.device)  # as mixed precision does in training
            torch.cuda.reset_peak_memory_stats()
            others = torch.cuda.memory_allocated() - self._held()
        self.times.append(seconds(lambda: self.step(tokens, seen), device=self.device))
        self.losses.append(float(self.loss))
        if self.device.type == "cuda":
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - others)

    def step(self, tokens: Tensor, seen: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.dtype):
            frozen = self.model.backbone.frozen
            memory = self.model.encode(regions=seen) if frozen else self.model.encode(images=seen)
            scores = our_logits(self.model, tokens[..., :-1], memory)
            loss = nn.functional.cross_entropy(scores.float().flatten(0, -2), tokens[..., 1:].flatten())
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.loss = loss.detach()

    def _held(self) -> int:
        """Bytes of this run between its steps: weights, gradients and what the optimiser keeps."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        tensors += [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        tensors += [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors if tensor.device.type == "cuda")


def bench(setting: Setting) -> list[Section]:
    """All precisions side by side, a step of each in turn."""
    return [_section(setting, plan) for plan in plans(setting)]


def _section(setting: Setting, plan: Plan) -> Section:
    sizes, device = plan.sizes, setting.device
    able = {"fp16-mixed": device.type == "cuda", "bf16-mixed": multiplies_bfloat16(device)}
    runs = {name: Run(name, plan, device) for name in TYPES if able.get(name, True)}
    what = "the CNN is trained too" if plan.trained_cnn else "regions from the cache"
    batch = _batches(plan, next(iter(runs.values())).model)
    for step in range(plan.steps):
        if step % max(1, plan.steps // 4) == 0:
            setting.say(f"precision, {what}: step {step}/{plan.steps} of {', '.join(runs)}")
        tokens, seen = (tensor.to(device) for tensor in batch(sizes.batch))
        for run in runs.values():
            run.train(tokens, seen)
    base = runs["float32"].times[WARMUP:]
    section = Section(f"Precision of training, {what}: {sizes.batch} images, {plan.steps} steps")
    for name, run in runs.items():
        times = run.times[WARMUP:]
        section.rows.append(
            {
                "precision": name,
                "ms a step": middle([1000 * value for value in times]),
                "times faster": middle([a / b for a, b in zip(base, times, strict=True)]),
                "peak MB": run.peak / 1e6 if run.peak else None,
                "loss, first step": run.losses[0],
                f"loss after {plan.steps}": mean(run.losses[-max(1, plan.steps // 20) :]),
            }
        )
    section.notes = [
        "Synthetic captions that the image tells, one seed, the same batches for all; the loss after training is the "
        "mean of the last twentieth of the steps. In brackets the middle half of the steps' values.",
    ]
    if plan.trained_cnn:
        side = sizes.image_sizes[0]
        section.notes.append(f"{sizes.backbone} from random weights, all of it trained, on images of {side} pixels.")
    if device.type == "cpu":
        section.notes.append("On a CPU: fewer and smaller steps, no float16, and memory is not measured.")
    else:
        section.notes.append(
            "float32 is PyTorch's own: convolutions may round to TensorFloat-32, matrix products do not."
            + (f" Goal: bf16-mixed {GOAL:g} times as fast as float32." if plan.trained_cnn else "")
        )
    return section


def _batches(plan: Plan, model: CaptionModel) -> Callable[[int], tuple[Tensor, Tensor]]:
    """What gives a batch of so many: tokens, and regions or images."""
    height, width = model.backbone.grid
    channels = 3 * TILE * TILE if plan.trained_cnn else model.backbone.num_channels
    task = Task(vocab_size=plan.sizes.vocab_size, cells=height * width, channels=channels)
    return task.images if plan.trained_cnn else task.batch


def middle(values: list[float]) -> Spread:
    """Median and quartiles: of hundreds of steps, the extremes say nothing."""
    ordered = sorted(values)
    return Spread(ordered[len(ordered) // 2], ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4])
