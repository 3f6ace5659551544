"""METEOR on exact matches (Denkowski and Lavie, 2014): agreement in words, recall first, and in their order.

The full METEOR also matches stems, synonyms and paraphrases and is a Java program (``coco.py``). This part of it is
fast enough to be a reward in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Version 1.5's parameters for ranking English, but for the lower weight of function words, which needs a list of them.
ALPHA = 0.85  # weight of recall in the harmonic mean
BETA, GAMMA = 0.2, 0.6  # shape and size of the penalty on matches that are scattered over many chunks


def meteor_exact(hypothesis: str, group: Iterable[str]) -> float:
    """The best score of one caption against any of an example's references, 0 to 1; words separated by spaces."""
    words = hypothesis.split()
    return max((_against(words, reference.split()) for reference in group), default=0.0)


def _against(words: Sequence[str], wanted: Sequence[str]) -> float:
    matches, chunks = align(words, wanted)
    if not matches:
        return 0.0
    precision, recall = matches / len(words), matches / len(wanted)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    whole = matches == len(words) == len(wanted) and chunks == 1
    return mean * (1 - (0.0 if whole else GAMMA * (chunks / matches) ** BETA))


def align(first: Sequence[str], second: Sequence[str]) -> tuple[int, int]:
    """How many words of two texts match one to one, and in how many chunks that are contiguous in both.

    The longest common run of words that are still free is matched first, and again until none is left (greedy string
    tiling, Wise 1993): every word that can be matched is, in nearly as few chunks as possible.
    """
    left, right = list(first), list(second)
    matches = chunks = 0
    while True:
        longest, end_left, end_right = 0, 0, 0
        above = [0] * (len(right) + 1)  # length of the common run that ends at the word before, and at each of right
        for i, word in enumerate(left, start=1):
            row = [0] * (len(right) + 1)
            for j, other in enumerate(right, start=1):
                if word == other:
                    row[j] = above[j - 1] + 1
                    if row[j] > longest:
                        longest, end_left, end_right = row[j], i, j
            above = row
        if not longest:
            return matches, chunks
        matches, chunks = matches + longest, chunks + 1
        left[end_left - longest : end_left] = [f"\0{chunks}"]  # what stands in for a match meets nothing
        right[end_right - longest : end_right] = [f"\1{chunks}"]
