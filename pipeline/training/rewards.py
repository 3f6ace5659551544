"""What a caption that the model sampled earns beside the references of its image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.example import Example
from latentcap.data.readers.medical.chexpert import OBSERVATIONS, observations_in
from latentcap.metrics.cider import CiderScorer
from latentcap.metrics.meteor import meteor_exact
from latentcap.metrics.rouge import rouge_l_of

END = "<eos>"

Scorer = Callable[[list[int], int], float]  # word ids of a caption, the place of its example


def weighed(weights: Mapping[str, float], examples: Sequence[Example], tokenizer: CaptionTokenizer) -> Scorer:
    """The sum of what is rewarded, each times its weight. Document frequencies are those of the references.

    The end of a caption counts as a word, so that one that breaks off ("next to a") earns less.
    """
    known = {"CIDEr-D": _words, "ROUGE-L": _words, "METEOR": _words, "CheXpert": _observations}
    makers = {known[name] for name, weight in weights.items() if weight}
    scorers = {name: score for make in makers for name, score in make(examples, tokenizer).items()}
    parts = [(weight, scorers[name]) for name, weight in weights.items() if weight]
    return lambda ids, example: sum(weight * score(ids, example) for weight, score in parts)


def _words(examples: Sequence[Example], tokenizer: CaptionTokenizer) -> dict[str, Scorer]:
    """Agreement in words: CIDEr-D (0 to 10), ROUGE-L, METEOR (exact matches; 0 to 1)."""

    def text(ids: list[int]) -> str:  # their numbers do as well as their letters
        return " ".join([*map(str, ids), END])

    references = [[text(tokenizer.encode(caption)) for caption in example.captions] for example in examples]
    cider = CiderScorer(references)
    groups = [frozenset(group) for group in references]
    return {
        "CIDEr-D": lambda ids, example: cider.score(text(ids), example),
        "ROUGE-L": lambda ids, example: rouge_l_of(text(ids), groups[example]),
        "METEOR": lambda ids, example: meteor_exact(text(ids), groups[example]),
    }


def _observations(examples: Sequence[Example], tokenizer: CaptionTokenizer) -> dict[str, Scorer]:
    """F1 of the CheXpert observations that a report states or suspects, 0 to 1; the best of an example's references.

    An observation weighs one over the square root of how many references have it: what is rare counts, and "no finding"
    for every film does not pay.
    """
    groups = [[frozenset(observations_in(caption)) for caption in example.captions] for example in examples]
    counts = Counter(name for group in groups for stated in group for name in stated)
    weights = {name: max(1, counts[name]) ** -0.5 for name in OBSERVATIONS}

    def agreement(stated: frozenset[str], wanted: frozenset[str]) -> float:
        total = sum(weights[name] for name in (*stated, *wanted))
        return 2 * sum(weights[name] for name in stated & wanted) / total if total else 1.0

    def score(ids: list[int], example: int) -> float:
        stated = frozenset(observations_in(tokenizer.decode(ids)))
        return max((agreement(stated, wanted) for wanted in groups[example]), default=0.0)

    return {"CheXpert": score}
