"""A second task on the image: classes such as modality, plane or findings, predicted beside the caption.

The decoder may be told what is predicted: ``ModelConfig.reads_labels``.

Dimension letters: B examples, N regions, C their channels, L classes of all labels together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from latentcap.config import LabelPooling
from latentcap.data.example import SEVERAL
from latentcap.model.dropout import Dropout
from latentcap.model.label_values import values_of


class LabelHead(nn.Module):
    r"""One linear layer for each label: it sees the image alone, no context and no words.

    With ``pooling`` "mean" it reads the mean region. With "regions" it reads each of the N regions :math:`r_i`, and a
    class that one of them shows clearly is there:

    .. math:: z = \log \frac{1}{N} \sum_i \exp (w \cdot \mathrm{norm}(r_i) + b)

    (the smooth maximum of multiple-instance learning; Pinheiro and Collobert 2015, arXiv 1411.6228, equation 2, with
    r = 1). Either way dropout leaves out channels, the same ones of all regions.

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
        pooling: LabelPooling = "mean",
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.classes = {name: list(values) for name, values in classes.items()}
        self.lists = {name: list(shares) for name, shares in (lists or {}).items() if name in self.classes}
        self.norm = nn.LayerNorm(channels)
        self.dropout = Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(channels, len(values)) for values in self.classes.values())
        # Model folders of labels with one value each were written without thresholds.
        self.register_buffer("thresholds", torch.full((self.num_classes,), 0.5), persistent=bool(self.lists))
        for name, head in zip(self.classes, self.heads, strict=True):
            if name in self.lists:
                assert isinstance(head, nn.Linear)
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)
                head.bias.data += self._usual(name)

    def forward(self, regions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Regions (B, N, C), those that exist where ``mask`` (B, N) is True, to the logits of all labels (B, L)."""
        if self.pooling == "mean":
            regions, mask = mean_of(regions, mask).unsqueeze(1), None
        hidden = self.norm(regions) * self.dropout(regions.new_ones(regions.shape[0], 1, regions.shape[2]))
        logits = torch.cat([head(hidden) for head in self.heads], -1).float()
        if regions.shape[1] == 1:
            return logits.squeeze(1)
        if mask is None:
            return logits.logsumexp(1) - math.log(regions.shape[1])
        logits = logits.masked_fill(~mask.unsqueeze(-1), -torch.inf)
        return logits.logsumexp(1) - mask.to(logits.dtype).sum(1, keepdim=True).clamp_min(1).log()

    def by_label(self, logits: Tensor) -> dict[str, Tensor]:
        """The logits, or probabilities, (B, number of classes) of each label among those of all, (B, L)."""
        return dict(zip(self.classes, logits.split([len(values) for values in self.classes.values()], -1), strict=True))

    @property
    def num_classes(self) -> int:
        """Classes of all labels together, L."""
        return sum(map(len, self.classes.values()))

    @torch.no_grad()
    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits to the probabilities of all classes of all labels, both (B, L), without gradients."""
        return torch.cat([self.shares(name, part) for name, part in self.by_label(logits).items()], -1)

    @torch.no_grad()
    def readings(self, logits: Tensor) -> Tensor:
        """Logits to what a decoder is told of all classes of all labels, both (B, L), without gradients.

        Probabilities; of a label with several values tanh of half the log-odds beyond those of its share of the
        training examples, from -1 (surely not) over 0 (as probable as in any image) to 1. The probabilities of rare
        findings are all small, and a head that knows its training images by heart is surer of them than of others: both
        are evened out.
        """
        parts = []
        for name, part in self.by_label(logits).items():
            if name in self.lists:
                parts.append(((part - self._usual(name).to(part.device)) / 2).tanh())
            else:
                parts.append(part.softmax(-1))
        return torch.cat(parts, -1)

    def _usual(self, name: str) -> Tensor:
        """The log-odds of the classes of a label of ``lists`` in the training examples."""
        return torch.tensor(self.lists[name]).logit(1e-4)

    def shares(self, name: str, logits: Tensor) -> Tensor:
        """The logits of one label's classes to probabilities: each by itself where it may have several values."""
        return logits.sigmoid() if name in self.lists else logits.softmax(-1)

    def loss(
        self,
        logits: Tensor,
        labels: Sequence[Mapping[str, str]],
        *,
        taught: Tensor | None = None,
        teacher_weight: float = 0.0,
    ) -> Tensor:
        """Mean over the labels of the cross-entropy of logits (B, L); missing values are left out, 0 where all are.

        Of a label with several values it is the sum over its classes of binary cross-entropies. Where teachers gave
        probabilities ``taught`` (B, L), ``teacher_weight`` of what is learned are those.
        """
        losses, given = [], {} if taught is None else self.by_label(taught)
        for name, part in self.by_label(logits).items():
            targets = self.targets(name, labels).to(part.device)
            several = name in self.lists
            known = (targets[:, 0] if several else targets) >= 0
            if not known.any():
                continue
            part, targets = part[known], targets[known]
            wanted = (targets if several else nn.functional.one_hot(targets, part.shape[1])).float()
            if name in given:
                wanted = torch.lerp(wanted, given[name][known].float(), teacher_weight)
            if several:
                each = nn.functional.binary_cross_entropy_with_logits(part, wanted, reduction="none")
                losses.append(each.sum(1).mean())
            else:
                losses.append(nn.functional.cross_entropy(part, wanted))
        return torch.stack(losses).mean() if losses else logits.new_zeros(())

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

    def predict(self, logits: Tensor) -> list[dict[str, tuple[str, float]]]:
        """What :meth:`named` names, of logits (B, L)."""
        return self.named(self.probabilities(logits))

    @torch.no_grad()
    def named(self, probabilities: Tensor) -> list[dict[str, tuple[str, float]]]:
        """Of probabilities (B, L): for each example the likeliest class of each label, and its probability.

        Of a label with several values: all that are more probable than their thresholds, joined as readers join them
        (empty: none), and the probability of the likeliest of those, or of the likeliest of all where none is.
        """
        found: list[dict[str, tuple[str, float]]] = [{} for _ in range(len(probabilities))]
        thresholds = self.thresholds.to(probabilities.device)
        for name, shares in self.by_label(probabilities).items():
            if name in self.lists:
                named = shares > thresholds[self.span(name)]
                surest = shares.masked_fill(~named & named.any(1, keepdim=True), 0).amax(1)
                values: list[list[str]] = [[] for _ in found]
                for index, place in named.nonzero().tolist():
                    values[index].append(self.classes[name][place])
                for row, share, several in zip(found, surest.tolist(), values, strict=True):
                    row[name] = (SEVERAL.join(several), share)
                continue
            best, indices = shares.max(-1)
            for row, share, place in zip(found, best.tolist(), indices.tolist(), strict=True):
                row[name] = (self.classes[name][place], share)
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


def mean_of(values: Tensor, mask: Tensor | None) -> Tensor:
    """(B, S, C) to (B, C), over the positions where mask (B, S) is True."""
    if mask is None:
        return values.mean(1)
    weights = mask.unsqueeze(-1).to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1).clamp_min(1)
