"""Training in float32, bfloat16 and float16: time and memory of a step, and whether the loss comes down alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import mean

import torch
from torch import Tensor, nn

from latentcap.bench.timing import Section, Setting, Spread, autocast, seconds
from latentcap.bench.training import TINY as TINY_MODEL
from latentcap.bench.training import Sizes, models, our_logits
from latentcap.inference.precision import multiplies_bfloat16

TYPES = {"float32": torch.float32, "bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}
FACTORS, VALUES, WORDS_EACH = 4, 8, 3  # an image has 4 properties of 8 values; a caption says each in 3 words
WARMUP = 3


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


@dataclass
class Plan:
    sizes: Sizes
    steps: int


def plan(setting: Setting) -> Plan:
    if setting.quick:
        return Plan(TINY_MODEL, 6)
    if setting.device.type == "cpu":
        return Plan(replace(Sizes(), batch=32), 60)
    return Plan(Sizes(), 200)


class Run:
    """A model in training at one precision. The same seed gives every run the same start and the same batches."""

    def __init__(self, name: str, sizes: Sizes, device: torch.device) -> None:
        torch.manual_seed(0)
        self.dtype, self.device = TYPES[name], device
        self.model = models(sizes, sizes.image_sizes[0])[0].to(device).train()
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.losses: list[float] = []
        self.times: list[float] = []
        self.peak = 0

    def train(self, tokens: Tensor, regions: Tensor) -> None:
        """One step, with its time, loss and peak memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            others = torch.cuda.memory_allocated() - self._held()
        self.times.append(seconds(lambda: self.step(tokens, regions), device=self.device))
        self.losses.append(float(self.loss))
        if self.device.type == "cuda":
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - others)

    def step(self, tokens: Tensor, regions: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.dtype):
            scores = our_logits(self.model, tokens[..., :-1], regions)
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
    chosen = plan(setting)
    sizes, device = chosen.sizes, setting.device
    able = {"fp16-mixed": device.type == "cuda", "bf16-mixed": multiplies_bfloat16(device)}
    runs = {name: Run(name, sizes, device) for name in TYPES if able.get(name, True)}
    backbone = next(iter(runs.values())).model.backbone
    task = Task(vocab_size=sizes.vocab_size, cells=backbone.grid[0] * backbone.grid[1], channels=backbone.num_channels)
    for step in range(chosen.steps):
        if step % max(1, chosen.steps // 4) == 0:
            setting.say(f"precision: step {step}/{chosen.steps} of {', '.join(runs)}")
        tokens, regions = (tensor.to(device) for tensor in task.batch(sizes.batch))
        for run in runs.values():
            run.train(tokens, regions)
    base = runs["float32"].times[WARMUP:]
    section = Section(f"Precision of training: {sizes.batch} images, {chosen.steps} steps")
    for name, run in runs.items():
        times = run.times[WARMUP:]
        section.rows.append(
            {
                "precision": name,
                "ms a step": middle([1000 * value for value in times]),
                "times faster": middle([a / b for a, b in zip(base, times, strict=True)]),
                "peak MB": run.peak / 1e6 if run.peak else None,
                "loss, first step": run.losses[0],
                f"loss after {chosen.steps}": mean(run.losses[-max(1, chosen.steps // 20) :]),
            }
        )
    section.notes = [
        "Synthetic captions that the regions tell, one seed, the same batches for all; the loss after training is the "
        "mean of the last twentieth of the steps. In brackets the middle half of the steps' values.",
    ]
    if device.type == "cpu":
        section.notes.append("On a CPU: fewer and smaller steps, no float16, and memory is not measured.")
    return [section]


def middle(values: list[float]) -> Spread:
    """Median and quartiles: of hundreds of steps, the extremes say nothing."""
    ordered = sorted(values)
    return Spread(ordered[len(ordered) // 2], ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4])
