"""Caption scores as a torchmetrics metric that is right on one process and on many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from latentcap.metrics.scores import caption_scores
from latentcap.metrics.tokenize import Tokenizer, tokenize


class CaptionMetrics(Metric):
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D of all captions seen on all processes.

    The state is the captions' text, as bytes in one uint8 tensor that torchmetrics concatenates across processes: the
    document frequencies of CIDEr-D belong to the whole corpus, and an example that a distributed sampler repeated to
    even out its processes can be counted once only where it is known which example it was.

    Args:
        tokenizer: "words" for our own rules, "ptb" for COCO's (needs the ``coco`` extra), None for texts that are
            words separated by spaces already. Texts are tokenised when the scores are computed.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    lines: list[Tensor]

    def __init__(self, *, tokenizer: Tokenizer | None = "words", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokenizer = tokenizer
        self.add_state("lines", default=[], dist_reduce_fx="cat")

    def update(
        self, hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, ids: Sequence[int | str] | None = None
    ) -> None:
        """Add (B,) captions and their (B, any number) references; of each id only the first is counted.

        Raises:
            ValueError: lengths differ, or an example has no reference.
        """
        if not all(references):
            raise ValueError("an example without references cannot be scored: leave it out")
        records = zip(ids if ids is not None else [None] * len(hypotheses), hypotheses, references, strict=True)
        text = "".join(json.dumps([id, hypothesis, list(group)]) + "\n" for id, hypothesis, group in records)
        if text:
            self.lines.append(torch.frombuffer(bytearray(text, "ascii"), dtype=torch.uint8).to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """``{"BLEU-1": (), ..., "BLEU-4": (), "ROUGE-L": (), "CIDEr-D": ()}``, float32. Raises ValueError if empty."""
        text = dim_zero_cat(self.lines).cpu().numpy().tobytes().decode("ascii") if len(self.lines) else ""
        hypotheses: list[str] = []
        references: list[list[str]] = []
        seen = set()
        for id, hypothesis, group in map(json.loads, text.splitlines()):
            if id is None or id not in seen:
                seen.add(id)
                hypotheses.append(hypothesis)
                references.append(group)
        unique = list(dict.fromkeys([*hypotheses, *(text for group in references for text in group)]))
        words = dict(zip(unique, tokenize(unique, self.tokenizer), strict=True))
        scores = caption_scores(
            [words[text] for text in hypotheses], [[words[text] for text in group] for group in references]
        )
        return {name: torch.tensor(score, device=self.device) for name, score in scores.items()}

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """A process that saw nothing takes part with bytes, too: torchmetrics would send floats in their place."""
        if not len(self.lines):
            self.lines = [torch.empty(0, dtype=torch.uint8, device=self.device)]
        super()._sync_dist(*args, **kwargs)
