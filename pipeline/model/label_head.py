"""A second task on the image: classes such as modality, plane or normal, predicted beside the caption.

The decoder may be told what is predicted: ``ModelConfig.reads_labels``.

Dimension letters: B examples, C channels of the regions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.example import Example

MIN_COUNT = 5  # a class of fewer training examples cannot be learned: its examples have no label


class LabelHead(nn.Module):
    """One linear layer for each label on the mean region: it sees the image alone, no context and no words.

    ``classes`` names the values of each label. An unknown value is no target.
    """

    def __init__(self, channels: int, classes: Mapping[str, Sequence[str]], *, dropout: float) -> None:
        super().__init__()
        self.classes = {name: list(values) for name, values in classes.items()}
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(channels, len(values)) for values in self.classes.values())

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        """Mean regions (B, C) to logits (B, number of classes) of each label."""
        hidden = self.dropout(self.norm(pooled))
        return {name: head(hidden) for name, head in zip(self.classes, self.heads, strict=True)}

    @property
    def num_classes(self) -> int:
        """Classes of all labels together, L."""
        return sum(map(len, self.classes.values()))

    @torch.no_grad()
    def probabilities(self, pooled: Tensor) -> Tensor:
        """Mean regions (B, C) to the probabilities of all classes of all labels, (B, L), without gradients."""
        return torch.cat([logits.float().softmax(-1).to(pooled.dtype) for logits in self(pooled).values()], -1)

    def loss(self, pooled: Tensor, labels: Sequence[Mapping[str, str]]) -> Tensor:
        """Mean over the labels of the cross-entropy; missing values are left out. Zero where none is known."""
        losses = []
        for name, logits in self(pooled).items():
            targets = self.targets(name, labels).to(logits.device)
            if (targets >= 0).any():
                losses.append(nn.functional.cross_entropy(logits.float(), targets, ignore_index=-1))
        return torch.stack(losses).mean() if losses else pooled.new_zeros(())

    def targets(self, name: str, labels: Sequence[Mapping[str, str]]) -> Tensor:
        """Class indices (B,) of one label, -1 where it is missing."""
        index = {value: number for number, value in enumerate(self.classes[name])}
        return torch.tensor([index.get(row.get(name, ""), -1) for row in labels])

    @torch.no_grad()
    def predict(self, pooled: Tensor) -> list[dict[str, tuple[str, float]]]:
        """For each example the likeliest class of each label, and its probability."""
        found: list[dict[str, tuple[str, float]]] = [{} for _ in range(len(pooled))]
        for name, logits in self(pooled).items():
            shares, indices = logits.float().softmax(-1).max(-1)
            for row, share, index in zip(found, shares.tolist(), indices.tolist(), strict=True):
                row[name] = (self.classes[name][index], share)
        return found


def label_classes(examples: Sequence[Example], names: Sequence[str]) -> dict[str, list[str]]:
    """The classes of each label that at least :data:`MIN_COUNT` training examples have.

    Raises UserError for a label that no example has, or that has fewer than two such classes.
    """
    found = {}
    for name in names:
        counts = Counter(value for example in examples if (value := example.labels.get(name)))
        if not counts:
            known = sorted({key for example in examples for key in example.labels})
            have = f" Labels there: {', '.join(known)}." if known else " The examples have no labels at all."
            raise UserError(f"no training example has a label '{name}'.{did_you_mean(name, known)}{have}")
        found[name] = sorted(value for value, count in counts.items() if count >= MIN_COUNT)
        if len(found[name]) < 2:
            raise UserError(
                f"the label '{name}' has {len(found[name])} classes with {MIN_COUNT} or more training examples: at "
                "least 2 are needed to tell apart. Leave it out of data.fields.labels."
            )
    return found


def accuracies(
    predicted: Sequence[Mapping[str, str]], labels: Sequence[Mapping[str, str]]
) -> dict[str, tuple[float, float, int]]:
    """For each label: the share predicted rightly, the share of the most frequent class, and of how many examples.

    Examples without the label are left out; values that the model has no class for count as wrong.
    """
    scores = {}
    for name in predicted[0] if predicted else ():
        pairs = [(row.get(name), truth[name]) for row, truth in zip(predicted, labels, strict=True) if name in truth]
        if pairs:
            most = Counter(truth for _, truth in pairs).most_common(1)[0][1]
            right = sum(guess == truth for guess, truth in pairs)
            scores[name] = (right / len(pairs), most / len(pairs), len(pairs))
    return scores
