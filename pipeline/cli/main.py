"""``latentcap``: one command; each verb is a program of its own, imported when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from latentcap.cli.run import run
from latentcap.data.errors import UserError, did_you_mean

COMMANDS = {
    "caption": "caption images: files, folders, tars, tables",
    "caption-ray": "the same on a Ray cluster",
    "train": "train a captioner on your own images: fit, validate, test",
    "evaluate": "score captions, or a model, against what people wrote",
    "explain": "one page that shows where each head looked for each word",
    "heads": "the head laboratory: report, prune, budget, sweep",
    "prepare": "check a data set before training on it",
    "demo": "train, score and caption on an embedded data set, in minutes",
    "bench": "measure speed and memory beside the alternatives",
}
USAGE = "usage: latentcap COMMAND ...\n\nAn image captioner that you train yourself.\n\n"
MORE = "\n'latentcap COMMAND --help' says what each takes."


def main(command: str | None = None, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program of a command, which is the first of the arguments where none is given, and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if command is None:
        if not given or given[0] in ("-h", "--help", "help"):
            print(USAGE + "".join(f"  {name:12} {what}\n" for name, what in COMMANDS.items()) + MORE)
            sys.exit(0 if given else 2)
        if given[0] == "--version":
            from importlib.metadata import version

            print(f"latentcap {version('latentcap')}")
            sys.exit(0)
        command, given = given[0], given[1:]
    run(lambda: call(command, given))


def call(command: str, arguments: Sequence[str]) -> int:
    """Hand the arguments to the program of a command. Returns its exit code; UserError for an unknown command."""
    if command not in COMMANDS:
        raise UserError(
            f"latentcap {command}: there is no such command.{did_you_mean(command, list(COMMANDS))} "
            f"Commands: {', '.join(COMMANDS)}."
        )
    program = importlib.import_module(f"latentcap.cli.{command.replace('-', '_')}")
    return int(program.main(arguments) or 0)


if __name__ == "__main__":
    main()
