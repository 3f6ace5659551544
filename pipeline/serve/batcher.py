"""Requests to batches: what waits together and is searched alike goes through the model together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentcap.captioner import Caption, Captioner
from latentcap.search.config import SearchConfig

GATHER = 0.01  # seconds that a batch waits for the next of the requests that are on their way


@dataclass
class Job:
    """One example to be captioned.

    Attributes:
        captioner: the model, with all of its heads or some.
        views: the images, each (C, H, W).
        search: settings; a batch has one.
        context: text, numbers and categories, as the model knows them.
        attention: whether the captions say where the heads looked.
        answer: becomes the caption, or the error. Cancelled, the job is left out where it has not begun.
    """

    captioner: Captioner
    views: list[Tensor]
    search: SearchConfig
    context: str | None = None
    numbers: dict[str, float | None] = field(default_factory=dict)
    categories: dict[str, str | None] = field(default_factory=dict)
    attention: bool = False
    answer: Future[Caption] = field(default_factory=Future)

    @property
    def kind(self) -> Hashable:
        """Jobs of one kind may share a batch."""
        return id(self.captioner), self.search, self.attention


class Batcher:
    """Threads that take waiting jobs in batches, oldest first.

    A batch that runs alone computes on all cores; another begins beside it where half a batch waits, and they share the
    cores. Fewer jobs wait for it to end, for a larger batch costs less for each. A batch begins at once, unless
    requests are on their way (``expected``): then it waits as long as they come, ``GATHER`` after the last at most.

    The first thread runs what runs alone: each thread that has once computed on several cores keeps helpers, and
    where there are more of them than cores, OpenMP lets them sleep between any two products.

    Args:
        batch_size: jobs of a batch.
        workers: threads.
        expected: how many requests have been accepted and have not come here yet.
        watch: called with the size of every batch and its seconds.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        workers: int,
        expected: Callable[[], int] = lambda: 0,
        watch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.batch_size, self.expected, self.watch = batch_size, expected, watch
        self._cores = torch.get_num_threads()
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(n,), daemon=True, name=f"batch-{n}") for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> Future[Caption]:
        """Queue a job. Its future ends with the caption."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify_all()
        return job.answer

    def close(self) -> None:
        """Finish what waits, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        while (batch := self._next(number)) is not None:
            start = time.perf_counter()
            torch.set_num_threads(max(1, self._cores // self._running))
            try:
                _caption(batch)
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()
                self.watch(len(batch), time.perf_counter() - start)

    def _next(self, number: int) -> list[Job] | None:
        """The next batch of a thread, when there is one; None when all is done."""
        with self._changed:
            while True:
                while not self._begins(number) and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return None
                self._gather()
                if batch := self._take():
                    self._running += 1
                    return batch

    def _begins(self, number: int) -> bool:
        if self._running:
            return len(self._waiting) >= max(1, self.batch_size // 2)
        return bool(self._waiting) and number == 0

    def _gather(self) -> None:
        seen, until = 0, 0.0
        while 0 < len(self._waiting) < self.batch_size and self.expected() and not self._closed:
            if seen != len(self._waiting):
                seen, until = len(self._waiting), time.monotonic() + GATHER
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _take(self) -> list[Job]:
        """The oldest job and those of its kind, without what was cancelled."""
        batch: list[Job] = []
        others: list[Job] = []
        while self._waiting and len(batch) < self.batch_size:
            job = self._waiting.popleft()
            if batch and job.kind != batch[0].kind:
                others.append(job)
            elif job.answer.set_running_or_notify_cancel():
                batch.append(job)
        self._waiting.extendleft(reversed(others))
        return batch


def _caption(batch: list[Job]) -> None:
    """Answer every job of a batch; one that the batch fails with fails alone."""
    first = batch[0]
    try:
        context = first.captioner.collate_context(
            [job.context for job in batch],
            numbers=[job.numbers for job in batch],
            categories=[job.categories for job in batch],
        )
        captions = first.captioner.caption_tensors(
            [job.views for job in batch], context, first.search, return_attention=first.attention
        )
    except Exception as error:
        if len(batch) == 1:
            first.answer.set_exception(error)
            return
        half = len(batch) // 2
        _caption(batch[:half])
        _caption(batch[half:])
        return
    for job, caption in zip(batch, captions, strict=True):
        job.answer.set_result(caption)
