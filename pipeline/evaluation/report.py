"""All that can be said about a set of captions: scores, how varied they are, and the same for a floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

from latentcap.data.words import unspaced_language
from latentcap.metrics.cider import cider
from latentcap.metrics.coco import coco_scores
from latentcap.metrics.scores import caption_scores
from latentcap.metrics.tokenize import Tokenizer, tokenize

COCO = ("METEOR", "SPICE")
PLAIN_CIDER = "CIDEr (plain)"
SCORES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr-D", PLAIN_CIDER, "SPICE")
COUNTS = ("distinct captions", "words used")
OF_ONE_IMAGE = (
    "none for one image: CIDEr weighs words by how few of the images' references share them, so that with one image "
    "every weight is 0, whatever the caption. Score a whole split; dozens of images at least"
)
Column: TypeAlias = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Report:
    """Scores of the captions and of the floor: one caption, the most frequent one known, given to every image.

    Both columns hold :data:`SCORES` (None: unavailable, see ``reasons``), :data:`COUNTS`, "mean length" in words and
    "novel share", the share of captions that are not word for word among the training captions (None: none known).
    ``beside`` holds the same for further systems, by name. ``unspaced`` is the language, if it is written without
    spaces between words.
    """

    captions: Column
    floor: Column
    floor_caption: str
    floor_from_training: bool
    reasons: dict[str, str]
    tokenizer: Tokenizer
    images: int
    references: int
    beside: dict[str, Column] = field(default_factory=dict)
    unspaced: str | None = None


def evaluate(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenizer: Tokenizer,
    train: Sequence[str] = (),
    beside: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """Score (B,) captions against (B, any number) references.

    Args:
        tokenizer: of the captions, the references and the training captions alike.
        train: the training captions; without them the floor is the most frequent reference.
        beside: captions (B,) of further systems, by name.

    Raises:
        ValueError: no caption, or an example without references.
        UserError: the tokenizer is unavailable.
    """
    others = dict(beside or {})
    written = [text for texts in others.values() for text in texts]
    unique = list(dict.fromkeys([*captions, *written, *train, *(text for group in references for text in group)]))
    words = dict(zip(unique, tokenize(unique, tokenizer), strict=True))
    hypotheses = [words[text] for text in captions]
    wanted = [[words[text] for text in group] for group in references]
    known = Counter(words[text] for text in train)
    frequencies = known or Counter(text for group in wanted for text in group)
    floor = max(frequencies, key=lambda text: (bool(text), frequencies[text]))

    def column(texts: Sequence[str]) -> tuple[Column, dict[str, str]]:
        programs, reasons = coco_scores(texts, wanted, metrics=COCO)
        scores: Column = {**caption_scores(texts, wanted), PLAIN_CIDER: cider(texts, wanted), **programs}
        if len(texts) == 1:
            scores |= dict.fromkeys(("CIDEr-D", PLAIN_CIDER))
            reasons |= {"CIDEr": OF_ONE_IMAGE}
        return {name: scores[name] for name in SCORES} | _variety(texts, known), reasons

    systems = [
        tuple(hypotheses),
        (floor,) * len(hypotheses),
        *(tuple(words[text] for text in texts) for texts in others.values()),
    ]
    distinct = list(dict.fromkeys(systems))  # an ablation often is a system that is there already
    with ThreadPoolExecutor(2) as pool:  # the Java programs of two systems run side by side
        columns = dict(zip(distinct, pool.map(column, distinct), strict=True))
    (scores, reasons), (floor_scores, _), *rest = (columns[system] for system in systems)
    return Report(
        captions=scores,
        floor=floor_scores,
        floor_caption=floor,
        floor_from_training=bool(known),
        reasons=reasons,
        tokenizer=tokenizer,
        images=len(captions),
        references=sum(map(len, references)),
        beside={name: scores for name, (scores, _) in zip(others, rest, strict=True)},
        unspaced=unspaced_language(text for group in references for text in group),
    )


def _variety(texts: Sequence[str], known: Counter[str]) -> Column:
    lengths = [len(text.split()) for text in texts]
    return {
        "distinct captions": len(set(texts)),
        "words used": len({word for text in texts for word in text.split()}),
        "mean length": sum(lengths) / len(texts),
        "novel share": sum(text not in known for text in texts) / len(texts) if known else None,
    }
