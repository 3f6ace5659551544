"""Everything once, from nothing: ``make demo``, or ``latentcap demo``. Some minutes on two CPU cores.

Draws the embedded data set, trains a captioner on it from scratch, captions the test scenes with and without the
context that belongs to them, scores both, and leaves a model folder, captions and a gallery. Stopped at any moment and
run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from latentcap.data.jsonl import open_jsonl, read_jsonl, write_jsonl
from latentcap.data.scenes import render_scenes
from latentcap.in_the_box import find_recipe
from latentcap.metrics import caption_scores, tokenize
from latentcap.pages.gallery import write_gallery
from latentcap.progress import Progress

CONFIG = find_recipe("scenes")
STEPS = ("Rendering scenes", "Training", "Captioning the test scenes", "Scoring", "Gallery")
SHOWN_SCORES = ("BLEU-4", "ROUGE-L", "CIDEr-D")
MODEL, WITHHELD, FREQUENT = "model", "model, context withheld", "most frequent caption"

Scene = dict[str, Any]  # a line of metadata.jsonl


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap demo", description="Train, score and caption on an embedded data set, in minutes."
    )
    add = parser.add_argument
    add("--folder", type=Path, default=Path("runs/demo"), help="where everything goes (default: %(default)s)")
    add("--train", type=int, default=4000, metavar="N", help="training scenes to draw (default: %(default)s)")
    add("--test", type=int, default=300, metavar="N", help="val scenes, and test scenes (default: %(default)s)")
    add("--epochs", type=int, metavar="N", help="how often each is trained on (default: as the recipe scenes says)")
    options = parser.parse_args(arguments)
    for name in ("train", "test", "epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: give 1 or more.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError where the folder cannot be written."""
    options = parse(arguments)
    folder, console, start = options.folder, Console(soft_wrap=True, highlight=False), time.monotonic()
    state = State(folder, {"train": options.train, "test": options.test, "epochs": options.epochs})

    heading(console, 1)
    scenes = draw(folder / "scenes", train=options.train, test=options.test)
    heading(console, 2)
    if state.trained:
        print("trained already, before the demo was interrupted")
    else:
        from latentcap.cli.demo_training import train  # lightning takes seconds to import

        train(CONFIG, folder=folder, epochs=options.epochs, resume=state.resumed)
        state.finish_training()
    heading(console, 3)
    captions = caption(folder, scenes)
    heading(console, 4)
    scores = score(scenes, captions)
    show_scores(scores, console)
    show_examples(scenes, captions, console)
    (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    heading(console, 5)
    gallery = write_gallery(folder / "gallery.html", cards(folder, scenes, captions), title="Test scenes")
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"model     {folder / 'model'}   (what it is: {folder / 'model' / 'README.md'})")
    print(f"captions  {folder / 'captions.jsonl'}")
    print(f"gallery   {gallery}   (open it in a browser)")
    print(f"scores    {folder / 'scores.json'}")
    print(f"\nDone in {minutes} min {seconds} s. Try next, for example:\n")
    for command in next_commands(folder):
        print(f"  {command}")
    state.clear()
    return 0


def heading(console: Console, number: int) -> None:
    console.print(f"\n[bold]== {number}/{len(STEPS)} {STEPS[number - 1]} ==[/bold]")


