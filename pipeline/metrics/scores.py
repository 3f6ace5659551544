"""All scores that need nothing but Python, by name."""

from __future__ import annotations

from collections.abc import Sequence

from latentcap.metrics.bleu import bleu
from latentcap.metrics.cider import cider_d
from latentcap.metrics.rouge import rouge_l

SCORES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D")


def caption_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D of a whole corpus, as COCO's evaluation computes them.

    Args:
        hypotheses: (B,) one caption per example, words separated by spaces.
        references: (B, any number) what people wrote about each example, likewise; at least one each.

    Raises:
        ValueError: no example, or one without references.
    """
    if not hypotheses:
        raise ValueError("no captions to score")
    if not all(references):
        raise ValueError("an example without references cannot be scored: leave it out")
    values = [*bleu(hypotheses, references), rouge_l(hypotheses, references), cider_d(hypotheses, references)]
    return dict(zip(SCORES, values, strict=True))
