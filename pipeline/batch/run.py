"""The run itself: what is left to do, in blocks; records into the journal; failures tried once more at the end.

:meth:`Run.__call__` goes through the inputs once, :meth:`Run.watch` goes on with what arrives.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from hashlib import sha256
from itertools import chain, count, islice

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record, digest, to_line, written_to_disk
from latentcap.batch.newer import newer
from latentcap.batch.outputs import Output
from latentcap.batch.pool import Block
from latentcap.batch.run_folder import RunFolder
from latentcap.batch.signals import Stop
from latentcap.batch.summary import Summary
from latentcap.batch.watch import Watch
from latentcap.data.errors import UserError
from latentcap.data.kinds import is_image
from latentcap.progress import Progress

MANIFEST_SECONDS = 30.0
FIRST_BLOCK = 8
SKIPPED = "skipped.jsonl"

Pool = Callable[[Iterator[Block]], Iterator[list[Record]]]


class Run:
    """Caption what is left of ``inputs`` into ``output``. The run folder is locked and its manifest begun.

    Blocks are formed across files and folders by their place in the inputs, whatever was done before, and an
    interrupted block is computed whole again: numbers can differ in the last digit with the other images of a batch,
    and so the journal ends the same as without the interruption, byte for byte.

    ``whole`` is False where ``inputs`` are only some of those of earlier runs: what was skipped then stays written.
    """

    def __init__(
        self,
        inputs: Iterable[Input],
        output: Output,
        folder: RunFolder,
        *,
        block: int,
        quiet: bool = False,
        whole: bool = True,
    ) -> None:
        self.inputs, self.output, self.folder = inputs, output, folder
        self.block, self.quiet, self.whole = block, quiet, whole
        self.journal, self.errors = output.journal, folder.errors
        self.summary = Summary()
        if not self.journal.path.exists():  # somebody has removed the output: a new start
            self.errors.path.unlink(missing_ok=True)
        self.done = {digest(str(record.get("file"))) for record in self.journal.recover()}
        self.failed = {digest(str(record.get("file"))) for record in self.errors.recover()}
        self.failed -= self.done
        self.stale: set[int] = set()
        self.still_failed: set[int] = set()
        self.earlier: set[int] = set()  # of the inputs that were seen, those that earlier runs captioned
        self.mended: set[int] = set()
        self.summary.resumed = len(self.done)
        self._names = sha256()
        self._retry: list[Input] = []
        self.skipped: list[Record] = []

    def __call__(self, pool: Pool, total: Callable[[], int | None] = lambda: None) -> Summary:
        """Run to the end, or until it is asked to stop. ``total`` says how many inputs there are, once known."""
        with Stop() as stop:
            self._round(pool, stop, total)
        return self.summary

    def watch(self, pool: Pool, watch: Watch, block: Callable[[int], int]) -> Iterator[Summary]:
        """Caption what arrives, until it is asked to stop. ``block`` says how many of so many inputs make a block.

        Yields the counts so far after each look that found something.
        """
        with Stop() as stop:
            while not stop.asked:
                if found := watch():
                    if watch.changed:
                        self.renew(found)
                    self.inputs, self.block = found, block(len(found))
                    self._round(pool, stop, lambda: None)
                    yield self.summary
                stop.wait(watch.pause)

    def renew(self, inputs: Iterable[Input]) -> int:
        """Take back the captions of images that have changed since, so that they come again. Returns how many."""
        self._replay()
        stale = newer(inputs, self.output, self.folder.times)
        if stale:
            self.output.renew(stale)
            self.stale |= stale.keys()
            self.done -= stale.keys()
            self.summary.resumed = len(self.done)
        return len(stale)

    def _replay(self) -> None:
        """Let the output write what an earlier run had no time to. What has no place any more is not done."""
        if lost := self.output.replay():
            self.done.difference_update(map(digest, lost))
            self.summary.resumed = len(self.done)

    def _round(self, pool: Pool, stop: Stop, total: Callable[[], int | None]) -> None:
        """All inputs. Where it is asked to stop before their end, what is to be written last is left to a later run."""
        start = time.monotonic()
        self.summary.interrupted = False
        self._replay()
        self.folder.times.mark(self.journal.path)
        with self.journal, self.errors:
            try:
                self._caption(pool, stop, total)
            finally:
                self.summary.seconds += time.monotonic() - start
                self._count_reasons()
                with suppress(UserError):  # where the disk is full, that is what is told
                    self._update("interrupted")
                    self.summary.write(self.folder.path, "interrupted")
        if not self.summary.interrupted:
            self._drop_mended_errors()
            of_all: dict[str, object] = {}
            if self.whole:
                self._write_skipped()
                of_all["input"] = {"names": self.summary.seen, "sha256": self._names.copy().hexdigest()}
            try:
                self.output.finish(quiet=self.quiet)
            finally:
                with self.errors if self.output.lost else nullcontext():
                    self._take_back()
            self._update("complete", **of_all)
            self.summary.write(self.folder.path, "complete")

    def _caption(self, pool: Pool, stop: Stop, total: Callable[[], int | None]) -> None:
        blocks = self._until(stop)
        first = next(blocks, None)
        if first is None:
            return
        written = time.monotonic()
        with nullcontext() if self.quiet else Progress("captions", unit="img") as progress:
            for records in pool(chain([first], blocks)):
                self._commit(records)
                if progress:
                    new = self.summary.captioned + self.summary.failed
                    known = total()
                    progress.update(
                        new,
                        None if known is None else max(new, known - len(self.done) - self.summary.skipped),
                        note=f"{self.summary.failed:,} failed" if self.summary.failed else "",
                    )
                if time.monotonic() - written > MANIFEST_SECONDS:
                    written = time.monotonic()
                    self._checkpoint()
                    self.folder.times.mark(self.journal.path)
                    self._update("running")
            self._checkpoint()

    def _checkpoint(self) -> None:
        try:
            self.output.checkpoint()
        finally:
            self._take_back()

    def _take_back(self) -> None:
        """Captions that the output has lost are failures, and counted as that alone."""
        summary = self.summary
        for record in self.output.lost:
            key = digest(record["file"])
            if key in self.done and key not in self.mended:
                summary.resumed -= 1
                if key in self.earlier:
                    summary.earlier -= 1
                else:
                    summary.seen += 1  # no input any more, and yet told
            else:
                summary.captioned -= 1
            self.done.discard(key)
            self.still_failed.add(key)
        if self.output.lost:
            self.errors.append(self.output.lost)
            summary.failed = len(self.still_failed)
            self._count_reasons()
            self.output.lost = []

    def _commit(self, records: Iterable[Record]) -> None:
        """Add to the journal what it does not hold yet."""
        left = [record for record in records if digest(record["file"]) not in self.done]
        self._fail([record for record in left if "error" in record])
        captions = [record for record in left if "error" not in record]
        if not captions:
            return
        self.summary.captioned += self.output.append(captions)
        refused = self._fail(self.output.refused)
        self.output.refused.clear()
        keys = {digest(record["file"]) for record in captions} - refused
        mended = {key for key in keys if key in self.failed or key in self.still_failed}
        self.failed -= mended
        self.still_failed -= mended
        self.done |= mended
        self.mended |= mended
        self.summary.failed = len(self.still_failed)

    def _fail(self, records: Sequence[Record]) -> set[int]:
        """Write down errors that are new. Returns digests of the names of all."""
        errors = {digest(record["file"]): record for record in records}
        new = [record for key, record in errors.items() if key not in self.failed and key not in self.still_failed]
        self.still_failed.update(errors)
        if new:
            self.errors.append(new)
        self.summary.failed = len(self.still_failed)
        return set(errors)

    # What is left -----------------------------------------------------------------------------------------------------

    def _until(self, stop: Stop) -> Iterator[Block]:
        for block in self._left():
            if stop.asked:
                self.summary.interrupted = True
                return
            yield block

    def _left(self) -> Iterator[Block]:
        """Blocks of what is not done: first the one in which an earlier run stopped, at last its failures again."""
        self._retry = []
        inputs = self._wanted()
        sizes = block_sizes(self.block)
        while block := next_block(inputs, next(sizes)):
            known = [self._is_known(item) for item in block]
            if not all(known):
                yield block
                break
        rest = (item for item in inputs if not self._is_known(item))
        while block := next_block(rest, next(sizes)):
            yield block
        for at in range(0, len(self._retry), self.block):
            yield self._retry[at : at + self.block]

    def _is_known(self, item: Input) -> bool:
        """Whether an earlier run has dealt with it; where that failed, it comes again at the end."""
        key = digest(item.name)
        if key in self.failed:
            self._retry.append(item)
            return True
        return key in self.done

    def _wanted(self) -> Iterator[Input]:
        for item in self.inputs:
            key = digest(item.name)
            if key not in self.still_failed:  # else it has been seen, and has changed since
                self._names.update(item.name.encode("utf-8", "surrogatepass") + b"\0")
                self.summary.seen += 1
            if item.skipped:
                self.summary.skip(item.skipped)
                self.skipped.append({"file": item.name, "skipped": item.skipped})
                self.summary.missed += is_image(item.name) and not item.study
                continue
            known = key in self.done
            wanted = self.output.prepare(item, known=known or key in self.stale)
            if wanted is None:
                self.summary.skip(self.output.why_skipped)
            else:
                if known:
                    self.summary.earlier += 1
                    self.earlier.add(key)
                yield wanted

    # What is written at the end ---------------------------------------------------------------------------------------

    def _count_reasons(self) -> None:
        self.summary.failures = Counter(record["error"] for record in self._current(self.errors))

    def _current(self, errors: Iterable[Record]) -> list[Record]:
        """The last of each input that has failed."""
        last = {digest(record["file"]): record for record in errors}
        return [record for key, record in last.items() if key in self.still_failed]

    def _drop_mended_errors(self) -> None:
        """Errors of inputs that have a caption now, or are no longer there, are out of date."""
        if not self.still_failed:
            self.errors.path.unlink(missing_ok=True)
            return
        records = list(self.errors)
        kept = self._current(records)
        if len(kept) < len(records):
            with written_to_disk(self.errors.path) as file:
                file.writelines(map(to_line, kept))

    def _write_skipped(self) -> None:
        """``skipped.jsonl``: what was not taken for an image, with reasons."""
        path = self.folder.path / SKIPPED
        if self.skipped:
            with written_to_disk(path) as file:
                file.writelines(map(to_line, self.skipped))
        else:
            path.unlink(missing_ok=True)

    def _update(self, status: str, **more: object) -> None:
        summary = self.summary
        counts = {
            "captioned": summary.resumed + summary.captioned,
            "failed": summary.failed,
            "skipped": summary.skipped,
        }
        self.folder.update(status=status, counts=counts, **more)


def next_block(inputs: Iterator[Input], size: int) -> list[Input]:
    """The next inputs, up to ``size`` or to a video, which ends a block: it takes far longer than an image."""
    block = []
    for item in islice(inputs, size):
        block.append(item)
        if item.video:
            break
    return block


def block_sizes(largest: int) -> Iterator[int]:
    """Sizes of blocks: the first are small, so that the first captions come soon; two of 8, two of 16, ..."""
    for number in count():
        yield min(largest, FIRST_BLOCK << min(number // 2, 16))
