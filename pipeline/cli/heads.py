"""The head laboratory:  latentcap heads report | prune | budget | sweep   (each with --help)

report looks at the heads of a model, prune removes the weakest, budget measures one checkpoint with fewer heads, sweep
trains a grid of head settings.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from latentcap.cli.run import run

PROGRAMS = {
    "report": "what each head looks at, what it is worth, which are alike",
    "prune": "remove the weakest heads while the quality holds",
    "budget": "quality and latency of a model with fewer and fewer heads",
    "sweep": "train a grid of head counts, splits, latent sizes and dropouts",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand over to the program. Returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="latentcap heads",
        description="The head laboratory.",
        epilog="\n".join(f"{name:8} {what}" for name, what in PROGRAMS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("program", choices=PROGRAMS, help="what to do; its own options follow it")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    program = importlib.import_module(f"latentcap.cli.heads_{chosen.program}")
    return int(program.main(chosen.options) or 0)


if __name__ == "__main__":
    run(main)
