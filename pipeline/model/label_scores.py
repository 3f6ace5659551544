"""How well a label head predicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

from latentcap.model.label_head import LabelHead


def label_scores(
    head: LabelHead, probabilities: Tensor, predicted: Sequence[Mapping[str, str]], labels: Sequence[Mapping[str, str]]
) -> dict[str, float]:
    """``accuracy of NAME`` of labels with one value; ``AUC of NAME`` and ``F1 of NAME`` of those with several.

    ``probabilities`` (B, L), ``predicted`` and the true ``labels`` of B examples.
    """
    found = {
        f"accuracy of {name}": share
        for name, (share, _, _) in accuracies(predicted, labels).items()
        if name not in head.lists
    }
    for name in head.lists:
        span = head.span(name)
        scores = list_scores(probabilities[:, span], head.targets(name, labels), head.thresholds[span].cpu())
        found |= {f"{score} of {name}": value for score, value in scores.items()}
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


def list_scores(probabilities: Tensor, targets: Tensor, thresholds: Tensor) -> dict[str, float]:
    """How well a label with several values is predicted: mean over its classes of the area under the ROC curve and F1.

    Classes that all or none of the examples have say nothing and are left out.

    Args:
        probabilities, targets: (B, number of classes); rows of -1 are left out.
        thresholds: (number of classes,).
    """
    known = targets[:, 0] >= 0
    shares, truth = probabilities[known].float(), targets[known] == 1
    varied = [place for place in range(truth.shape[1]) if 0 < int(truth[:, place].sum()) < len(truth)]
    if not varied:
        return {}
    areas = [area_under_roc(shares[:, place], truth[:, place]) for place in varied]
    said = shares > thresholds
    both = (said & truth).sum(0)[varied]
    f1 = 2 * both / (said.sum(0) + truth.sum(0))[varied].clamp_min(1)
    return {"AUC": sum(areas) / len(areas), "F1": float(f1.mean())}


def area_under_roc(shares: Tensor, truth: Tensor) -> float:
    """The probability that an example of the class (B,) is given more than one of the others; ties count half."""
    positive, negative = shares[truth], shares[~truth]
    more = (positive[:, None] > negative).sum() + 0.5 * (positive[:, None] == negative).sum()
    return float(more / (len(positive) * len(negative)))
