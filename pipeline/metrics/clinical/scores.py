"""Whether a report says the same as the reference about the patient, not whether it uses the same words.

Findings are labels in text, found by rules (``chexpert_labels``). Agreement is precision, recall and F1: pooled over
all (micro), averaged over the findings (macro), and averaged over the examples. The three differ, so all are shown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from latentcap.data.readers.medical.chexpert import OBSERVATIONS, Status, label_report
from latentcap.metrics.bootstrap import Array, Counts, mean_counts
from latentcap.metrics.clinical.imaging_terms import TERMS, imaging_terms

Uncertain: TypeAlias = Literal["positive", "negative", "ignore"]
UNCERTAIN = ("positive", "negative", "ignore")
ENOUGH = 10  # the F1 of a finding that fewer references have is mostly chance


@dataclass(frozen=True)
class Agreement:
    """True positives, false positives and false negatives of each of F findings in each of B examples, (B, F) each.

    ``rows`` (B,) is False for examples that say nothing about the matter and are left out of averages over examples.
    """

    findings: tuple[str, ...]
    hits: Array
    wrong: Array
    missed: Array
    rows: np.ndarray

    def scores(self) -> dict[str, float]:
        """``{"precision micro": ..., "recall micro", "F1 micro", ... macro, ... example}``.

        Macro leaves out findings that nobody mentions; ``F1 macro of frequent`` those that fewer than :data:`ENOUGH`
        references have, too. An example where both say nothing agrees fully.
        """
        table = {}
        for name, axes in (("micro", (0, 1)), ("macro", (0,)), ("example", (1,))):
            hits, wrong, missed = (np.atleast_1d(values.sum(axes)) for values in (self.hits, self.wrong, self.missed))
            empty = (hits + wrong + missed) == 0
            precision, recall, f1 = (
                np.where(empty, 1.0, 2 * hits / np.maximum(2 * hits + a * wrong + b * missed, 1e-12))
                for a, b in ((2, 0), (0, 2), (1, 1))
            )
            kept = np.ones_like(empty)
            if name == "macro" and not empty.all():
                kept = ~empty
            elif name == "example" and self.rows.any():
                kept = self.rows
            for kind, values in (("precision", precision), ("recall", recall), ("F1", f1)):
                table[f"{kind} {name}"] = float(values[kept].mean())
        often = [entry["F1"] for entry in self.per_finding().values() if entry["references"] >= ENOUGH]
        if often:
            table["F1 macro of frequent"] = sum(often) / len(often)
        return table

    def per_finding(self) -> dict[str, dict[str, float]]:
        """Precision, recall and F1 for every finding that anybody mentions, how many references have it, how many
        reports say it, and how many of those rightly."""
        table = {}
        for index, name in enumerate(self.findings):
            hits, wrong, missed = (values[:, index].sum() for values in (self.hits, self.wrong, self.missed))
            if hits + wrong + missed:
                table[name] = {
                    "precision": float(hits / max(hits + wrong, 1)),
                    "recall": float(hits / max(hits + missed, 1)),
                    "F1": float(2 * hits / (2 * hits + wrong + missed)),
                    "references": int(hits + missed),
                    "said": int(hits + wrong),
                    "found": int(hits),
                }
        return table

    def counts(self) -> dict[str, Counts]:
        """``F1 micro``, ``F1 macro`` and ``F1 example`` for the bootstrap.

        A resample's macro F1 is over the findings that somebody mentions in it, as in :meth:`scores`.
        """
        sums = np.stack([values.sum(1) for values in (self.hits, self.wrong, self.missed)], 1)
        total = 2 * sums[:, 0] + sums[:, 1] + sums[:, 2]
        each = np.where(total == 0, 1.0, 2 * sums[:, 0] / np.maximum(total, 1))

        def f1(sums: Array) -> Array:
            return 2 * sums[:, 0] / np.maximum(2 * sums[:, 0] + sums[:, 1] + sums[:, 2], 1e-12)

        def macro(sums: Array) -> Array:
            hits, wrong, missed = np.split(sums, 3, axis=1)  # (R, F) each
            named = hits + wrong + missed > 0
            scores = np.where(named, 2 * hits / np.maximum(2 * hits + wrong + missed, 1e-12), 0.0)
            return np.where(named.any(1), scores.sum(1) / np.maximum(named.sum(1), 1), 1.0)

        return {
            "F1 micro": Counts(sums, f1),
            "F1 macro": Counts(np.concatenate((self.hits, self.wrong, self.missed), 1), macro),
            "F1 example": mean_counts(each.tolist(), self.rows.tolist()),
        }


def chexpert_agreement(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, uncertain: Uncertain = "positive"
) -> Agreement:
    """Agreement in the 14 CheXpert observations, by our rules.

    Args:
        hypotheses: (B,) reports as they are read, not tokenised: sentence ends matter.
        references: (B, any number) likewise; several of one example count as one report.
        uncertain: what doubt counts as, on both sides: ``positive`` or ``negative``; ``ignore`` leaves out whatever the
            reference is in doubt about, and takes a doubtful hypothesis as positive.
    """
    return status_agreement(
        [label_report(text) for text in hypotheses],
        [label_report("\n".join(group)) for group in references],
        uncertain=uncertain,
    )


def named_agreement(
    named: Sequence[Collection[str]], references: Sequence[Sequence[str]], *, uncertain: Uncertain = "positive"
) -> Agreement:
    """As :func:`chexpert_agreement`, of observations that are named outright, such as a label head's; (B,) of them."""
    return status_agreement(
        [{name: Status.POSITIVE if name in row else Status.ABSENT for name in OBSERVATIONS} for row in named],
        [label_report("\n".join(group)) for group in references],
        uncertain=uncertain,
    )


def status_agreement(
    given: Sequence[Mapping[str, Status]], wanted: Sequence[Mapping[str, Status]], *, uncertain: Uncertain
) -> Agreement:
    """Agreement of labels that some labeller gave (B,) reports and their references."""
    ours, theirs = (np.array([[row[name] for name in OBSERVATIONS] for row in rows]) for rows in (given, wanted))
    least = Status.POSITIVE if uncertain == "negative" else Status.UNCERTAIN
    counted = theirs != Status.UNCERTAIN if uncertain == "ignore" else np.ones(theirs.shape, dtype=bool)
    return _agreement(OBSERVATIONS, ours >= least, theirs >= least, counted)


def imaging_agreement(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Agreement]:
    """Agreement in modality, plane, location and side as the texts name them, one :class:`Agreement` for each.

    Examples whose reference names none say nothing about a field and are left out of it.
    """
    ours = [imaging_terms(text) for text in hypotheses]
    theirs = [imaging_terms("\n".join(group)) for group in references]
    found = {}
    for field, values in TERMS.items():
        given, wanted = (
            np.array([[value in row[field] for value in values] for row in rows]) for rows in (ours, theirs)
        )
        counted = np.broadcast_to(wanted.any(1, keepdims=True), wanted.shape)
        found[field] = _agreement(tuple(values), given, wanted, counted)
    return found


def _agreement(findings: tuple[str, ...], given: np.ndarray, wanted: np.ndarray, counted: np.ndarray) -> Agreement:
    hits, wrong, missed = (
        (values & counted).astype(float) for values in (given & wanted, given & ~wanted, ~given & wanted)
    )
    return Agreement(findings, hits, wrong, missed, np.atleast_1d(counted.any(1)))
