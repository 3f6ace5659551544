"""A Lightning callback that watches the heads while a model is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from latentcap.data.batches.dataset import Batch
from latentcap.data.errors import UserError
from latentcap.heads.measure import HeadMeter
from latentcap.heads.page import write_report
from latentcap.heads.report import HeadReport, summarise
from latentcap.heads.table import FIGURES
from latentcap.pages.viridis import colour
from latentcap.training.module import CaptionModule

IMAGE_SIDE = 160  # pixels of each map and matrix that is logged


class HeadMonitor(Callback):
    """Logs every head's figures at each validation: numbers to all loggers (CSV, TensorBoard, W&B), pictures to those
    that take them, and all of it as a page of small multiples, ``heads.html`` in the run's folder. In a recipe:

    .. code-block:: yaml

        trainer:
          callbacks:
            - class_path: latentcap.heads.monitor.HeadMonitor

    Scalars are called ``heads/visual 1/entropy`` and so on; see :class:`latentcap.heads.report.HeadSummary`. Pictures
    are ``heads/maps`` (the mean map of each visual head, views side by side, each scaled to its own greatest value) and
    ``heads/similarity visual``, ``heads/similarity text``.

    Args:
        examples: about how many validation examples to look at, over all processes. Each costs a second forward and a
            backward pass without the CNN.
    """

    def __init__(self, examples: int = 256) -> None:
        if examples < 1:
            raise UserError(f"HeadMonitor.examples is {examples}: it must be 1 or more.")
        self.examples = examples
        self.meter: HeadMeter | None = None
        self.report: HeadReport | None = None

    def on_validation_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, CaptionModule)
        assert module.model is not None
        self.meter = HeadMeter(module.model, tokenizer=module.tokenizer, context_tokenizer=module.context_tokenizer)
        self.seen = 0

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch | None, *args: Any
    ) -> None:
        if batch is None or self.meter is None or self.seen * trainer.world_size >= self.examples:
            return
        assert isinstance(module, CaptionModule)
        self.seen += len(batch)
        # Validation runs in inference mode, whose tensors no gradient can pass.
        with torch.inference_mode(False):
            batch = _copied(batch)
            with torch.no_grad():
                memory = self.meter.model.encode(**batch.inputs())
            self.meter.update(memory, batch.tokens, batch.context)

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.meter is None:
            return
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.meter.all_reduce()
        if not self.meter.examples:
            return
        self.report = summarise(self.meter)
        self.meter = None
        scalars = {
            f"heads/{head.kind} {head.number}/{name}": float(value)
            for head in self.report.heads
            for name, figure in FIGURES.items()
            if (value := figure(head)) is not None
        }
        module.log_dict(scalars, rank_zero_only=False, sync_dist=False)
        if trainer.is_global_zero and not trainer.sanity_checking:
            note = f"{self.report.examples:,} validation examples after step {trainer.global_step:,}."
            path = Path(trainer.default_root_dir) / "heads.html"
            write_report(path, self.report, title="What the heads do", notes=[note])
            for name, picture in pictures(self.report).items():
                for logger in trainer.loggers:
                    _log_picture(logger, f"heads/{name}", picture, trainer.global_step)


def pictures(report: HeadReport) -> dict[str, Tensor]:
    """What can be seen of all heads: names to pictures (3, height, width) from 0 to 1."""
    found: dict[str, Tensor] = {}
    maps = [torch.tensor(head.map) for head in report.of("visual")]
    if maps:
        joined = [torch.cat(tuple(views / views.max().clamp_min(1e-12)), -1) for views in maps]
        found["maps"] = torch.cat([_enlarged(one) for one in joined], -1)
    for kind, matrix in (("visual", report.visual_similarity), ("text", report.text_similarity)):
        if len(matrix) > 1:
            found[f"similarity {kind}"] = _enlarged(torch.tensor(matrix))
    return found


def _enlarged(values: Tensor) -> Tensor:
    """(h, w) from 0 to 1 as a picture (3, h * n, w * n) with a margin on the right."""
    factor = max(1, IMAGE_SIDE // values.shape[0])
    picture = colour(values).permute(2, 0, 1).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return torch.nn.functional.pad(picture, (0, 6), value=1.0)


def _log_picture(logger: Any, name: str, picture: Tensor, step: int) -> None:
    """To TensorBoard's ``add_image`` or to what has W&B's ``log_image``; other loggers take no pictures."""
    add_image = getattr(logger.experiment, "add_image", None)
    if callable(add_image):
        add_image(name, picture, step)
    elif callable(getattr(logger, "log_image", None)):
        pixels = (picture * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        logger.log_image(key=name, images=[pixels], step=step)


def _copied(batch: Batch) -> Batch:
    """The batch with tensors of its own, made outside inference mode."""

    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.clone()
        if hasattr(value, "__dataclass_fields__"):
            return type(value)(**{name: copy(getattr(value, name)) for name in value.__dataclass_fields__})
        return value

    copied: Batch = copy(batch)
    return copied
