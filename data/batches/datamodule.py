"""The data of a run: where examples come from, the vocabulary and statistics they give, and the loaders."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from latentcap.data.batches.context import ContextCollator, ContextFields
from latentcap.data.batches.dataset import Batch, CachedRegions, CaptionDataset, ImageSource, LoadedImages
from latentcap.data.batches.sampler import CaptionBatchSampler, Draw, balanced_weights
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.batches.transforms import (
    Augmentation,
    CropMode,
    ImageConfig,
    decode_for,
    eval_transform,
    train_transform,
)
from latentcap.data.cache.extract import extract
from latentcap.data.cache.store import FeatureCache
from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.example import Example
from latentcap.data.readers import Fields, read_examples
from latentcap.data.readers.splits import refuse_leaks

logger = logging.getLogger(__name__)

VOCABULARIES = ("replace", "keep", "extend")


@dataclass
class TokenizerConfig:
    """How captions are cut into tokens.

    Attributes:
        kind: ``word`` (lower case, no punctuation, as COCO scores them) or ``bpe`` (any text, exactly; for languages
            that are written without spaces between words).
        min_frequency: words that occur less often in the training texts are unknown; pairs of pieces that do are not
            joined (bpe).
        vocab_size: number of pieces (bpe).
        sentences: full stops are words too (word level): for reports of several sentences.
    """

    kind: Literal["word", "bpe"] = "word"
    min_frequency: int = 2
    vocab_size: int = 8000
    sentences: bool = False


class ResumableLoader(DataLoader[Batch]):
    """A loader that goes on in the middle of an epoch: its sampler skips what the trainer's progress says is done.

    The two methods tell the trainer that it may resume there; they have nothing to keep.
    """

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


class CaptionData(L.LightningDataModule):
    """Training, validation and test examples.

    Args:
        train: a folder, file, tar pattern or list of them; see ``latentcap.data.readers``. Its ``split`` fields
            count where ``val`` or ``test`` are not given.
        val, test: likewise; None takes the split of that name in ``train``.
        format: of the sources; ``auto`` looks.
        image_root: folder that image paths are relative to, where it is not the source's own.
        fields: names of columns: image, caption, context, numbers, categories.
        tokenizer: how captions are cut into tokens.
        vocabulary: when starting from a model folder: ``keep`` its vocabulary, ``extend`` it by this data's words, or
            ``replace`` it (rows of words that both have are copied).
        batch_size: images in a training step.
        eval_batch_size: images at once in validation.
        captions_per_image: how many captions of each image a step trains on; they share the image's latents.
        paraphrases: probability that a paraphrase is trained on in place of a caption, where an example has some.
        balance: labels (``Example.labels``) whose rare combinations are drawn more often: by one over the square root
            of their count. An example without a label counts as a class of its own kind.
        augmentation: of training images. With a frozen backbone ``variants`` fixed draws of it are cached.
        variants: cached augmented versions of each training image besides the plain one (frozen backbone only).
        crop_mode: ``resize`` squashes the whole image into the input, ``crop`` takes the centre, ``pad`` adds a border.
        cache_dir: where regions of frozen backbones are kept.
        workers: processes that decode images when they are not cached.
        seed: of the order and choice of captions.
    """

    def __init__(
        self,
        train: str | list[str] | None = None,
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        *,
        format: str = "auto",
        image_root: str | None = None,
        fields: Fields = Fields(),
        tokenizer: TokenizerConfig = TokenizerConfig(),
        vocabulary: str = "extend",
        batch_size: int = 64,
        eval_batch_size: int = 64,
        captions_per_image: int = 2,
        paraphrases: float = 0.0,
        balance: list[str] | None = None,
        augmentation: Augmentation | None = None,
        variants: int = 0,
        crop_mode: CropMode = "resize",
        cache_dir: str = "~/.cache/latentcap",
        workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if vocabulary not in VOCABULARIES:
            raise UserError(f"data.vocabulary is '{vocabulary}': it must be one of {', '.join(VOCABULARIES)}.")
        for name, value in (("batch_size", batch_size), ("captions_per_image", captions_per_image)):
            if value < 1:
                raise UserError(f"data.{name} is {value}: it must be 1 or more.")
        if variants and augmentation is None:
            raise UserError(f"data.variants is {variants} and data.augmentation is not set: say how variants differ.")
        self.sources = {"train": train, "val": val, "test": test}
        self.format, self.image_root, self.fields = format, image_root, fields
        self.tokenizer_config, self.vocabulary = tokenizer, vocabulary
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.captions_per_image, self.paraphrases = captions_per_image, paraphrases
        self.balance = balance or []
        self.augmentation, self.variants, self.crop_mode = augmentation, variants, crop_mode
        self.cache_dir, self.workers, self.seed = Path(cache_dir).expanduser(), workers, seed
        self.examples: dict[str, list[Example]] = {}
        self.datasets: dict[str, CaptionDataset] = {}
        self.image: ImageConfig | None = None

    # Reading -----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Read what the stage needs. Raises UserError for a source or split that has no examples."""
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ()):
            if split not in self.examples:
                self.examples[split] = self._read(split)
        refuse_leaks((example for part in self.examples.values() for example in part), "data.train, data.val")

    def _read(self, split: str) -> list[Example]:
        own = self.sources[split]
        source = own if own is not None else self.sources["train"]
        if source is None:
            raise UserError(f"no {split} data: set data.{split} to a folder, a file or tars (--data.{split} PATH).")
        examples = read_examples(source, format=self.format, image_root=self.image_root, fields=self.fields)
        chosen = [example for example in examples if example.split == split]
        if own is not None and not chosen:
            # A source of its own is that split, whatever it calls itself.
            chosen = [replace(example, split=split) for example in examples]
        if not chosen:
            counts = {name: sum(e.split == name for e in examples) for name in sorted({e.split for e in examples})}
            have = ", ".join(f"{name} ({count})" for name, count in counts.items())
            raise UserError(
                f"no '{split}' examples in {source}: its splits are {have}. Set data.{split} to a source of its own, "
                "or give the examples a 'split' field."
            )
        return chosen

    def build_tokenizer(self, base: CaptionTokenizer | None = None) -> CaptionTokenizer:
        """The vocabulary of the training texts, or ``base`` kept or extended as ``vocabulary`` says."""
        if base is not None and self.vocabulary == "keep":
            return base
        texts: list[str] = []
        for example in self.examples["train"]:
            texts += example.captions
            texts += example.paraphrases if self.paraphrases else ()
            if example.context:
                texts.append(example.context)
        config = self.tokenizer_config
        if base is not None and self.vocabulary == "extend":
            return base.extend(texts, min_frequency=config.min_frequency, sentences=config.sentences)
        return CaptionTokenizer.train(
            texts,
            kind=config.kind,
            min_frequency=config.min_frequency,
            vocab_size=config.vocab_size,
            sentences=config.sentences,
        )

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
        max_length: int,
        encode: Callable[[Tensor], Tensor] | None,
        fingerprint: str = "",
        shape: tuple[int, int] = (0, 0),
        cached: str = "regions",
        batch_size: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Make the datasets of the splits that were read.

        With ``encode``, the frozen backbone's (B, 3, H, W) to regions (B, N, C) of the given ``shape``, every image's
        regions are computed once, ``batch_size`` at a time, and cached under ``fingerprint``; without it, images are
        decoded for every batch. ``cached`` names the field of :class:`Batch` that they are.
        """
        self.image = image
        for split, examples in self.examples.items():
            variants = self.variants + 1 if split == "train" and encode else 1
            if encode is not None:
                source = self._extract(
                    examples, image, variants, encode, fingerprint, shape, cached, batch_size, progress
                )
            else:
                training = split == "train" and self.augmentation is not None
                source = LoadedImages(image, self._augmented if training else self._plain)
            self.datasets[split] = CaptionDataset(
                examples,
                tokenizer=tokenizer,
                context=context,
                source=source,
                max_length=max_length,
                paraphrases=split == "train" and self.paraphrases > 0,
            )

    def _extract(
        self,
        examples: list[Example],
        image: ImageConfig,
        variants: int,
        encode: Callable[[Tensor], Tensor],
        fingerprint: str,
        shape: tuple[int, int],
        cached: str,
        batch_size: int,
        progress: Callable[[int, int], None] | None,
    ) -> ImageSource:
        refs = [ref for example in examples for ref in example.images]
        if variants > 1:
            fingerprint += f" {self.augmentation}"
        cache = FeatureCache(self.cache_dir, key=fingerprint, shape=shape)
        report = extract(
            refs,
            cache=cache,
            encode=encode,
            transform_for=lambda variant: self._augmented(variant) if variant else self._plain(0),
            variants=variants,
            decode=lambda encoded: decode_for(encoded, image),
            batch_size=batch_size,
            workers=max(1, self.workers),
            progress=progress,
        )
        for ref, reason in report.unreadable:
            logger.warning("skipped: %s (%s)", ref, reason)
        cache.refresh()
        return CachedRegions(cache, examples, cached)

    def _plain(self, variant: int) -> Callable[..., Tensor]:
        assert self.image is not None
        return eval_transform(self.image)

    def _augmented(self, variant: int) -> Callable[..., Tensor]:
        assert self.image is not None
        return train_transform(self.image, augmentation=self.augmentation or Augmentation())

    # Loading -----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> ResumableLoader:
        dataset = self.datasets["train"]
        cached = isinstance(dataset.source, CachedRegions)
        sampler = CaptionBatchSampler(
            dataset.pools,
            batch_size=self.batch_size,
            captions_per_image=self.captions_per_image,
            paraphrases=self.paraphrases,
            weights=self._balanced(dataset.examples),
            variants=self.variants + 1 if cached else 1,
            seed=self.seed,
            rank=self._rank,
            world=self._world,
            completed=lambda: self.trainer.fit_loop.epoch_loop.batch_progress.current.completed if self.trainer else 0,
        )
        workers = 0 if cached else self.workers
        return ResumableLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # a loader that draws from the global state would shift what follows
        )

    def _balanced(self, examples: list[Example]) -> list[float] | None:
        known = sorted({name for example in examples for name in example.labels})
        for name in self.balance:
            if name not in known:
                raise UserError(
                    f"data.balance names '{name}', which no training example has.{did_you_mean(name, known)} "
                    f"Labels: {', '.join(known) or 'none'}."
                )
        classes = [tuple(example.labels.get(name) for name in self.balance) for example in examples]
        return balanced_weights(classes) if self.balance else None

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> DataLoader[Batch]:
        """Every example once, this rank's share, with its first caption for the loss."""
        dataset = self.datasets[split]
        mine = [Draw(index, (0,), 0) for index in range(self._rank, len(dataset), self._world)]
        batches = [mine[at : at + self.eval_batch_size] for at in range(0, len(mine), self.eval_batch_size)]
        workers = 0 if isinstance(dataset.source, CachedRegions) else self.workers
        generator = torch.Generator()
        return DataLoader(dataset, batch_size=None, sampler=batches, num_workers=workers, generator=generator)

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1