class State:
    """``unfinished.json``: there while a demo is under way, so that the next run knows whether to go on or to start.

    A demo with other settings, or after a change of the recipe, starts anew; so does one after a demo that ended.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path = folder / "unfinished.json"
        self.settings = {**settings, "recipe": CONFIG.read_text(encoding="utf-8")}
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self.resumed = known.get("settings") == self.settings
        self.trained = self.resumed and known["trained"]
        try:
            if not self.resumed:
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
                for name in ("captions.jsonl", "captions_without_context.jsonl"):
                    (folder / name).unlink(missing_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            self._write()
        except OSError as error:
            raise UserError(f"--folder {folder}: cannot be written ({error.strerror}). Choose another.") from None

    def finish_training(self) -> None:
        self.trained = True
        self._write()

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        text = json.dumps({"settings": self.settings, "trained": self.trained}, indent=2)
        self.path.write_text(text + "\n", encoding="utf-8")


# The steps ------------------------------------------------------------------------------------------------------------


def draw(folder: Path, *, train: int, test: int) -> list[Scene]:
    """Render the scenes where they are not there yet. Returns the lines of their metadata."""
    metadata, wanted = folder / "metadata.jsonl", {"train": train, "val": test, "test": test}
    lines = read_jsonl(metadata) if metadata.is_file() else []
    if Counter(line.get("split") for line in lines) == wanted:
        print(f"{len(lines):,} scenes are there already: {folder}")
        return lines
    with Progress("scenes", unit="img") as progress:
        render_scenes(folder, **wanted, seed=0, progress=progress.update)
    lines = read_jsonl(metadata)
    print(f"{train:,} scenes to train on, {test:,} to validate, {test:,} to test, five captions each: {folder}")
    return lines


def caption(folder: Path, scenes: Sequence[Scene]) -> dict[str, dict[str, str]]:
    """Caption the test folder as a user would, with and without contexts: who wrote them -> file name -> caption."""
    from latentcap.cli.caption import main as caption_images

    contexts = folder / "scenes" / "contexts.jsonl"
    with open_jsonl(contexts, "w") as file:
        write_jsonl(file, ({"file": name, "context": s["context"]} for name, s in tested(scenes) if "context" in s))
    found = {}
    for author, output, more in (
        (MODEL, folder / "captions.jsonl", ["--contexts", str(contexts)]),
        (WITHHELD, folder / "captions_without_context.jsonl", []),
    ):
        given = [folder / "scenes" / "test", "--model", folder / "model", "--output", output, *more]
        if caption_images([str(argument) for argument in given]) == 1:
            raise UserError(f"none of the test scenes in {folder / 'scenes'} can be read. Delete it and run again.")
        found[author] = {line["file"]: line["caption"] for line in read_jsonl(output)}
    known = Counter(text for scene in scenes if scene["split"] == "train" for text in scene["captions"])
    found[FREQUENT] = dict.fromkeys(found[MODEL], known.most_common(1)[0][0])
    return found


def tested(scenes: Sequence[Scene]) -> Iterator[tuple[str, Scene]]:
    """File names below the test folder, and what is known of each."""
    return ((Path(scene["file_name"]).name, scene) for scene in scenes if scene["split"] == "test")


def score(
    scenes: Sequence[Scene], captions: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, dict[str, float] | int]]:
    """Part of the test set -> "images" and, by author, scores. Parts without any scene are left out."""
    test = [(name, scene) for name, scene in tested(scenes) if name in captions[MODEL]]
    parts = {
        "all test scenes": test,
        "with a context": [(name, scene) for name, scene in test if "context" in scene],
        "without a context": [(name, scene) for name, scene in test if "context" not in scene],
        "colour-shape pairs never trained on": [(name, scene) for name, scene in test if scene["held_out"]],
    }
    report: dict[str, dict[str, dict[str, float] | int]] = {}
    for part, chosen in parts.items():
        if not chosen:
            continue
        references = [tokenize(scene["captions"], "words") for _, scene in chosen]
        report[part] = {"images": len(chosen)}
        for author, texts in captions.items():
            if author != WITHHELD or any("context" in scene for _, scene in chosen):
                values = caption_scores(tokenize([texts[name] for name, _ in chosen], "words"), references)
                report[part][author] = {name: values[name] for name in SHOWN_SCORES}
    return report


# What is shown --------------------------------------------------------------------------------------------------------


def show_scores(scores: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    table = Table(title="Captions of test scenes against five references each", title_justify="left")
    table.add_column("")
    for name in SHOWN_SCORES:
        table.add_column(name, justify="right")
    for part, authors in scores.items():
        table.add_row(f"[bold]{part}[/bold] ({authors['images']})")
        for author in (MODEL, WITHHELD, FREQUENT):
            if author in authors:
                values = (f"{authors[author][name]:.3f}" for name in SHOWN_SCORES)
                table.add_row(f"  {author}", *values, style="bold green" if author == MODEL else "")
        table.add_section()
    console.print(table)
    asked = scores.get("with a context")
    if asked:
        console.print(
            f"What the context is worth, on the {asked['images']} scenes that come with one: CIDEr-D "
            f"{asked[WITHHELD]['CIDEr-D']:.2f} without it, {asked[MODEL]['CIDEr-D']:.2f} with it."
        )


def show_examples(
    scenes: Sequence[Scene], captions: Mapping[str, Mapping[str, str]], console: Console, *, count: int = 3
) -> None:
    """The first test scenes with a context and the first without."""
    test = [(name, scene) for name, scene in tested(scenes) if name in captions[MODEL]]
    asked = [(name, scene) for name, scene in test if "context" in scene][:count]
    plain = [(name, scene) for name, scene in test if "context" not in scene][:count]
    table = Table(title="The first of them", title_justify="left")
    for name in ("image", "context", "caption", "one of the references"):
        table.add_column(name)
    for name, scene in (*asked, *plain):
        cells = (name, scene.get("context", ""), captions[MODEL][name], scene["captions"][0])
        table.add_row(*map(escape, cells))
    console.print(table)


def cards(
    folder: Path, scenes: Sequence[Scene], captions: Mapping[str, Mapping[str, str]]
) -> Iterator[dict[str, object]]:
    """What the gallery shows of each test scene."""
    scored = {line["file"]: line["score"] for line in read_jsonl(folder / "captions.jsonl")}
    for name, scene in tested(scenes):
        if name in captions[MODEL]:
            yield {
                "file": f"test/{name}",
                "caption": captions[MODEL][name],
                "score": scored[name],
                "context": scene.get("context"),
                "references": scene["captions"],
                "image": ImageRef(str(folder / "scenes" / "test" / name)).open(),
            }


def next_commands(folder: Path) -> list[str]:
    """Commands to go on with, for the working directory that this was run in."""
    program = os.path.relpath(Path(sys.executable).with_name("latentcap"))
    program = "latentcap" if program.startswith(os.pardir) else program
    val, model, output = folder / "scenes" / "val", folder / "model", folder / "val.jsonl"
    ask = ["caption", str(val), "--model", str(model), "--output", str(output), "--context"]
    own = ["train", "stages", "--config", "photos", "--data.train", "MY_IMAGES"]
    return [
        shlex.join([program, *ask, "what is on the left?"]),
        shlex.join([program, *own, "--trainer.default_root_dir", "runs/mine"]),
    ]
