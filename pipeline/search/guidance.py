"""Words that the label head sees in an image, as a guide for the search.

Dimension letters: B examples, G beams, V vocabulary, L words so far, C words that the head knows, H captions found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.readers.fields import WORDS
from latentcap.model.label_head import LabelHead
from latentcap.search.hypotheses import Hypothesis

UNSURE = 0.2  # a word that the head gives less than this probability costs something
LEAST_SHARE = 1e-4  # of the training examples
WHOLE = 6.0  # what a whole caption's agreement weighs beside that of a word


def words_of(head: LabelHead | None, tokenizer: CaptionTokenizer) -> dict[int, int]:
    """Which classes of the label that is the captions' words are words of a vocabulary: class to id."""
    if head is None or WORDS not in head.lists or tokenizer.kind != "word":
        return {}
    ids = {place: tokenizer.token_to_id(word) for place, word in enumerate(head.classes[WORDS])}
    return {place: token for place, token in ids.items() if token is not None}


def rarity_of(head: LabelHead, classes: Iterable[int]) -> Tensor:
    """Nats: of each of these words, the logarithm of one over the share of training examples that have it."""
    return -torch.tensor([head.lists[WORDS][place] for place in classes]).clamp(LEAST_SHARE, 1).log()


class Guidance:
    r"""What words and captions gain because the head sees them (word detectors: Fang et al. 2015, arXiv 1411.4952).

    A word w, of probability :math:`p_w` and in a share :math:`d_w` of the training examples, is worth

    .. math:: \lambda \, (p_w - 0.2) \, \log(1 / d_w)

    nats to a beam that has not written it. The captions found are then ranked by their own score, without that, and
    :math:`6 \lambda` times the cosine between their counts of the head's words and :math:`p`, both weighed by
    :math:`\log(1 / d_w)`: what CIDEr would say of single words if the head were right. Words that the head does not
    know count for nothing.

    Args:
        probabilities: of the head's words in each image, (B, C).
        rarity: :math:`\log(1 / d)`, (C,).
        ids: the head's words in the vocabulary, (C,).
        weight: :math:`\lambda`, ``SearchConfig.guidance``.
    """

    def __init__(self, probabilities: Tensor, rarity: Tensor, ids: Tensor, weight: float) -> None:
        self.ids, self.rarity, self.weight = ids, rarity, weight
        self.worth = weight * (probabilities - UNSURE) * rarity
        self.seen = torch.nn.functional.normalize(probabilities * rarity, dim=-1)

    @classmethod
    def of(
        cls, head: LabelHead | None, logits: Tensor | None, tokenizer: CaptionTokenizer, weight: float
    ) -> Guidance | None:
        """What a model's label head says with its logits (B, L); None where it knows no words of the vocabulary."""
        words = {} if not weight or logits is None else words_of(head, tokenizer)
        if head is None or logits is None or not words:
            return None
        return cls(
            head.probabilities(logits)[:, head.span(WORDS)][:, list(words)],
            rarity_of(head, words).to(logits.device),
            torch.tensor(list(words.values()), device=logits.device),
            weight,
        )

    def gain(self, log_probs: Tensor, rows: Tensor, prefix: Tensor) -> Tensor:
        """What beams are ranked by, (B, G, V), given log-probabilities and the words so far (B, G, L) of examples
        ``rows`` (B,)."""
        written = torch.zeros_like(log_probs, dtype=torch.bool).scatter_(-1, prefix, True)
        worth = self.worth[rows].unsqueeze(1).masked_fill(written[..., self.ids], 0)
        return log_probs.index_add(-1, self.ids, worth)

    def ranked(self, found: Sequence[Sequence[Hypothesis]]) -> list[list[Hypothesis]]:
        """The captions found of each example, those first that say what the head sees; their scores stay."""
        counts = self._counts([hypothesis for hypotheses in found for hypothesis in hypotheses])
        said = torch.nn.functional.normalize(counts * self.rarity.cpu(), dim=-1)
        example = torch.tensor([row for row, hypotheses in enumerate(found) for _ in hypotheses])
        agreement = iter(((said * self.seen.cpu()[example]).sum(-1) * WHOLE * self.weight).tolist())
        ranks = [
            [(hypothesis.score + next(agreement), hypothesis) for hypothesis in hypotheses] for hypotheses in found
        ]
        return [[hypothesis for _, hypothesis in sorted(row, key=lambda pair: -pair[0])] for row in ranks]

    def _counts(self, hypotheses: Sequence[Hypothesis]) -> Tensor:
        """How often each caption has each of the head's words, (H, C)."""
        places = {token: place for place, token in enumerate(self.ids.tolist())}
        counts = torch.zeros(len(hypotheses), len(places))
        pairs = [
            (row, places[token])
            for row, hypothesis in enumerate(hypotheses)
            for token in hypothesis.tokens
            if token in places
        ]
        if pairs:
            rows, columns = torch.tensor(pairs).T
            counts.index_put_((rows, columns), torch.ones(len(pairs)), accumulate=True)
        return counts
