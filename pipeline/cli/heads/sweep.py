"""Train the grid of head counts, splits, latent sizes, latent dropout and routing, several seeds each, and compare.

    latentcap heads sweep --output runs/sweep -- --config scenes --data.train runs/scenes/data

What follows ``--`` are arguments of ``latentcap train fit``; each trial is one run of it in a process of its own. Run
the same command again and it goes on where it stopped, in the middle of a training too.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from latentcap.cli.train import TRAIN
from latentcap.data.cores import available_cores
from latentcap.data.errors import UserError
from latentcap.heads.sweep_grid import STUDIES, Variant, embed_dim, variants
from latentcap.heads.sweep_report import Trial, markdown, write
from latentcap.progress import Progress

if TYPE_CHECKING:
    import optuna


class TrainingFailed(Exception):
    """A training ended with an error; the message says which and why."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        prog="latentcap heads sweep",
        usage="%(prog)s --output FOLDER [options] -- TRAINING ARGUMENTS",
        description="Train and compare numbers of heads, splits, latent sizes, latent dropout and routing.",
        epilog="After -- come arguments of latentcap train fit: the recipe, the data, the number of epochs.",
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FOLDER", help="trials, their record and the result")
    add("--studies", nargs="+", choices=STUDIES, default=list(STUDIES), help="what to compare (default: everything)")
    add("--seeds", type=int, default=3, metavar="N", help="trainings of each setting (default: %(default)s)")
    add("--jobs", type=int, default=1, metavar="N", help="trainings at once (default: %(default)s)")
    add("--list", action="store_true", help="show the trials, what is done and how long the rest will take, and stop")
    options = parser.parse_args(given[:cut])
    options.training = given[cut + 1 :]
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: give 1 or more.")
    if not options.training:
        raise UserError(
            "nothing to train: give the arguments of latentcap train fit after --, for example "
            "-- --config scenes --data.train runs/scenes/data"
        )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    size = embed_dim(options.training)
    wanted = [(variant, seed) for seed in range(options.seeds) for variant in variants(options.studies)]
    if options.list and not (options.output / "trials.log").is_file():
        _show(wanted, {}, options.jobs)
        return 0
    study = open_study(options.output, options.training)
    done = finished(study)
    if options.list:
        _show(wanted, done, options.jobs)
        return 0
    todo = [key for key in wanted if key not in done]
    failed = _train(study, todo, options, size) if todo else []
    trials = [trial for key, trial in finished(study).items() if key in wanted]
    if trials:
        command = f"latentcap heads sweep {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
        write(options.output, options.studies, trials, command=command)
        print(markdown(options.studies, trials, command=command))
        print(f"written: {options.output}/results.md, results.csv, results.svg")
    for message in failed:
        print(f"failed: {message}", file=sys.stderr)
    return 1 if failed else 0


# The record ------------------------------------------------------------------------------------------------------


def open_study(folder: Path, training: Sequence[str]) -> optuna.Study:
    """The record of all trials, which several programs may read. Raises UserError for another training's folder."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise UserError("the sweep needs optuna and matplotlib: pip install 'latentcap[sweep]'.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "trials.log")))
    study = optuna.create_study(study_name="heads", storage=storage, direction="maximize", load_if_exists=True)
    before = study.user_attrs.get("training")
    if before is not None and before != list(training):
        raise UserError(
            f"{folder} holds trials of another training: {shlex.join(before)}. Give the same arguments after --, or "
            "another --output."
        )
    if before is None:
        study.set_user_attr("training", list(training))
    return study


def finished(study: optuna.Study) -> dict[tuple[Variant, int], Trial]:
    """Every variant and seed that has been trained to the end."""
    found = {}
    for entry in study.get_trials(deepcopy=False):
        settings = dict(entry.params)
        seed = settings.pop("seed")
        variant = Variant(**settings)
        found[variant, seed] = Trial(variant, seed, entry.user_attrs["scores"], entry.user_attrs["seconds"])
    return found


def record(study: optuna.Study, trial: Trial) -> None:
    """Add a finished trial, in the form that optuna's own tools (its dashboard, parameter importances) read."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import create_trial

    study.add_trial(
        create_trial(
            params={**vars(trial.variant), "seed": trial.seed},
            distributions={
                "visual": IntDistribution(0, 12),
                "text": IntDistribution(0, 12),
                "latent": FloatDistribution(0.5, 4.0),
                "dropout": FloatDistribution(0.0, 0.3),
                "top_k": IntDistribution(0, 12),
                "route_by": CategoricalDistribution(["example", "query"]),
                "balance": CategoricalDistribution(["bias", "loss"]),
                "seed": IntDistribution(0, 2**31),
            },
            value=trial.scores["CIDEr-D"],
            user_attrs={"scores": dict(trial.scores), "seconds": trial.seconds},
        )
    )


