"""Caption images: ``latentcap caption photos/ --output captions.jsonl``

Every caption is kept as soon as it is known. Run again, it goes on where it was stopped. Images that cannot be read
never stop it: they are listed, with reasons, in ``captions.jsonl.run/errors.jsonl``.

Exit code: 0 all images are captioned, 1 none could be, 2 a mistake in the command, 3 some could not be.
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence, Set
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from latentcap.batch.engine import Engine
from latentcap.batch.inputs import Inputs
from latentcap.batch.journal import digest
from latentcap.batch.merge import merge
from latentcap.batch.outputs import MERGING, REPORTS, SECTIONED, Output, choose_format
from latentcap.batch.run import Run
from latentcap.batch.run_folder import RunFolder, model_hash
from latentcap.batch.settings import WorkerSettings
from latentcap.batch.shards import Shard, choose_shard
from latentcap.batch.summary import Summary
from latentcap.batch.watch import Watch
from latentcap.batch.wording import Wording
from latentcap.cli.caption_input import choose_inputs, only_failed
from latentcap.cli.caption_options import parse
from latentcap.cli.caption_output import choose_output
from latentcap.cli.caption_report import announce, printable, report, show_gallery, show_plan, tell
from latentcap.cli.search_options import search_settings
from latentcap.data.errors import UserError
from latentcap.data.jsonl import iter_jsonl
from latentcap.data.kinds import is_image
from latentcap.data.readers.paths import existing
from latentcap.data.remote import is_remote
from latentcap.data.video import require_pyav

MakeEngine = Callable[[argparse.Namespace, WorkerSettings], Engine]


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["merge"]:
        return merge_outputs(arguments[1:])
    options = parse(arguments)
    if is_looked_at(options):
        return show_captions(options)
    return caption(options, choose_shard(options.shard_index, options.num_shards), make_engine)


def is_looked_at(options: argparse.Namespace) -> bool:
    """Whether a few images are named one by one, and no place for their captions: somebody wants to see them."""
    if options.output or options.format or options.retry_failed or options.changed or options.watch or options.dry_run:
        return False
    return bool(options.images) and all(is_image(name) and os.path.isfile(name) for name in map(str, options.images))


def show_captions(options: argparse.Namespace) -> int:
    """Print what would be written: the caption of one image, of several each after its name."""
    with tempfile.TemporaryDirectory() as folder:
        options.output, options.quiet = Path(folder, "captions.jsonl"), True
        code = caption(options, choose_shard(options.shard_index, options.num_shards), make_engine, kept=False)
        records = list(iter_jsonl(options.output)) if options.output.exists() else []
    for record in records:
        name = f"{record['file']}: " if len(options.images) > 1 else ""
        for entry in (record, *record.get("alternatives", ())):
            print(printable(f"{name}{entry['caption']}"))
            if options.words:
                print(printable("  " + " ".join(f"{word} {share:.2f}" for word, share in entry["words"])))
        for heading, sentences in record.get("sections", {}).items():
            print(printable(f"  {heading}: {sentences}"))
    return code


def caption(options: argparse.Namespace, shard: Shard, make_engine: MakeEngine, *, kept: bool = True) -> int:
    """Caption what the options name, with the model that ``make_engine`` spreads. Returns the exit code.

    ``kept`` is False where the output is gone before anybody could look at what is listed beside it.
    """
    check(options)
    wording(options)
    for path in [] if options.output or options.format else options.images:
        if not (path == "-" or path.startswith("@") or is_remote(path) or glob.has_magic(path) or "{" in path):
            existing(path, "image path")  # else the missing output would be told
    if options.gallery and options.gallery.is_dir():
        raise UserError(f"--gallery {options.gallery}: a folder, where the name of an HTML file is needed.")
    kind = choose_format(options.output, options.format)
    for name, given, of in (
        ("--image-ids", options.image_ids, "coco"),
        ("--xmp-name", options.xmp_name == "stem", "xmp"),
    ):
        if given and kind != of:
            raise UserError(f"{name}: is of --format {of}, and this is {kind}. Leave it away, or add --format {of}.")
    if kind in ("srt", "vtt") and not options.every:
        raise UserError(f"--format {kind} is of videos: add --every 2s, the time between frames.")
    if options.every:
        if kind in ("hf", "webdataset"):
            raise UserError(f"--every: is for videos; --format {kind} holds images. Write .jsonl, .srt or .vtt.")
        require_pyav()
    if options.keep_identifiers:
        if kind not in REPORTS:
            raise UserError(f"--keep-identifiers: is for --format {' and '.join(REPORTS)}; {kind} holds none.")
        tell(f"--keep-identifiers: names and numbers of patients are copied from the images into {options.output}")
    if options.sections and kind not in SECTIONED:
        raise UserError(f"--sections: is for --format {', '.join(SECTIONED)}; {kind} holds no headings.")
    inputs = choose_inputs(options, shard, kind)
    output, folder = choose_output(options, kind, shard)
    if options.dry_run:
        return show_plan(options, inputs, output, folder)
    with folder:
        if options.retry_failed and not only_failed(inputs, output, folder):
            print("nothing has failed: there is nothing to try again", file=sys.stderr)
            return 0
        if not (folder.manifest or options.overwrite):
            output.check_unknown()
        engine = make_engine(options, worker_settings(options, output))
        if engine.described and not options.quiet:
            print(f"engine: {engine.described}", file=sys.stderr)
        few = len(list(islice(inputs, options.batch_size * engine.workers * engine.devices)))
        wanted = settings(options, kind, shard) | {"search": engine.search.to_dict()}
        if options.overwrite:  # now that nothing else in the command can be wrong
            output.clear()
            folder.clear()
        whole = not options.retry_failed
        run = Run(inputs, output, folder, block=engine.block(few), quiet=options.quiet, whole=whole)
        named = roots(folder, inputs, run.done)
        folder.begin(wanted, empty=not run.summary.resumed)
        folder.update(inputs=options.images, roots=named, model_folder=str(options.model))
        if options.changed and (changed := run.renew(inputs)) and not options.quiet:
            print(f"{changed:,} changed since they were captioned", file=sys.stderr)
        announce(options, shard, output, run.summary)
        summary = watch(run, inputs, engine, options) if options.watch else run(engine.map, inputs.count_beside())
        report(run, folder, output, quiet=options.quiet, kept=kept)
        if options.gallery and not summary.interrupted:
            show_gallery(options, inputs, output, folder)
    if summary.interrupted:
        raise KeyboardInterrupt
    return 0 if not (summary.failed or summary.missed) else 3 if summary.captioned or summary.resumed else 1


def check(options: argparse.Namespace) -> None:
    """Raises UserError for options that contradict each other."""
    if options.retry_failed and options.overwrite:
        raise UserError("--retry-failed goes on with an earlier run, which --overwrite forgets: give one of them.")
    if options.retry_failed and (options.changed or options.watch):
        other = "--changed" if options.changed else "--watch"
        raise UserError(f"--retry-failed takes what failed, {other} what is new: give one of them.")
    if options.watch:
        for path in options.images:
            if not os.path.isdir(path):
                raise UserError(f"--watch {path}: not a folder. It captions what arrives in folders.")
        if options.devices != 1:
            raise UserError("--watch captions with one device: leave --devices away.")


def roots(folder: RunFolder, inputs: Inputs, done: Set[int]) -> list[str]:
    """The folders, archives and tables whose images are named by their path in them in this output.

    Raises UserError where images of one would be taken for those of another, captioned before. One that is gone was
    moved, and goes on where it is now.
    """
    before = [root for root in folder.manifest.get("roots", ()) if is_remote(root) or os.path.exists(root)]
    root = inputs.root
    if root is None or root in before:
        return before
    if before and any(digest(item.name) in done for item in inputs):
        raise UserError(
            f"{folder.output}: holds captions of {', '.join(before)}, whose images are named by their path in it. "
            f"Those of {root} would be taken for them. Caption both in one command, or choose another --output; "
            "--overwrite starts anew."
        )
    return [*before, root]


def watch(run: Run, inputs: Inputs, engine: Engine, options: argparse.Namespace) -> Summary:
    """Caption what is in the folders and what arrives there, until Ctrl-C."""
    watching = Watch(inputs, failed=run.still_failed, changed=options.changed)
    if not options.quiet:
        print("watching: Ctrl-C ends it", file=sys.stderr)
    for summary in run.watch(engine.map, watching, engine.block):
        if not options.quiet:
            tell(str(summary))
    return run.summary


def worker_settings(options: argparse.Namespace, output: Output) -> WorkerSettings:
    """What each process that captions loads and writes."""
    return WorkerSettings(
        str(options.model),
        device=options.device or "",
        dtype=options.dtype,
        engine=options.engine,
        heads=options.heads,
        wording=wording(options),
        words=options.words,
        keep_images=output.needs_images,
        keep_ids=output.needs_ids,
        every=options.every,
        sections=options.sections,
    )


def wording(options: argparse.Namespace) -> Wording:
    return Wording(options.prefix, options.suffix, options.template, options.lowercase, options.trigger)


def make_engine(options: argparse.Namespace, given: WorkerSettings) -> Engine:
    """The model, loaded, and how it is spread over threads or processes."""
    from latentcap.batch.local_engine import LocalEngine  # torch takes seconds to import

    return LocalEngine(
        given,
        search_settings(options),
        workers=options.workers,
        devices=options.devices,
        batch_size=options.batch_size,
    )


def settings(options: argparse.Namespace, kind: str, shard: Shard) -> dict[str, Any]:
    """What one output has to be made with from its beginning to its end."""
    texts = {name: getattr(options, name) for name in ("existing", "separator")} if kind in MERGING else {}
    if kind == "xmp":
        texts["xmp_name"] = options.xmp_name
    if options.image_ids:
        texts["image_ids"] = sha256(options.image_ids.read_bytes()).hexdigest()
    return {
        "model": model_hash(options.model),
        "heads": options.heads,
        "format": kind,
        "prefix": options.prefix,
        "suffix": options.suffix,
        "template": options.template or None,
        "lowercase": options.lowercase or None,
        "trigger": options.trigger or None,
        "words": options.words,
        "context": options.context,
        "contexts": sha256(options.contexts.read_bytes()).hexdigest() if options.contexts else None,
        "columns": {"image": options.image_column, "context": options.context_column},
        "dtype": options.dtype,
        "frame": options.frame,
        "every": options.every or None,
        "keep_identifiers": options.keep_identifiers or None,
        "sections": options.sections or None,
        "shard": str(shard),
        **texts,
    }


def merge_outputs(arguments: Sequence[str]) -> int:
    """``latentcap caption merge OUTPUT``: the outputs of all parts as one."""
    parser = argparse.ArgumentParser(
        prog="latentcap caption merge", description="Join the outputs of --num-shards processes."
    )
    parser.add_argument("output", type=Path, help="what --output was: a file, or the folder of --format hf or parts")
    path = parser.parse_args(arguments).output
    parts, records = merge(path)
    print(f"{records:,} captions of {parts} parts: {path}", file=sys.stderr)
    return 0
