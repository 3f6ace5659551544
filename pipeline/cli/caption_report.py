"""What a captioning run says: what it would do, where it goes on, what failed, and that it is done."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from itertools import islice

from latentcap.batch.inputs import Inputs
from latentcap.batch.newer import newer
from latentcap.batch.outputs import Output
from latentcap.batch.plan import plan
from latentcap.batch.run import SKIPPED, Run
from latentcap.batch.run_folder import RunFolder
from latentcap.batch.shards import Shard
from latentcap.batch.summary import Summary
from latentcap.cli.caption_input import only_failed
from latentcap.data.errors import UserError
from latentcap.pages.gallery import write_gallery

SHOWN_FAILURES = 5


def announce(options: argparse.Namespace, shard: Shard, output: Output, summary: Summary) -> None:
    if options.quiet:
        return
    if shard.number > 1:
        source = f" (from {shard.source})" if shard.source else ""
        print(f"part {shard.index} of {shard.number}{source}: {output}", file=sys.stderr)
    if summary.resumed:
        print(f"resuming: {summary.resumed:,} already in {output} (--overwrite starts anew)", file=sys.stderr)


def report(run: Run, folder: RunFolder, output: Output, *, quiet: bool, kept: bool) -> None:
    """Name the first failures and what was skipped, and say what was done."""
    summary = run.summary
    if run.skipped:
        for record in run.skipped[:SHOWN_FAILURES]:
            tell(f"skipped {record['file']}: {record['skipped']}")
        if len(run.skipped) > SHOWN_FAILURES:
            tell(f"... and {len(run.skipped) - SHOWN_FAILURES:,} more")
        if kept:
            tell(f"listed in {folder.path / SKIPPED}")
    if summary.failed:
        for record in islice(folder.errors, SHOWN_FAILURES):
            tell(f"cannot caption {record['file']}: {record['error']}")
        if summary.failed > SHOWN_FAILURES:
            tell(f"... and {summary.failed - SHOWN_FAILURES:,} more")
            tell_reasons("failed", summary.failures)
        if kept:
            tell(f"listed in {folder.errors.path}")
    if not quiet:
        if summary.skipped > min(SHOWN_FAILURES, len(run.skipped)):
            tell_reasons("skipped", summary.skips)
        tell(f"{summary}: {output}")


def tell_reasons(what: str, reasons: Counter[str]) -> None:
    """How many were skipped or failed for each reason, the most frequent first."""
    for reason, number in reasons.most_common(SHOWN_FAILURES):
        tell(f"{number:,} {what}: {reason}")


def tell(text: str) -> None:
    print(printable(text), file=sys.stderr)


def show_plan(options: argparse.Namespace, inputs: Inputs, output: Output, folder: RunFolder) -> int:
    """Say what a run would do. Returns the exit code."""
    if options.retry_failed:
        only_failed(inputs, output, folder)
    changed = newer(inputs, output, folder.times) if options.changed else {}
    summary, names = plan(inputs, output, anew=options.overwrite, stale=changed)
    for name in names:
        print(printable(name))
    if summary.left > len(names):
        print(f"... and {summary.left - len(names):,} more")
    tell_reasons("would be skipped", summary.skips)
    tell_reasons("would fail", summary.failures)
    tell(
        f"{summary.left:,} to caption, {summary.earlier:,} captioned before, {summary.skipped:,} skipped, "
        f"{summary.failed:,} failed of {summary.seen:,} seen: {output}"
    )
    return 0


def printable(text: str) -> str:
    """Without what a terminal cannot show: a name's bytes that are not UTF-8, and control characters."""
    shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in shown)


def show_gallery(options: argparse.Namespace, inputs: Inputs, output: Output, folder: RunFolder) -> None:
    from latentcap.batch.cards import cards

    try:
        shown = cards(inputs, output.journal, folder.errors, every=options.every)
        write_gallery(options.gallery, shown, title="Captions")
    except OSError as error:
        raise UserError(f"--gallery {options.gallery}: cannot be written ({error.strerror}).") from None
    if not options.quiet:
        print(f"gallery: {options.gallery}", file=sys.stderr)
