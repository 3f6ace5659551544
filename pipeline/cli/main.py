"""``latentcap``: one command; each verb is a program of its own, imported when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from latentcap.cli.run import run
from latentcap.cli.verbs import choose

COMMANDS = {
    "caption": "caption images: files, folders, archives, tables",
    "caption-ray": "the same on a Ray cluster",
    "watch": "caption a live stream, always its newest frame",
    "train": "train a captioner on your own images: fit, stages, validate, test",
    "evaluate": "score captions, or a model, against what people wrote",
    "explain": "one page that shows where each head looked for each word",
    "heads": "the head laboratory: report, prune, budget, sweep",
    "serve": "caption over HTTP: OpenAI's API, our own, and a page",
    "push": "share a model on the Hugging Face hub",
    "export": "take a model where PyTorch does not fit: ONNX, web",
    "prepare": "check a data set before training on it",
    "demo": "train, score and caption on an embedded data set, in minutes",
    "bench": "measure speed and memory beside the alternatives",
}


def main(command: str | None = None, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program of a command, which is the first of the arguments where none is given, and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if command is None and given[:1] == ["--version"]:
        from importlib.metadata import version

        print(f"latentcap {version('latentcap')}")
        sys.exit(0)
    run(lambda: call(given if command is None else [command, *given]))


def call(arguments: Sequence[str]) -> int:
    """Hand the arguments to the program of the command that they begin with. Returns its exit code."""
    command, rest = choose("latentcap", "An image captioner that you train yourself.", COMMANDS, arguments)
    program = importlib.import_module(f"latentcap.cli.{command.replace('-', '_')}")
    return int(program.main(rest) or 0)


if __name__ == "__main__":
    main()
