"""All numbers about what is scored: scores, intervals and tests, clinical agreement, RadEval's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentcap.data.readers.medical.composed import compose, finding_sentences
from latentcap.evaluation.comparison import Comparison, compare
from latentcap.evaluation.constant import best_constant
from latentcap.evaluation.report import Report, evaluate
from latentcap.evaluation.scored import Scored
from latentcap.metrics.clinical.radeval import Scorer
from latentcap.metrics.clinical.scores import Uncertain, chexpert_agreement, imaging_agreement, named_agreement
from latentcap.metrics.tokenize import PROTOCOLS, Tokenizer

Agreements = dict[str, dict[str, dict[str, float]]]
"""For each kind of agreement and each system: precision, recall and F1 in each way of averaging."""
Findings = dict[str, dict[str, dict[str, float]]]
"""For each system and each CheXpert observation that anybody mentions: precision, recall, F1 and counts."""


@dataclass(frozen=True)
class Results:
    """``changed`` compares the model with itself in another context; ``reasons`` say why a score is missing."""

    scored: Scored
    report: Report
    comparison: Comparison
    changed: Comparison | None
    agreement: Agreements
    findings: Findings
    radeval: dict[str, dict[str, float]]
    reasons: dict[str, str]
    uncertain: Uncertain

    @property
    def systems(self) -> dict[str, list[str]]:
        """The captions of every system, (B,) each: those in question, the floor, what they are compared with."""
        return all_systems(self.scored, self.report)

    @property
    def protocol(self) -> str:
        """The name of what the scores are made with; that of the tokenizer, where they follow no protocol."""
        names = {tokenizer: name for name, tokenizer in PROTOCOLS.items()}
        return names.get(self.report.tokenizer, self.report.tokenizer)

    def to_dict(self) -> dict[str, Any]:
        """Every number at full precision, in types that JSON has."""
        scored, matches = self.scored, self.scored.matches
        content: dict[str, Any] = {
            **dataclasses.asdict(self.report),
            "protocol": self.protocol,
            "reasons": self.reasons,
            "splits": scored.splits,
            "comparison": dataclasses.asdict(self.comparison),
            "agreement": self.agreement,
            "findings": self.findings,
            "ablation": dataclasses.asdict(self.changed) if self.changed else None,
            "labels": {
                name: dict(zip(("accuracy", "most frequent", "examples"), found, strict=True))
                for name, found in scored.labels.items()
            },
            "worth": scored.worth,
            "radeval": self.radeval,
            "uncertain": self.uncertain,
            "notes": scored.notes,
        }
        if matches:
            content["unmatched_captions"] = [caption.file or caption.id for caption in matches.unmatched_captions]
            content["unmatched_examples"] = matches.unmatched_examples
        content["examples"] = [
            {"id": example.id, "references": example.captions}
            | {name: texts[place] for name, texts in self.systems.items()}
            for place, example in enumerate(scored.examples)
        ]
        return content


def all_systems(scored: Scored, report: Report) -> dict[str, list[str]]:
    """The captions in question first, then the floor, then the others."""
    return {scored.name: scored.texts, "floor": [report.floor_caption] * len(scored.texts), **scored.beside}


def score(
    scored: Scored,
    *,
    train: Sequence[str],
    tokenizer: Tokenizer,
    samples: int = 1000,
    seed: int = 0,
    clinical: Sequence[str] = (),
    uncertain: Uncertain = "positive",
    radeval: Scorer | None = None,
) -> Results:
    """Score everything there is.

    Args:
        train: the training captions, for the floor, the best constant and what is novel.
        samples: bootstrap resamples, drawn from ``seed``.
        clinical: of ``comparison.FINDINGS``; others are left aside.
        uncertain: what a doubtful finding counts as.
        radeval: RadGraph and CheXbert by the package RadEval, for every system.
    """
    if train:
        scored = _with_constants(scored, train, tokenizer, composed="chexpert" in clinical)
    references = scored.references
    others = {**scored.beside, **scored.ablation}
    report = evaluate(scored.texts, references, tokenizer=tokenizer, train=train, beside=others)
    systems, reasons = all_systems(scored, report), dict(report.reasons)

    def compared(systems: Mapping[str, Sequence[str]]) -> Comparison:
        return compare(
            systems,
            references,
            tokenizer=tokenizer,
            groups=scored.patients,
            samples=samples,
            seed=seed,
            clinical=clinical,
            uncertain=uncertain,
        )

    agreement, findings = _agreement(systems, references, clinical, uncertain)
    if scored.findings and findings:
        named = named_agreement(scored.findings, references, uncertain=uncertain)
        findings = {"label head": named.per_finding(), **findings}
    return Results(
        scored,
        report,
        comparison=compared(systems),
        changed=compared(scored.ablation) if scored.ablation else None,
        agreement=agreement,
        findings=findings,
        radeval={name: radeval(texts, references) for name, texts in systems.items()} if radeval else {},
        reasons=reasons,
        uncertain=uncertain,
    )


def _agreement(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[Sequence[str]],
    clinical: Sequence[str],
    uncertain: Uncertain,
) -> tuple[Agreements, Findings]:
    tables: Agreements = {}
    findings: Findings = {}
    for name, texts in systems.items():
        if "chexpert" in clinical:
            found = chexpert_agreement(texts, references, uncertain=uncertain)
            findings[name] = found.per_finding()
            tables.setdefault(f"CheXpert observations, doubt counts as {uncertain}", {})[name] = found.scores()
        if "imaging" in clinical:
            for field, agreement in imaging_agreement(texts, references).items():
                tables.setdefault(f"{field} named", {})[name] = agreement.scores()
    return tables, findings


def _with_constants(scored: Scored, train: Sequence[str], tokenizer: Tokenizer, *, composed: bool) -> Scored:
    """Beside the rest the best constant, and with ``composed`` what it becomes with a label head's findings."""
    constant = best_constant(train, tokenizer=tokenizer)
    beside = {"constant": [constant] * len(scored.texts)}
    notes = [f"constant: of the most frequent training captions the one most like the others: '{constant}'"]
    if composed and scored.findings:
        sentences = finding_sentences(train)
        beside["composed"] = [compose(constant, names, sentences) for names in scored.findings]
        notes.append("composed: the constant, changed by one typical sentence for each finding of the label head")
    return dataclasses.replace(scored, beside={**beside, **scored.beside}, notes=[*notes, *scored.notes])
