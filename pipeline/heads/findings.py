"""What the figures of a head mean, in words: "text head 2 reads only stop words (0.83)"."""

from __future__ import annotations

from latentcap.heads.report import HeadReport, HeadSummary

ONLY, MOSTLY = 0.75, 0.5  # of a head's attention
BEYOND_EVEN = 0.1  # and so much more than reading everything alike would give
TWIN = 0.95  # similarity, 1 - the Jensen-Shannon divergence in bits
DEAD = 0.02  # importance, the mean of all heads being 1
EVERYWHERE = 0.97  # entropy, that of an even map being 1
ONE_PLACE = 0.8  # mean peak
FIXED = 0.05  # how much the map depends on image and word


def findings(report: HeadReport) -> list[str]:
    """Everything worth saying about the heads, in their order."""
    return [f"{head.name} {text}" for head in report.heads for text in describe(head)]


def describe(head: HeadSummary) -> list[str]:
    """What is worth saying about one head, without its name."""
    if head.gate == 0 or head.use == 0:
        return ["is switched off"]
    said = []
    if head.relative_importance < DEAD:
        said.append(f"is dead (importance {head.relative_importance:.3f}, the mean is 1)")
    if head.twin is not None and head.twin_similarity >= TWIN:
        said.append(f"is a twin of {head.twin} ({head.twin_similarity:.2f})")
    return said + (_describe_visual(head) if head.kind == "visual" else _describe_text(head))


def _describe_visual(head: HeadSummary) -> list[str]:
    if head.normalised_entropy >= EVERYWHERE:
        return [f"looks everywhere alike (entropy {head.normalised_entropy:.2f} of an even map)"]
    said = []
    if head.peak >= ONE_PLACE:
        said.append(f"looks at a single place (peak {head.peak:.2f})")
    if head.variation is not None and head.variation < FIXED:
        said.append(f"looks at the same places whatever the image and word (variation {head.variation:.2f})")
    return said


def _describe_text(head: HeadSummary) -> list[str]:
    said = []
    for label, share in (("stop words", head.stop), ("punctuation", head.punctuation), ("the context", head.context)):
        if share is None or share.value < max(MOSTLY, min(share.even + BEYOND_EVEN, 0.99)):
            continue
        said.append(f"reads {'only' if share.value >= ONLY else 'mostly'} {label} ({share.value:.2f})")
    if head.top_words and head.top_words[0][1] >= MOSTLY:
        word, value = head.top_words[0]
        said.append(f"reads {'only' if value >= ONLY else 'mostly'} '{word}' ({value:.2f})")
    if head.normalised_entropy >= EVERYWHERE:
        said.append(f"reads everything alike (entropy {head.normalised_entropy:.2f} of an even reading)")
    return said
