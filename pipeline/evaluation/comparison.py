"""Whether a model beats what it has to beat: 95 % intervals, paired tests, and the verdict in words."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from latentcap.metrics.bootstrap import Counts, Difference, Interval, difference, draw, interval, text_counts
from latentcap.metrics.cider import CiderScorer
from latentcap.metrics.clinical.scores import Uncertain, chexpert_agreement, imaging_agreement
from latentcap.metrics.tokenize import Tokenizer, tokenize

TESTED = ("BLEU-4", "METEOR exact", "ROUGE-L", "CIDEr-D")
FINDINGS = ("chexpert", "imaging")


@dataclass(frozen=True)
class Standing:
    """One system: its scores with intervals, and the model's score minus this one's (empty for the model itself)."""

    intervals: dict[str, Interval]
    behind_model: dict[str, Difference] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """All systems, the model first, and the verdict on each metric; none of a single group: nothing to resample."""

    systems: dict[str, Standing]
    verdicts: list[str]
    groups: int
    samples: int
    seed: int


def compare(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    tokenizer: Tokenizer,
    groups: Sequence[Hashable],
    clinical: Sequence[str] = (),
    uncertain: Uncertain = "positive",
    samples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare the first system with all others, on the same resamples of the same examples.

    Args:
        systems: captions (B,) by name; the first is the model.
        references: (B, any number).
        groups: what is resampled together (B,): the patient.
        clinical: of :data:`FINDINGS`: clinical agreement to test as well.
    """
    if len(set(groups)) < 2:
        return Comparison({}, [], len(set(groups)), samples, seed)
    unique = list(dict.fromkeys(text for texts in (*systems.values(), *references) for text in texts))
    words = dict(zip(unique, tokenize(unique, tokenizer), strict=True))
    wanted = [[words[text] for text in group] for group in references]
    cider, weights = CiderScorer(wanted), draw(groups, samples=samples, seed=seed)
    counts: dict[str, dict[str, Counts]] = {}
    for name, texts in systems.items():
        counts[name] = text_counts([words[text] for text in texts], wanted, cider)
        counts[name] |= clinical_counts(texts, references, clinical, uncertain)
    model, *others = systems
    standings = {}
    for name, own in counts.items():
        behind = {} if name == model else {key: difference(counts[model][key], own[key], weights) for key in own}
        standings[name] = Standing({key: interval(entry, weights) for key, entry in own.items()}, behind)
    tested = [key for key in counts[model] if key in TESTED or key.endswith("F1 example")]
    verdicts = [verdict(key, {name: standings[name] for name in others}) for key in tested] if others else []
    return Comparison(standings, verdicts, len(set(groups)), samples, seed)


def clinical_counts(
    texts: Sequence[str], references: Sequence[Sequence[str]], clinical: Sequence[str], uncertain: Uncertain
) -> dict[str, Counts]:
    """F1 scores of the kinds of clinical agreement asked for, as ``"chexpert F1 micro"`` or ``"plane F1 example"``."""
    found: dict[str, Counts] = {}
    if "chexpert" in clinical:
        agreement = chexpert_agreement(texts, references, uncertain=uncertain)
        found |= {f"chexpert {name}": entry for name, entry in agreement.counts().items()}
    if "imaging" in clinical:
        for term, agreement in imaging_agreement(texts, references).items():
            if agreement.hits.any() or agreement.missed.any():
                counts = agreement.counts()
                found |= {f"{term} {name}": counts[name] for name in ("F1 micro", "F1 macro")}
    return found


def verdict(metric: str, others: Mapping[str, Standing]) -> str:
    """Whether the model beats the best of the others in one metric, in words."""
    best = max(others, key=lambda name: others[name].intervals[metric].value)
    found = others[best].behind_model[metric]
    says = "beats" if found.beats else "does not beat"
    return (
        f"{metric}: the model {says} the best baseline, {best}: difference {found.value:+.4f}, "
        f"95 % interval {found.low:+.4f} to {found.high:+.4f}, p = {found.p:.3f}"
    )