def _show(wanted: list[tuple[Variant, int]], done: dict[tuple[Variant, int], Trial], jobs: int) -> None:
    for variant, seed in wanted:
        trial = done.get((variant, seed))
        state = "to do" if trial is None else f"CIDEr-D {trial.scores['CIDEr-D']:.3f} in {trial.seconds:.0f} s"
        print(f"{variant.name}, seed {seed}: {state}")
    left = sum(key not in done for key in wanted)
    print(f"{len(wanted)} trials, {left} to do", end="")
    if done:
        seconds = sum(trial.seconds for trial in done.values()) / len(done)
        print(f", about {left * seconds / jobs / 60:.0f} min left at {seconds:.0f} s each, {jobs} at once")
    else:
        print("; how long they take is known after the first")


# Training --------------------------------------------------------------------------------------------------------


def _train(study: optuna.Study, todo: list[tuple[Variant, int]], options: argparse.Namespace, size: int) -> list[str]:
    """Run the trials that are left; returns what failed.

    The very first runs alone, for it computes the regions of all images, and where it fails all would: UserError.
    """
    failures: list[str] = []
    with Progress("sweep", unit="training") as progress, ThreadPoolExecutor(options.jobs) as pool:
        left = list(todo)
        if not study.get_trials(deepcopy=False):
            try:
                record(study, train(*left.pop(0), options, size))
            except TrainingFailed as error:
                raise UserError(str(error)) from None
        progress.update(len(todo) - len(left), len(todo))
        futures = [pool.submit(train, variant, seed, options, size) for variant, seed in left]
        try:
            for future in as_completed(futures):
                try:
                    record(study, future.result())
                except TrainingFailed as error:
                    failures.append(str(error))
                progress.update(len(todo) - sum(not entry.done() for entry in futures), len(todo))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return failures


def train(variant: Variant, seed: int, options: argparse.Namespace, size: int) -> Trial:
    """One training of a variant, from its last checkpoint where it was interrupted. Raises TrainingFailed."""
    folder = options.output / variant.folder / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {f"model.model.fusion.{name}": value for name, value in variant.overrides(size).items()}
    settings |= {"seed_everything": seed, "trainer.default_root_dir": folder}
    settings["trainer.enable_progress_bar"] = "false"
    command = [*TRAIN, "fit", *options.training]
    command += [f"--{name}={value}" for name, value in settings.items()]
    if (folder / "checkpoints" / "last.ckpt").is_file():
        command += ["--ckpt_path", "last"]
    threads = max(1, available_cores() // options.jobs)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ} if options.jobs > 1 else dict(os.environ)
    before = _spent(folder)
    start = time.monotonic()
    with open(folder / "train.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the terminal has interrupted the training too, which now saves its checkpoint
            process.wait()
            raise
        finally:
            seconds = before + time.monotonic() - start
            (folder / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
    if code != 0:
        lines = [line for line in (folder / "train.log").read_text(encoding="utf-8").splitlines() if line.strip()]
        said = lines[-1].removeprefix("error: ") if lines else "it said nothing"
        raise TrainingFailed(f"{variant.name}, seed {seed}: {said} (exit code {code}, see {folder / 'train.log'})")
    scores = json.loads((folder / "model" / "scores.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the model folder is kept
    return Trial(variant, seed, {name.removeprefix("val/"): value for name, value in scores.items()}, seconds)


def _spent(folder: Path) -> float:
    """Seconds that an interrupted training has taken already, where it goes on."""
    path = folder / "seconds.json"
    return float(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0.0
