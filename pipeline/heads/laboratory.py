"""The data set on which the head programs score and fine-tune versions of a model: read and encoded once."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback

from latentcap.captioner import Captioner
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.batches.dataset import Batch
from latentcap.data.batches.sampler import CaptionBatchSampler
from latentcap.data.errors import UserError
from latentcap.heads.importance import head_importance
from latentcap.inference.precision import fast_dtype
from latentcap.progress import Progress
from latentcap.training.cached_regions import fingerprint
from latentcap.training.lightning_messages import HARMLESS
from latentcap.training.module import CaptionModule
from latentcap.training.optim import OptimConfig, Stages

RATE = 0.3  # of the learning rates that the model was trained with: the peak of a fine-tuning
PRECISIONS: dict[torch.dtype, Any] = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", torch.float32: "32-true"}


class Laboratory:
    """Scores, importance and brief fine-tuning of model folders, on a data set that is read once.

    Args:
        captioner: whose context fields are read from the data, and whose search settings are used for all.
        data: its training split is read only where ``train`` is True.
        optim: how the model was trained; fine-tuning goes at a part of its rates, all parts from the start.
    """

    def __init__(self, captioner: Captioner, data: CaptionData, optim: OptimConfig, *, train: bool) -> None:
        fields, labels = captioner.collate_context.fields, captioner.model.labels
        data.fields = replace(
            data.fields,
            numbers=tuple(fields.numbers),
            categories=tuple(fields.categories),
            labels=tuple(labels.classes) if labels is not None else (),
        )
        data.setup("fit" if train else "validate")
        self.data, self.module = data, _Module(captioner, gentle(optim))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def scores(self, captioner: Captioner, folder: Path) -> dict[str, float]:
        """Free-running validation in float32, as captioning runs; the captions are written into ``folder``."""
        self.module.adopt(captioner)
        trainer = _trainer(folder, precision="32-true", callbacks=[_Bar("validation", "batch")])
        (found,) = trainer.validate(self.module, self.data, verbose=False)
        return {name.removeprefix("val/"): float(value) for name, value in found.items()}

    def importance(self, captioner: Captioner, batches: int) -> list[float]:
        """:func:`head_importance` over as many training batches, (H,), of a captioner that was scored before."""
        return head_importance(captioner.model.to(self.device), self._training_batches(batches)).tolist()

    def fine_tune(self, captioner: Captioner, *, steps: int, seed: int, folder: Path) -> None:
        """Train the model in place for some steps, with a warm-up and cosine of their own.

        Raises KeyboardInterrupt when interrupted.
        """
        self.module.adopt(captioner)
        self.data.seed = seed
        torch.manual_seed(seed)
        trainer = _trainer(
            folder,
            precision=PRECISIONS[fast_dtype(self.device)],
            callbacks=[_Bar("fine-tuning", "step")],
            max_steps=steps,
            limit_val_batches=0,
            gradient_clip_val=1.0,
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(self.module, self.data)
        except SystemExit:  # what Lightning makes of an interruption
            raise KeyboardInterrupt from None
        finally:
            signal.signal(signal.SIGINT, handler)  # which Lightning sets to be ignored
        captioner.model.eval()

    def _training_batches(self, count: int) -> Iterator[Batch]:
        dataset = self.data.datasets["train"]
        sampler = CaptionBatchSampler(
            dataset.pools, batch_size=self.data.batch_size, captions_per_image=self.data.captions_per_image
        )
        with Progress("importance of heads", unit="batch") as progress:
            plan = sampler.plan(0)[:count]
            for done, draws in enumerate(plan, start=1):
                batch = dataset[draws]
                if batch is not None:
                    yield move_data_to_device(batch, self.device)
                progress.update(done, len(plan))


class _Module(CaptionModule):
    """Goes on with a captioner as it is: its vocabulary, context fields and image size."""

    def __init__(self, captioner: Captioner, optim: OptimConfig) -> None:
        super().__init__(captioner.model.config, optim=optim, search=captioner.search)
        self.data_key = ""

    def adopt(self, captioner: Captioner) -> None:
        """Take another captioner. Data that were prepared for another backbone or vocabulary are prepared anew."""
        self.model, self.config = captioner.model, captioner.model.config
        self.tokenizer, self.context_tokenizer = captioner.tokenizer, captioner.context_tokenizer
        self.image, self.slots = captioner.image, captioner.slots
        self._stages = Stages(captioner.model, self.optim)

    def configure_model(self) -> None:
        assert self.model is not None
        data: CaptionData = self.trainer.datamodule  # type: ignore[attr-defined]
        key = fingerprint(self.model.backbone.built, self.image, torch.float32) + " ".join(self.tokenizer.vocab)
        if key != self.data_key:
            self._prepare_data(data)
            self.data_key = key


class _Bar(Callback):
    """Steps or validation batches as one count with the time left."""

    def __init__(self, title: str, unit: str) -> None:
        self.progress = Progress(title, unit=unit)

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self.progress.__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.progress.update(trainer.global_step, trainer.max_steps)

    def on_validation_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        self.progress.update(args[2] + 1, int(trainer.num_val_batches[0]))

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self.progress.__exit__(None, None, None)


def gentle(optim: OptimConfig) -> OptimConfig:
    """The same training at :data:`RATE` of every learning rate, without staged unfreezing."""
    rates = {name: getattr(optim, name) for name in ("lr", "backbone_lr", "context_lr", "fusion_lr", "decoder_lr")}
    lower = {name: RATE * rate for name, rate in rates.items() if rate is not None}
    return replace(optim, start_epoch={}, **lower)


def _trainer(folder: Path, **settings: Any) -> L.Trainer:
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)
    return L.Trainer(
        default_root_dir=folder,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )


def open_data(
    source: Sequence[str], *, val: Sequence[str] | None, recipe: Path | None, cache: str | None
) -> tuple[CaptionData, OptimConfig]:
    """The data set, and how to train on it: the ``data`` and ``model.optim`` sections of a recipe, where one is given.

    Raises UserError for a recipe that cannot be read or has a setting that does not exist.
    """
    sections: dict[str, Any] = {}
    if recipe is not None:
        try:
            sections = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"--recipe {recipe}: cannot be read ({error}).") from None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CaptionData, "data")
    parser.add_class_arguments(OptimConfig, "optim")
    given = {"train": list(source), "val": list(val) if val else None, "vocabulary": "keep"}
    given |= {"cache_dir": cache} if cache else {}
    optim = (sections.get("model") or {}).get("optim") or {}
    try:
        config = parser.parse_object({"data": {**(sections.get("data") or {}), **given}, "optim": optim})
    except Exception as error:  # jsonargparse wraps what it finds in several kinds
        raise UserError(f"--recipe {recipe}: {error}") from None
    ready = parser.instantiate_classes(config)
    return ready.data, ready.optim
