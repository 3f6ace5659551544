"""Caption scores: plain functions over texts, and :class:`CaptionMetrics`, which is right under distributed training.

Only the latter needs torch, so it is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latentcap.metrics.coco import coco_scores
from latentcap.metrics.scores import caption_scores
from latentcap.metrics.tokenize import Tokenizer, tokenize, tokenize_words

if TYPE_CHECKING:
    from latentcap.metrics.collection import CaptionMetrics

__all__ = ["CaptionMetrics", "Tokenizer", "caption_scores", "coco_scores", "tokenize", "tokenize_words"]


def __getattr__(name: str) -> Any:
    if name == "CaptionMetrics":
        from latentcap.metrics.collection import CaptionMetrics

        return CaptionMetrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
