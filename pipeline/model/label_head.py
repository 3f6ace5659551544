"""A second task on the image: classes such as modality, plane or findings, predicted beside the caption.

The decoder may be told what is predicted: ``ModelConfig.reads_labels``.

Dimension letters: B examples, C channels of the regions, L classes of all labels together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from latentcap.data.example import SEVERAL
from latentcap.model.label_values import values_of


class LabelHead(nn.Module):
    """One linear layer for each label on the mean region: it sees the image alone, no context and no words.

    ``classes`` names the values of each label. An unknown value is no target. A label of ``lists`` has any number of
    its values at once, such as the findings of a chest film: its classes are predicted one by one (binary
    cross-entropy), and named where they are more probable than their threshold. ``lists`` gives the share of training
    examples that have each of its classes, where the predictions start.

    ``thresholds`` (L,): probabilities, 0.5 until :meth:`set_thresholds`; used for labels of ``lists`` only.
    """

    thresholds: Tensor

    def __init__(
        self,
        channels: int,
        classes: Mapping[str, Sequence[str]],
        *,
        dropout: float,
        lists: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.classes = {name: list(values) for name, values in classes.items()}
        self.lists = {name: list(shares) for name, shares in (lists or {}).items() if name in self.classes}
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(channels, len(values)) for values in self.classes.values())
        # Model folders of labels with one value each were written without thresholds.
        self.register_buffer("thresholds", torch.full((self.num_classes,), 0.5), persistent=bool(self.lists))
        for name, head in zip(self.classes, self.heads, strict=True):
            if name in self.lists:
                assert isinstance(head, nn.Linear)
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)
                head.bias.data += self._usual(name)

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
        return torch.cat([self.shares(name, logits).to(pooled.dtype) for name, logits in self(pooled).items()], -1)

    @torch.no_grad()
    def readings(self, pooled: Tensor) -> Tensor:
        """Mean regions (B, C) to what a decoder is told of all classes of all labels, (B, L), without gradients.

        Probabilities; of a label with several values tanh of half the log-odds beyond those of its share of the
        training examples, from -1 (surely not) over 0 (as probable as in any image) to 1. The probabilities of rare
        findings are all small, and a head that knows its training images by heart is surer of them than of others: both
        are evened out.
        """
        parts = []
        for name, logits in self(pooled).items():
            if name in self.lists:
                parts.append(((logits.float() - self._usual(name).to(logits.device)) / 2).tanh())
            else:
                parts.append(logits.float().softmax(-1))
        return torch.cat(parts, -1).to(pooled.dtype)

    def _usual(self, name: str) -> Tensor:
        """The log-odds of the classes of a label of ``lists`` in the training examples."""
        return torch.tensor(self.lists[name]).logit(1e-4)

    def shares(self, name: str, logits: Tensor) -> Tensor:
        """The logits of one label's classes to probabilities: each by itself where it may have several values."""
        return logits.float().sigmoid() if name in self.lists else logits.float().softmax(-1)

    def loss(self, pooled: Tensor, labels: Sequence[Mapping[str, str]]) -> Tensor:
        """Mean over the labels of the cross-entropy; missing values are left out. Zero where none is known.

        Of a label with several values it is the sum over its classes of binary cross-entropies.
        """
        losses = []
        for name, logits in self(pooled).items():
            targets = self.targets(name, labels).to(logits.device)
            if name in self.lists:
                known = targets[:, 0] >= 0
                if known.any():
                    each = nn.functional.binary_cross_entropy_with_logits(
                        logits[known].float(), targets[known].float(), reduction="none"
                    )
                    losses.append(each.sum(1).mean())
            elif (targets >= 0).any():
                losses.append(nn.functional.cross_entropy(logits.float(), targets, ignore_index=-1))
        return torch.stack(losses).mean() if losses else pooled.new_zeros(())

    def targets(self, name: str, labels: Sequence[Mapping[str, str]]) -> Tensor:
        """Class indices (B,) of one label, -1 where it is missing.

        Of a label with several values: 1 for each class that an example has, else 0; a row of -1 where it is missing,
        (B, number of classes).
        """
        index = {value: number for number, value in enumerate(self.classes[name])}
        if name not in self.lists:
            return torch.tensor([index.get(row.get(name, ""), -1) for row in labels])
        found = torch.full((len(labels), len(index)), -1)
        for row, label in zip(found, labels, strict=True):
            if name in label:
                row.zero_()
                row[[index[value] for value in values_of(label[name]) if value in index]] = 1
        return found

    @torch.no_grad()
    def predict(self, pooled: Tensor) -> list[dict[str, tuple[str, float]]]:
        """For each example the likeliest class of each label, and its probability.

        Of a label with several values: all that are more probable than their thresholds, joined as readers join them
        (empty: none), and the probability of the likeliest of those, or of the likeliest of all where none is.
        """
        found: list[dict[str, tuple[str, float]]] = [{} for _ in range(len(pooled))]
        for name, logits in self(pooled).items():
            shares = self.shares(name, logits)
            if name in self.lists:
                named = shares > self.thresholds[self.span(name)]
                for row, share, chosen in zip(found, shares, named, strict=True):
                    values = [value for value, there in zip(self.classes[name], chosen.tolist(), strict=True) if there]
                    row[name] = (SEVERAL.join(values), float((share[chosen] if values else share).max()))
                continue
            best, indices = shares.max(-1)
            for row, share, index in zip(found, best.tolist(), indices.tolist(), strict=True):
                row[name] = (self.classes[name][index], share)
        return found

    def span(self, name: str) -> slice:
        """Where the classes of a label are among all L."""
        start = 0
        for other, values in self.classes.items():
            if other == name:
                break
            start += len(values)
        return slice(start, start + len(self.classes[name]))

    @torch.no_grad()
    def set_thresholds(self, probabilities: Tensor) -> None:
        """Thresholds of labels of ``lists`` that name each class as often as training examples have it.

        ``probabilities`` (B, L) of B examples that were not trained on, whose labels nobody looks at. The threshold of
        the best F1 on them would name rare classes many times too often, for the chance of a hit.
        """
        for name, shares in self.lists.items():
            span = self.span(name)
            for place, share in zip(range(span.start, span.stop), shares, strict=True):
                self.thresholds[place] = probabilities[:, place].float().quantile(1 - share)
