"""The data of a run: where examples come from, the vocabulary and statistics they give, and the loaders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import lightning as L
from torch.utils.data import DataLoader

from latentcap.data.batches.augmentation import Augmentation, VariedImage
from latentcap.data.batches.context import ContextCollator, ContextFields
from latentcap.data.batches.dataset import Batch, CaptionDataset
from latentcap.data.batches.fixed import FixedBatches
from latentcap.data.batches.frozen_layers import FrozenLayers
from latentcap.data.batches.image_config import CropMode, ImageConfig
from latentcap.data.batches.loaders import ResumableLoader, evaluation_loader, training_loader
from latentcap.data.batches.sampler import CaptionBatchSampler, label_weights
from latentcap.data.batches.sources import ImageSource, LoadedImages
from latentcap.data.batches.splits import Source, read_splits
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.batches.views import ViewSlots
from latentcap.data.batches.vocabulary import VOCABULARIES, TokenizerConfig, TrainingTexts, vocabulary_of
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers import Fields, read_examples

STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
LIVE_VARIANTS = 2**62  # of an image that is decoded each time it is drawn: it never looks the same twice

logger = logging.getLogger(__name__)

EVAL_BATCH, EVAL_BATCH_ON_A_GPU = 64, 256  # images at once in validation


class CaptionData(L.LightningDataModule):
    """Training, validation and test examples.

    Args:
        train: a folder, file, tar pattern or list of them; see ``latentcap.data.readers``. Its ``split`` fields
            count where ``val`` or ``test`` are not given.
        val, test: likewise; None takes the split of that name in ``train``.
        val_share: where the data have no validation split, the share of the training examples that validates instead,
            whole patients where the data name them; 0 for none.
        format: of the sources; ``auto`` looks.
        image_root: folder that image paths are relative to, where it is not the source's own.
        fields: names of columns: image, caption, context, numbers, categories.
        tokenizer: how captions are cut into tokens.
        vocabulary: when starting from a model folder: ``keep`` its vocabulary, ``extend`` it by this data's words, or
            ``replace`` it (rows of words that both have are copied).
        batch_size: images in a training step, at most: an epoch's batches are of one size.
        eval_batch_size: images at once in validation. None: 64, and on a GPU, which waits for its orders, 256.
        captions_per_image: how many captions of each image a step trains on; they share the image's latents.
        least_steps: an epoch of fewer steps goes over its images again, as often as it takes: so a recipe that counts
            in epochs does for few images as for many.
        paraphrases: probability that a paraphrase is trained on in place of a caption, where an example has some.
        balance: labels (``Example.labels``) whose rare combinations are drawn more often: by one over the square root
            of their count. An example without a label counts as a class of its own kind.
        augmentation: of training images. With a frozen backbone ``variants`` fixed draws of it are cached.
        variants: cached augmented versions of each training image besides the plain one (frozen backbone only).
        crop_mode: ``resize`` squashes the whole image into the input, ``crop`` takes the centre, ``pad`` adds a border.
        cache_dir: where regions of frozen backbones are kept, and data of many examples as columns.
        workers: processes that decode images when they are not cached.
        seed: of the order and choice of captions and of the augmentation; None takes the run's (``seed_everything``).
    """

    def __init__(
        self,
        train: str | list[str] | None = None,
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        *,
        val_share: float = 0.1,
        format: str = "auto",
        image_root: str | None = None,
        fields: Fields = Fields(),
        tokenizer: TokenizerConfig = TokenizerConfig(),
        vocabulary: str = "extend",
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        captions_per_image: int = 2,
        least_steps: int = 0,
        paraphrases: float = 0.0,
        balance: list[str] | None = None,
        augmentation: Augmentation | None = None,
        variants: int = 0,
        crop_mode: CropMode = "resize",
        cache_dir: str = "~/.cache/latentcap",
        workers: int = 2,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if vocabulary not in VOCABULARIES:
            raise UserError(f"data.vocabulary is '{vocabulary}': it must be one of {', '.join(VOCABULARIES)}.")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("captions_per_image", captions_per_image, 1),
            ("least_steps", least_steps, 0),
            ("workers", workers, 0),
            ("variants", variants, 0),
            ("seed", seed, 0),
        ):
            if value is not None and value < least:
                raise UserError(f"data.{name} is {value}: it must be {least} or more.")
        if not 0 <= paraphrases <= 1:
            raise UserError(f"data.paraphrases is {paraphrases}: it is a probability, from 0 to 1.")
        if not 0 <= val_share < 1:
            raise UserError(f"data.val_share is {val_share}: it must be at least 0 and below 1.")
        if variants and augmentation is None:
            raise UserError(f"data.variants is {variants} and data.augmentation is not set: say how variants differ.")
        self.sources: dict[str, Source] = {"train": train, "val": val, "test": test}
        self.val_share = val_share
        self.format, self.image_root, self.fields = format, image_root, fields
        self.tokenizer_config, self.vocabulary = tokenizer, vocabulary
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.captions_per_image, self.least_steps, self.paraphrases = captions_per_image, least_steps, paraphrases
        self.balance = balance or []
        self.augmentation, self.variants, self.crop_mode = augmentation, variants, crop_mode
        self.cache_dir, self.workers = Path(cache_dir).expanduser(), workers
        self.seed = 0 if seed is None else seed
        self.examples: dict[str, Sequence[Example]] = {}
        self.datasets: dict[str, CaptionDataset] = {}
        self._live = False  # images are decoded for every batch
        self._why_unknown = "not in the model's vocabulary"

    def setup(self, stage: str) -> None:
        """Read what the stage needs. Raises UserError for a source or split that has no examples."""
        wanted = STAGES.get(stage, ())
        if not all(split in self.examples for split in wanted):
            read = partial(
                read_examples,
                format=self.format,
                image_root=self.image_root,
                fields=self.fields,
                cache_dir=self.cache_dir,
            )
            self.examples |= read_splits(wanted, self.sources, read, val_share=self.val_share)

    # What the training examples say ------------------------------------------------------------------------------

    def build_tokenizer(self, base: CaptionTokenizer | None = None) -> CaptionTokenizer:
        """The vocabulary of the training texts, or ``base`` kept or extended as ``vocabulary`` says."""
        texts = TrainingTexts(self.examples["train"], self.paraphrases > 0)
        self._why_unknown = f"rarer than data.tokenizer.min_frequency {self.tokenizer_config.min_frequency}"
        if base is not None and self.vocabulary == "keep":
            self._why_unknown = "data.vocabulary is keep; extend adds them"
        return vocabulary_of(texts, self.tokenizer_config, base=base, mode=self.vocabulary)

    def context_fields(self) -> ContextFields:
        """Statistics of the named fields over the training examples."""
        return ContextFields.from_examples(
            self.examples["train"], numbers=self.fields.numbers, categories=self.fields.categories
        )

    # Preparing ---------------------------------------------------------------------------------------------------

    def prepare_datasets(
        self,
        *,
        tokenizer: CaptionTokenizer,
        context: ContextCollator,
        image: ImageConfig,
        slots: ViewSlots,
        max_length: int,
        frozen: FrozenLayers | None,
        labelled: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Make the datasets of the splits that were read.

        What ``frozen`` layers give is computed once for each image and cached; without them, images are decoded for
        every batch. ``labelled`` keeps training examples that have labels and no caption.
        """
        self._live = frozen is None
        for split, examples in self.examples.items():
            training = split == "train"
            augmentation = self.augmentation if training else None
            if frozen is not None:
                source: ImageSource = frozen.cached(
                    examples,
                    self.cache_dir,
                    image=image,
                    slots=slots,
                    augmentation=augmentation,
                    variants=self.variants + 1 if training else 1,
                    workers=max(1, self.workers),
                    progress=progress,
                )
            else:
                source = LoadedImages(VariedImage(image, augmentation), slots=slots)
            self.datasets[split] = CaptionDataset(
                examples,
                tokenizer=tokenizer,
                context=context,
                source=source,
                max_length=max_length,
                paraphrases=training and self.paraphrases > 0,
                labelled=labelled and training,
                shared=self._workers > 0,
                stand_ins=training,
            )
        if "train" in self.datasets:
            unit = "words" if tokenizer.kind == "word" else "pieces"
            logger.info(self.datasets["train"].coverage.describe(unit=unit, why_unknown=self._why_unknown))

    # Loading -----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> ResumableLoader:
        dataset = self.datasets["train"]
        changed = LIVE_VARIANTS if self.augmentation else 1
        sampler = CaptionBatchSampler(
            dataset.pools,
            batch_size=self.batch_size,
            captions_per_image=self.captions_per_image,
            least_steps=self.least_steps,
            paraphrases=self.paraphrases,
            weights=label_weights(dataset.examples, self.balance) if self.balance else None,
            variants=changed if self._live else self.variants + 1,
            seed=self.seed,
            rank=self._rank,
            world=self._world,
            completed=lambda: self.trainer.fit_loop.epoch_loop.batch_progress.current.completed if self.trainer else 0,
        )
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        batches = FixedBatches(sampler.plan(0)) if overfit else sampler
        return training_loader(dataset, batches, workers=self._workers, pin=self._on_gpu)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> DataLoader[Batch]:
        return evaluation_loader(
            self.datasets[split],
            batch_size=self.eval_batch_size or (EVAL_BATCH_ON_A_GPU if self._on_gpu else EVAL_BATCH),
            rank=self._rank,
            world=self._world,
            workers=self._workers,
            pin=self._on_gpu,
        )

    @property
    def _workers(self) -> int:
        return self.workers if self._live else 0

    @property
    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1
