"""The recipe in stages, in one command: words first, then sentences. Each stage is a ``latentcap train fit``.

``stages.json`` in the run's folder says which stages are done, so that the same command, given again, goes on where it
was.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latentcap.batch.journal import written_to_disk
from latentcap.cli.train import TRAIN
from latentcap.data.errors import UserError

ABOUT = """Train in stages: the CNN learns which words name what is seen, then the decoder learns sentences. It takes
fewer and cheaper steps than to learn both at once. Given again, the same command goes on where it was stopped.

All other options are those of 'latentcap train fit', and hold in each stage."""
DEFAULT_RECIPE, DEFAULT_ROOT = "photos", Path("runs/stages")
TAUGHT = ["--model.optim.teacher_weight", "0.5", "--trainer.max_epochs", "6"]  # docs/results/quality.md#teachers


@dataclass
class Stage:
    """A training.

    Attributes:
        name: as it is printed and remembered.
        folder: where it writes.
        arguments: of ``latentcap train fit``.
    """

    name: str
    folder: Path
    arguments: list[str]


@dataclass
class State:
    """What a run's folder remembers."""

    arguments: list[str]
    done: list[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Run the stages that are left. Returns the exit code of the one that failed, or 0.

    Raises UserError for a folder that holds another run.
    """
    options, given = _parser().parse_known_args(list(arguments))
    stages = plan(options, given)
    file = options.root / "stages.json"
    kept = [f"--teachers={options.teachers}", f"--seed_everything={options.seed}", *options.start_from, *given]
    state = _state(file, kept, stages)
    for number, stage in enumerate(stages, start=1):
        print(f"stage {number} of {len(stages)}, {stage.name}: ", end="", flush=True)
        if stage.name in state.done and (stage.folder / "model" / "config.json").is_file():
            print("done before", flush=True)
            continue
        print(f"latentcap train fit {shlex.join(stage.arguments)}", flush=True)
        begun = (stage.folder / "checkpoints" / "last.ckpt").is_file()
        _write(file, state)
        code = _fit([*stage.arguments, *(["--ckpt_path", "last"] if begun else [])])
        if code:
            print(f"stage {stage.name} is not done; the same command goes on from there", file=sys.stderr)
            return code
        state.done.append(stage.name)
        _write(file, state)
    return 0


def plan(options: argparse.Namespace, given: Sequence[str]) -> list[Stage]:
    """The stages in their order: those of teachers, words, sentences."""
    root = options.root
    stages = []
    for number in range(1, options.teachers + 1):
        arguments = _with(given, ["--config", "words"]) + [*options.start_from, *_seed(options.seed + number)]
        stages.append(_stage(f"words-{number}", root / f"words-{number}", arguments))
    taught = ["--config", "words"]
    if stages:
        folders = [str(stage.folder / "model") for stage in stages]
        taught += ["--model.optim.teachers", json.dumps(folders), *TAUGHT]
    stages.append(_stage("words", root / "words", [*_with(given, taught), *options.start_from, *_seed(options.seed)]))
    start = ["--model.start_from", str(root / "words" / "model")]
    sentences = [*_with(given, ["--config", "sentences"]), *start, *_seed(options.seed)]
    stages.append(_stage("sentences", root, sentences))
    return stages


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="latentcap train stages",
        description=ABOUT,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"A recipe (--config) that is not given is '{DEFAULT_RECIPE}'.",
    )
    add = parser.add_argument
    add(
        "--teachers",
        type=_count,
        default=0,
        metavar="N",
        help="as many models more learn the words first, and teach the one that is kept: better, and longer "
        "(2 is a good number; default: 0)",
    )
    add("--trainer.default_root_dir", dest="root", type=Path, default=DEFAULT_ROOT, metavar="FOLDER", help="the run's")
    add("--seed_everything", dest="seed", type=int, default=0, metavar="N", help="of all stages (default: 0)")
    add(
        "--model.start_from",
        dest="start_from",
        type=lambda folder: ["--model.start_from", folder],
        default=[],
        metavar="FOLDER",
        help="a model whose weights the first stages start from",
    )
    add("--ckpt_path", choices=["last"], help=argparse.SUPPRESS)  # what an interrupted fit advises, and what is done
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 1:
        raise argparse.ArgumentTypeError(f"'{text}': it is 0, or 2 or more, for a mean of one teaches nothing.")
    return int(text)


def _seed(seed: int) -> list[str]:
    return ["--seed_everything", str(seed)]


def _stage(name: str, folder: Path, arguments: Sequence[str]) -> Stage:
    return Stage(name, folder, [*arguments, "--trainer.default_root_dir", str(folder)])


def _with(given: Sequence[str], more: Sequence[str]) -> list[str]:
    """The arguments with ``more`` behind the last recipe, so that all else that is given comes after it and counts."""
    ends = [
        place + (2 if argument in ("-c", "--config") else 1)
        for place, argument in enumerate(given)
        if _config(argument)
    ]
    end = ends[-1] if ends else 0
    recipes = list(given[:end]) or ["--config", DEFAULT_RECIPE]
    return [*recipes, *more, *given[end:]]


def _config(argument: str) -> bool:
    return argument.partition("=")[0] in ("-c", "--config")


def _state(file: Path, arguments: list[str], stages: Sequence[Stage]) -> State:
    if not file.is_file():
        for stage in stages:
            if (stage.folder / "checkpoints").exists():
                raise UserError(
                    f"{stage.folder} holds a run that was not trained in stages: give another "
                    "--trainer.default_root_dir."
                )
        return State(arguments)
    try:
        state = State(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}): give another --trainer.default_root_dir.") from error
    if state.arguments != arguments:
        raise UserError(
            f"{file.parent} was begun with other options: {shlex.join(state.arguments)}. Give those again to go on, or "
            "another --trainer.default_root_dir to begin anew."
        )
    return state


def _write(file: Path, state: State) -> None:
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":  # one process of several writes
        return
    with written_to_disk(file, "w") as out:
        json.dump(vars(state), out, indent=2)


def _fit(arguments: Sequence[str]) -> int:
    """A training in a process of its own, whose memory goes with it. Returns its exit code."""
    child = subprocess.Popen([*TRAIN, "fit", *arguments])
    before = signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
    try:
        while True:
            try:
                code = child.wait()
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:
                continue  # the terminal tells the child, too, which ends when its model is written
    finally:
        signal.signal(signal.SIGTERM, before)
