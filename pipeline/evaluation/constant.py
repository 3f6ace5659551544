"""The one training caption that serves best for every image: what a model that looks at nothing could write."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from latentcap.metrics.cider import CiderScorer
from latentcap.metrics.tokenize import Tokenizer, tokenize

SAMPLE = 500  # training captions that a constant is chosen by
CANDIDATES = 50


def best_constant(train: Sequence[str], *, tokenizer: Tokenizer, seed: int = 0) -> str:
    """Of the :data:`CANDIDATES` most frequent captions the one with the highest CIDEr-D against the others.

    The others are :data:`SAMPLE` different ones, drawn by ``seed``: a caption that only repeats itself is not typical.
    Where captions are long, the most frequent one is short and far from the best. Raises ValueError where there is
    none.
    """
    frequent = [text for text, _ in Counter(sorted(train)).most_common(CANDIDATES)]
    texts = sorted(set(train))
    drawn = random.Random(seed).sample(texts, min(SAMPLE, len(texts)))
    unique = list(dict.fromkeys([*frequent, *drawn]))
    words = dict(zip(unique, tokenize(unique, tokenizer), strict=True))
    scorer = CiderScorer([[words[text]] for text in drawn])
    return max(frequent, key=lambda text: sum(scorer.score(words[text], place) for place in range(len(drawn))))
