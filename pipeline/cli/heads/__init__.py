"""The head laboratory: ``latentcap heads report | prune | budget | sweep``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from latentcap.cli.verbs import choose

PROGRAMS = {
    "report": "what each head looks at, what it is worth, and which are alike",
    "prune": "remove the weakest heads while the quality holds",
    "budget": "quality and latency of a model with fewer and fewer heads",
    "sweep": "train a grid of head counts, splits, latent sizes and dropouts",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand over to the program. Returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    chosen, rest = choose("latentcap heads", "Look at the heads of a model, and at what they are for.", PROGRAMS, given)
    program = importlib.import_module(f"latentcap.cli.heads.{chosen}")
    return int(program.main(rest) or 0)
