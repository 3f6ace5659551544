"""The LightningModule: loss, optimiser and free-running validation around :class:`CaptionModel`.

Dimension letters: see ``latent_attention.py``.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from latentcap.captioner import Captioner
from latentcap.config import ModelConfig
from latentcap.data.batches.context import ContextCollator, ContextFields, load_context_tokenizer
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.batches.dataset import Batch
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.columns import each
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.in_the_box import find_model
from latentcap.inference.folded_model import FoldedModel
from latentcap.inference.precision import fast_dtype, use_tensor_cores
from latentcap.metrics import CaptionMetrics
from latentcap.model.caption_model import CaptionModel
from latentcap.model.fusion import Memory
from latentcap.model.label_scores import label_scores
from latentcap.progress import Progress
from latentcap.saved_model import read_settings
from latentcap.search.captions import search_captions
from latentcap.search.config import SearchConfig
from latentcap.search.generation import Hypothesis
from latentcap.training.cached_regions import frozen_layers
from latentcap.training.fine_tuning import check_start, start_model
from latentcap.training.learned import KEY, Learned
from latentcap.training.losses import next_word_loss, training_loss
from latentcap.training.optim import OptimConfig, Stages, build_optimizer, learns_labels, warmup_cosine
from latentcap.training.self_critical import SelfCritical
from latentcap.training.teachers import Lesson, Teachers
from latentcap.training.validation import caption_records, of_all_processes, write_records
from latentcap.training.worth import Worth, little

logger = logging.getLogger(__name__)


class CaptionModule(L.LightningModule):
    """Trains a :class:`CaptionModel` on a :class:`CaptionData`.

    Args:
        model: the model's settings. Left out when ``start_from`` is given, they are those of that folder.
        optim: the training settings.
        search: how validation captions are searched for, and what the model folder proposes.
        start_from: a model folder, or the name of one in the box, whose weights are the start; what both have (words,
            fields, labels) is found by name.
    """

    def __init__(
        self,
        model: ModelConfig | None = None,
        *,
        optim: OptimConfig | None = None,
        search: SearchConfig | None = None,
        start_from: str | None = None,
    ) -> None:
        super().__init__()
        start = find_model(start_from) if start_from else None
        if model is None:
            model = read_settings(start) if start else ModelConfig()
        self.optim = optim or OptimConfig()
        if start:
            check_start(model, start, frozen=self.optim.frozen)
        self.config = model
        self.search = search or SearchConfig(max_length=model.decoder.max_length)
        self.start_from = start
        self.resume_from: str | None = None  # a checkpoint, whose vocabulary, fields and classes the model has
        self.learned: Learned | None = None
        self.model: CaptionModel | None = None
        self.metrics = CaptionMetrics()
        self.worth = Worth()
        self.captions: list[dict[str, Any]] = []
        self.started: str = ""
        self.thresholds: Tensor | None = None  # of labels with several values, as the last validation chose them
        self._untold = False  # that labels cannot be measured has been said
        self._copies: FoldedModel | None = None
        self._critic: SelfCritical | None = None
        self._stages: Stages | None = None
        self._teachers: Teachers | None = None

    # Building ----------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build the model once the data is known: vocabulary, context statistics, cached regions."""
        if self.model is not None:
            return
        data: CaptionData = self.trainer.datamodule  # type: ignore[attr-defined]
        if "train" in data.examples:
            self.learned = self._learned_from(data)
            self.tokenizer, self.slots = self.learned.tokenizer, self.learned.slots
            if not self.learned.context and self._starts_without_context():
                self._read_no_context()
            self.model = CaptionModel(
                self.config,
                vocab_size=len(self.tokenizer),
                fields=self.learned.fields,
                labels=self.learned.labels,
                label_lists=self.learned.label_lists,
                load_weights=self.start_from is None,
            )
            backbone = self.model.backbone.built
            self.image = ImageConfig.from_timm(
                backbone.data_config,
                size=tuple(backbone.data_config["input_size"][1:]),
                crop_mode=data.crop_mode,
                in_chans=self.config.backbone.in_chans,
            )
            self.context_tokenizer = (
                load_context_tokenizer(self.config.context.encoder)
                if self.config.context.encoder not in ("embedding", "none")
                else None
            )
            if self.start_from:
                self.started = start_model(self.model, self.start_from, self.tokenizer, self.context_tokenizer)
                logger.info(self.started)
        elif self.start_from:
            captioner = Captioner.from_pretrained(self.start_from)
            self.model, self.tokenizer, self.image = captioner.model, captioner.tokenizer, captioner.image
            self.context_tokenizer, self.slots = captioner.context_tokenizer, captioner.slots
        else:
            raise UserError(
                "nothing to validate or test: set model.start_from to a model folder, or to the name of one in the box "
                "(--model.start_from FOLDER). A checkpoint has no vocabulary: its run's model folder is of the best."
            )
        self._stages = Stages(self.model, self.optim)
        if self.optim.teachers and "train" in data.examples:
            device = self.trainer.strategy.root_device
            self._teachers = Teachers(
                self.optim.teachers,
                self.model,
                tokenizer=self.tokenizer,
                context_tokenizer=self.context_tokenizer,
                lesson=Lesson(captions=self.optim.caption_weight > 0, labels=self._learns_labels),
                device=device,
            )
        self._prepare_data(data)

    def _learned_from(self, data: CaptionData) -> Learned:
        """What the checkpoint says of the data, where the run goes on from one; else what they say themselves."""
        names = data.fields.labels if self.optim.label_weight > 0 else ()
        views = self.config.max_views
        learned = None
        if self.resume_from:
            learned = Learned.from_checkpoint(Path(self.resume_from), data, labels=names, max_views=views)
        start = Path(self.start_from) if self.start_from else None
        frozen = "labels" in self.optim.frozen
        if learned is None:
            learned = Learned.from_data(data, start_from=start, labels=names, max_views=views, frozen_labels=frozen)
        if not self.optim.caption_weight and not any(learned.labels.values()):
            raise UserError(
                "nothing to learn: model.optim.caption_weight is 0, so labels alone are learned, and there are none. "
                "Name them in data.fields.labels, a column of the data or the words of the captions: "
                "--data.fields.labels '[words]'."
            )
        return learned

    def _starts_without_context(self) -> bool:
        """Whether the weights that a run starts from have none for context, either."""
        return self.start_from is None or read_settings(self.start_from).context.encoder == "none"

    def _read_no_context(self) -> None:
        encoder = self.config.context.encoder
        if encoder not in ("embedding", "none"):
            logger.warning("no training example has any context: %s is left out", encoder)
        self.config = replace(self.config, context=replace(self.config.context, encoder="none"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.learned is not None:
            checkpoint[KEY] = self.learned.to_checkpoint()

    def _prepare_data(self, data: CaptionData) -> None:
        """Make the datasets; what the backbone's frozen layers give is computed now, once for each image."""
        assert self.model is not None
        backbone = self.model.backbone.built
        most = max(len(images) for examples in data.examples.values() for images in each(examples, "images"))
        if most > self.config.max_views:
            raise UserError(
                f"the data have examples with up to {most} views, and model.model.max_views is "
                f"{self.config.max_views}: set it to {most} (--model.model.max_views {most}); missing views are masked."
            )
        context = ContextCollator(
            tokenizer=self.context_tokenizer or self.tokenizer,
            fields=self.model.context.fields if self.model.context else ContextFields(),
            max_tokens=self.config.context.max_tokens,
            enabled=self.model.context is not None,
        )
        live = data.augmentation is not None and not data.variants  # each image is to look different in every epoch
        split = None if backbone.frozen or live else backbone.split
        frozen = None
        if backbone.frozen or split is not None:
            device = self.trainer.strategy.root_device
            backbone.to(device)
            frozen = frozen_layers(backbone, self.image, split=split, device=device, dtype=fast_dtype(device))
        with Progress("regions of images", unit="img") as progress:
            data.prepare_datasets(
                tokenizer=self.tokenizer,
                context=context,
                image=self.image,
                slots=self.slots,
                max_length=self.config.decoder.max_length,
                frozen=frozen,
                labelled=learns_labels(self.optim) and not self.optim.self_critical,  # which needs captions
                progress=progress.update,
            )

    def setup(self, stage: str) -> None:
        if "mixed" in str(self.trainer.precision):
            use_tensor_cores(self.trainer.strategy.root_device)

    # Steps -------------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        self._enter_epoch()  # a run that goes on within an epoch does not start one

    def on_train_epoch_start(self) -> None:
        self._enter_epoch()

    def _enter_epoch(self) -> None:
        """Let those parts learn that do in this epoch."""
        assert self.model is not None
        assert self._stages is not None
        started = self._stages.enter(self.current_epoch)
        self.model.backbone.train(self.model.training)  # layers that do not learn keep their batch statistics
        for part in started:
            logger.info("epoch %d: the %s is trained from here on", self.current_epoch, part)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        assert self.model is not None
        memory = self.model.encode(**batch.inputs())
        if self.optim.self_critical and self.current_epoch >= self.optim.self_critical_epoch:
            loss, reward = self._self_critical().loss(self.model.decoder, memory, batch.index)
            parts = {"reward": reward}
        else:
            loss, parts = training_loss(
                self.model,
                memory,
                batch.tokens,
                labels=[example.labels for example in self._examples(batch, "train")] if self._learns_labels else (),
                settings=self.optim,
                progress=self._progress,
                taught=self._teachers(batch) if self._teachers is not None else None,
            )
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        for name, value in parts.items():
            self.log(f"train/{name}", value, prog_bar=name == "reward", batch_size=len(batch))
        return loss

    @property
    def _learns_labels(self) -> bool:
        """Whether the label head learns, where there is one."""
        return self.model is not None and self.model.labels is not None and learns_labels(self.optim)

    def validation_step(self, batch: Batch | None, batch_index: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch | None, batch_index: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch | None, split: str) -> None:
        """Caption freely by beam search; the teacher-forced numbers are logged as loss and worth and nothing else.

        ``batch`` is None where none of its images could be read.
        """
        assert self.model is not None
        if batch is None:  # all processes log, for they wait for each other
            if self.optim.caption_weight > 0:
                self.log(f"{split}/loss", 0.0, batch_size=0, sync_dist=True)
            return
        if batch.regions is None:  # the CNN runs once, for the captions and for what image and context are worth
            regions = self.model.regions(images=batch.images, cells=batch.cells, view_mask=batch.view_mask)
            batch = replace(batch, images=None, cells=None, regions=regions)
        memory = self.model.encode(**batch.inputs())
        captions: list[tuple[str, float]] = []
        index = batch.index.tolist()
        if self.optim.caption_weight > 0:
            loss, _ = next_word_loss(self.model.decoder, batch.tokens[..., :-1], batch.tokens[..., 1:], memory)
            self.log(f"{split}/loss", loss, batch_size=len(batch), sync_dist=True)
            self.worth.update(self.model, batch, memory, loss)
            found = self._search(memory)
            captions = [(self.tokenizer.decode(best.tokens), best.score) for best, *_ in found]
            self.metrics.update([text for text, _ in captions], batch.references, ids=index)
        head, shares = self.model.labels, []
        if head is not None and memory.labels is not None:
            shares = head.probabilities(memory.labels).tolist()
        records = caption_records(index, self._examples(batch, split), captions)
        self.captions += [
            record | {"shares": row} for record, row in zip(records, shares or [None] * len(records), strict=True)
        ]

    def _search(self, memory: Memory) -> list[list[Hypothesis]]:
        """Captions as they are written once the training is over, by the decoder folded in the training's precision."""
        assert self.model is not None
        device, dtype = memory.summary.device, self.model.decoder.bias.dtype
        memory = replace(memory, summary=memory.summary.to(dtype))
        fast = fast_dtype(device) if torch.is_autocast_enabled(device.type) else torch.float32
        with torch.autocast(device.type, enabled=False):
            decoder = self._folded.decoder(fast) if dtype == torch.float32 else None
            return search_captions(self.model, memory, self.tokenizer, self.search, decoder=decoder)

    @property
    def _folded(self) -> FoldedModel:
        """Of the model as it is now: the head programs exchange it."""
        assert self.model is not None
        if self._copies is None or self._copies.model is not self.model:
            self._copies = FoldedModel(self.model)
        return self._copies

    def on_validation_epoch_start(self) -> None:
        self.captions = []

    def on_test_epoch_start(self) -> None:
        self.captions = []

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_validation_end(self) -> None:
        worth = self.trainer.callback_metrics.get("val/image_worth")
        looks = self.config.sees_image and not self.trainer.sanity_checking and self.trainer.is_global_zero
        if looks and worth is not None and (warning := little(float(worth))):
            logger.warning(warning)

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, split: str) -> None:
        captions = of_all_processes(self.captions)
        shares = [record.pop("shares") for record in captions]
        if self.optim.caption_weight > 0:
            scores = self.metrics.compute()
            self.metrics.reset()
            shown = ("BLEU-4", "CIDEr-D")
            for name, value in scores.items():
                self.log(f"{split}/{name}", value, prog_bar=name in shown, rank_zero_only=False, sync_dist=False)
            for part, worth in self.worth.compute().items():
                self.log(
                    f"{split}/{part}_worth", worth, prog_bar=part == "image", rank_zero_only=False, sync_dist=False
                )
            self.log(f"{split}/distinct", float(len({record["caption"] for record in captions})))
        if self.model is not None and self.model.labels is not None and captions:
            self._log_labels(split, captions, torch.tensor(shares))
        if not self.trainer.sanity_checking and self.trainer.is_global_zero:
            write_records(Path(self.trainer.default_root_dir) / f"captions_{split}.jsonl", captions)

    def _log_labels(self, split: str, records: list[dict[str, Any]], shares: Tensor) -> None:
        """Name each record's labels and log how well; validation chooses thresholds of several values first."""
        assert self.model is not None
        head = self.model.labels
        assert head is not None
        learns = split == "val" and self._learns_labels
        if learns and not self.trainer.sanity_checking:
            head.set_thresholds(shares)
            self.thresholds = head.thresholds.clone()
        for record, guess in zip(records, head.named(shares), strict=True):
            record["labels"] = {name: value for name, (value, _) in guess.items()}
        examples = self.trainer.datamodule.datasets[split].examples  # type: ignore[attr-defined]
        truth = [examples[record["index"]].labels for record in records]
        scores = label_scores(head, shares, [record["labels"] for record in records], truth)
        untold = [label for label in head.lists if f"AUC of {label}" not in scores]
        if untold and learns:
            if not self._untold:
                logger.warning(
                    f"AUC of {', '.join(untold)} is taken to be 0.5 and chooses no epoch: all or none of the "
                    f"validation examples ({len(truth)}) have each class. More of them would tell."
                )
            self._untold = True
            scores |= {f"AUC of {label}": 0.5 for label in untold}
        for name, value in scores.items():
            self.log(f"{split}/{name}", value)

    def _examples(self, batch: Batch, split: str) -> list[Example]:
        examples = self.trainer.datamodule.datasets[split].examples  # type: ignore[attr-defined]
        return [examples[index] for index in batch.index.tolist()]

    def _self_critical(self) -> SelfCritical:
        if self._critic is None:
            examples = self.trainer.datamodule.datasets["train"].examples  # type: ignore[attr-defined]
            self._critic = SelfCritical(
                examples,
                self.tokenizer,
                samples=self.optim.self_critical,
                max_length=self.search.max_length,
                rewards=self.optim.rewards,
            )
        return self._critic

    @property
    def _progress(self) -> float:
        """How much of the training is done, 0 to 1."""
        return self.trainer.global_step / max(1, self.trainer.estimated_stepping_batches)

    # Optimiser ---------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """AdamW with a group for each part and decay; linear warm-up, then a cosine."""
        assert self.model is not None
        optimizer = build_optimizer(self.model.named_parameters(), self.optim)
        schedule = warmup_cosine(optimizer, self.optim, max(1, int(self.trainer.estimated_stepping_batches)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # Saving ------------------------------------------------------------------------------------------------------

    def captioner(self) -> Captioner:
        """The model as it is now, ready to caption and to save."""
        assert self.model is not None
        return Captioner(
            self.model,
            tokenizer=self.tokenizer,
            image=self.image,
            slots=self.slots,
            search=self.search,
            context_tokenizer=self.context_tokenizer,
        )


def describe(config: ModelConfig, optim: OptimConfig, search: SearchConfig) -> dict[str, Any]:
    """All settings of a run as plain values, for the model card."""
    return {"model": config.to_dict(), "optim": asdict(optim), "search": search.to_dict()}
