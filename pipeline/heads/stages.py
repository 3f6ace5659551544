"""The stages of a pruning: one model folder for each number of heads, kept so that an interrupted run goes on."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, TypeAlias

from latentcap.batch.run_folder import model_hash
from latentcap.captioner import Captioner
from latentcap.config import FusionConfig
from latentcap.data.batches.datamodule import CaptionData
from latentcap.data.errors import UserError
from latentcap.heads.laboratory import Laboratory
from latentcap.model.prune import prune_heads
from latentcap.training.card import model_card

QUALITY = "CIDEr-D"
FULL = "full"
SCORED_BATCHES = 50  # training batches that a head's importance is the mean over

# What stage.json holds: heads that are left and that were removed, as the full model numbers them; scores; importance
# of those that are left; scores of the full model after as much fine-tuning, "beside".
Stage: TypeAlias = dict[str, Any]


class Pruning:
    """The output folder: ``stages/N`` is the model folder with N heads, whole once it has a ``stage.json``.

    Fine-tuning alone changes a model, so each stage is compared with the full model fine-tuned as often and as long,
    which is ``stages/N/full``.

    Raises UserError where the folder holds the stages of a pruning with other settings.
    """

    def __init__(self, options: argparse.Namespace, sizes: FusionConfig) -> None:
        self.options, self.sizes = options, sizes
        self.folder: Path = options.output
        recipe = options.recipe.read_text(encoding="utf-8") if options.recipe and options.recipe.is_file() else None
        settings = {"model": model_hash(options.model), "data": options.data, "val": options.val, "recipe": recipe}
        settings |= {"steps": options.steps, "seed": options.seed}
        path = self.folder / "stages" / "settings.json"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != settings:
            raise UserError(
                f"--output {self.folder} holds the stages of a pruning with another model, data, recipe, steps or "
                "seed. Choose another folder, or delete that one."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--output {self.folder}: cannot be written ({error.strerror}).") from None

    def model(self, stage: Stage) -> Path:
        """The model folder of a stage."""
        heads = self.sizes.visual_heads + self.sizes.text_heads
        return self.options.model if len(stage["kept"]) == heads else self._place(len(stage["kept"]))

    def first(self, laboratory: Laboratory) -> Stage:
        """Score the full model, and its heads."""
        heads = self.sizes.visual_heads + self.sizes.text_heads
        known = self._known(heads)
        if known is not None:
            return known
        stage = self._measure(laboratory, {"kept": list(range(heads)), "removed": []})
        return self._write({**stage, "beside": stage["scores"]})

    def next(self, laboratory: Laboratory, stage: Stage) -> Stage:
        """Remove the least important head of a stage, fine-tune, score. What was done before is read from its file."""
        heads, importance = len(stage["kept"]) - 1, stage["importance"]
        known = self._known(heads)
        if known is not None:
            return known
        weakest = min(range(len(importance)), key=importance.__getitem__)
        kept = [head for place, head in enumerate(stage["kept"]) if place != weakest]
        removed = [*stage["removed"], stage["kept"][weakest]]
        print(f"{heads} heads: without {self.name(removed[-1])}", flush=True)
        captioner = Captioner.from_pretrained(self.model(stage))
        prune_heads(captioner.model, [place for place in range(heads + 1) if place != weakest])
        self._tune(laboratory, captioner, len(removed), self._place(heads))
        found = self._measure(laboratory, {"kept": kept, "removed": removed})
        return self._write(
            {**found, "beside": self._beside(laboratory, stage, len(removed), self._place(heads) / FULL)}
        )

    def _beside(self, laboratory: Laboratory, before: Stage, times: int, folder: Path) -> dict[str, float]:
        """Scores of the full model, fine-tuned once more than at the stage before."""
        if not self.options.steps:
            return dict(before["beside"])
        earlier = self._place(len(before["kept"])) / FULL
        captioner = Captioner.from_pretrained(earlier if before["removed"] else self.options.model)
        self._tune(laboratory, captioner, times, folder)
        return laboratory.scores(Captioner.from_pretrained(folder), folder)

    def _tune(self, laboratory: Laboratory, captioner: Captioner, times: int, folder: Path) -> None:
        """Fine-tune for the ``times``-th time and save."""
        if self.options.steps:
            laboratory.fine_tune(captioner, steps=self.options.steps, seed=self.options.seed + times, folder=folder)
        captioner.save(folder)

    def _measure(self, laboratory: Laboratory, stage: Stage) -> Stage:
        """Add scores and importance of the folder as it was saved."""
        captioner = Captioner.from_pretrained(self.model(stage))
        stage["scores"] = laboratory.scores(captioner, self._place(len(stage["kept"])))
        stage["importance"] = laboratory.importance(captioner, SCORED_BATCHES)
        return stage

    def _write(self, stage: Stage) -> Stage:
        """Write ``stage.json``: the stage is done."""
        path = self._place(len(stage["kept"])) / "stage.json"
        path.write_text(json.dumps(stage, indent=2) + "\n", encoding="utf-8")
        return stage

    def share(self, stage: Stage) -> float:
        """Its quality, that of the full model being 1: as it was given or after as much tuning, whichever is better."""
        heads = self.sizes.visual_heads + self.sizes.text_heads
        given = self._known(heads) or stage
        full = max(given["scores"][QUALITY], stage["beside"][QUALITY])
        return float(stage["scores"][QUALITY] / full) if full else 1.0

    def _known(self, heads: int) -> Stage | None:
        path = self._place(heads) / "stage.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _place(self, heads: int) -> Path:
        return self.folder / "stages" / str(heads)

    def name(self, head: int) -> str:
        """A head as the full model numbers it, from 1."""
        visual = self.sizes.visual_heads
        return f"visual head {head + 1}" if head < visual else f"text head {head - visual + 1}"

    def split(self, stage: Stage) -> str:
        """Visual + text heads that are left."""
        visual = sum(head < self.sizes.visual_heads for head in stage["kept"])
        return f"{visual}+{len(stage['kept']) - visual}"

    def line(self, stage: Stage) -> str:
        heads = f"{len(stage['kept'])} heads ({self.split(stage)})"
        quality = stage["scores"][QUALITY]
        return f"{heads}: {QUALITY} {quality:.3f}, {self.share(stage):.1%} of the full model's as long fine-tuned"

    def finish(self, stage: Stage, data: CaptionData, settings: dict[str, Any]) -> None:
        """Put the chosen stage's model folder, with its card, at the top of the output folder."""
        captioner = Captioner.from_pretrained(self.model(stage))
        removed = [self.name(head) for head in stage["removed"]]
        steps = self.options.steps
        text = (
            f"Pruned from {self.options.model.name} ({self.sizes.visual_heads} visual and {self.sizes.text_heads} text "
            f"heads): without {', '.join(removed) or 'nothing'}, in this order, each followed by {steps} steps."
        )
        examples = len(data.datasets["train"]) if "train" in data.datasets else 1
        card = model_card(
            captioner,
            command=f"latentcap heads prune --until {self.options.until} --steps {steps}",
            data={split: len(examples) for split, examples in data.examples.items()},
            source=data.sources,
            scores=stage["scores"],
            settings=settings,
            epochs=round(steps * len(removed) * data.batch_size / examples),
            started=text,
        )
        left_out = shutil.ignore_patterns("README.md", FULL)
        shutil.copytree(self.model(stage), self.folder, dirs_exist_ok=True, ignore=left_out)
        (self.folder / "stage.json").unlink(missing_ok=True)
        (self.folder / "README.md").write_text(card, encoding="utf-8")
