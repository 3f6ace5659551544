"""What a run would do, without doing it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record, digest
from latentcap.batch.outputs import Output
from latentcap.batch.summary import Summary

SHOWN = 10


def plan(
    inputs: Iterable[Input], output: Output, *, anew: bool = False, stale: Collection[int] = ()
) -> tuple[Summary, list[str]]:
    """Count what there is to do, and name the first of it. Nothing is written or opened as an image.

    Of the summary ``left`` is what would be captioned, what has failed before included; ``failed`` is known to fail.
    ``anew``: as if there had been no earlier run. ``stale``: digests of names whose captions would be taken back.
    """
    earlier = {digest(str(record.get("file"))) for record in output.journal}
    done = set() if anew else earlier.difference(stale)
    summary = Summary(resumed=len(done))
    names: list[str] = []
    for item in inputs:
        summary.seen += 1
        key = digest(item.name)
        known = key in done
        wanted = None if item.skipped else output.prepare(item, known=key in earlier)
        if wanted is None:
            summary.skip(item.skipped or output.why_skipped)
        elif known:
            summary.earlier += 1
        elif wanted.error:
            summary.failed += 1
            summary.failures[wanted.error] += 1
        elif len(names) < SHOWN:
            names.append(item.name)
    return summary, names


def failed_before(errors: Iterable[Record], journal: Iterable[Record]) -> set[int]:
    """Digests of the names that have an error and no caption."""
    failed = {digest(str(record.get("file"))) for record in errors}
    return failed - {digest(str(record.get("file"))) for record in journal} if failed else failed
