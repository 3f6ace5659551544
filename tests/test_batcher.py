"""The order in which requests become batches, with a model that waits until it is told to go on."""

import threading
import time
from concurrent.futures import Future
from typing import Any, cast

import torch

from latentcap.captioner import Caption, Captioner
from latentcap.search.config import SearchConfig
from latentcap.serve.batcher import Batcher, Job

SIZE = 4


class Slow:
    """A captioner that notes sizes and threads of its batches, and answers when the gate is open."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, str, int]] = []
        self.gate, self.begun = threading.Event(), threading.Semaphore(0)

    def collate_context(self, texts: list[Any], **more: object) -> None:
        return None

    def caption_tensors(self, views: list[Any], *more: object, **settings: object) -> list[Caption]:
        self.batches.append((len(views), threading.current_thread().name, torch.get_num_threads()))
        self.begun.release()
        assert self.gate.wait(20)
        return [Caption(f"of {len(views)}", 0.0, [], []) for _ in views]


def test_few_wait_for_the_batch_that_runs_and_half_a_batch_does_not() -> None:
    slow = Slow()
    search = SearchConfig()
    batcher = Batcher(batch_size=SIZE, workers=2)

    def ask(count: int) -> list[Future[Caption]]:
        return [batcher.submit(Job(cast(Captioner, slow), [], search)) for _ in range(count)]

    answers = ask(1)
    assert slow.begun.acquire(timeout=20)
    answers += ask(1)  # less than half a batch: it waits
    assert not slow.begun.acquire(timeout=0.1)
    answers += ask(1)  # half a batch: it begins, beside the first
    assert slow.begun.acquire(timeout=20)
    answers += ask(1)
    slow.gate.set()
    assert [answer.result(20).text for answer in answers] == ["of 1", "of 2", "of 2", "of 1"]
    batcher.close()
    sizes, names, cores = zip(*slow.batches, strict=True)
    assert sizes == (1, 2, 1)
    assert names == ("batch-0", "batch-1", "batch-0")  # what runs alone is the first thread's
    assert cores[0] == torch.get_num_threads()
    assert cores[1] == max(1, torch.get_num_threads() // 2)


def test_a_batch_waits_for_requests_on_their_way_as_long_as_they_come() -> None:
    slow, coming = Slow(), [SIZE - 1]
    slow.gate.set()
    batcher = Batcher(batch_size=SIZE, workers=2, expected=lambda: coming[0])
    job = Job(cast(Captioner, slow), [], SearchConfig())
    answers = [batcher.submit(job)]
    for _ in range(SIZE - 1):
        time.sleep(0.001)
        coming[0] -= 1
        answers.append(batcher.submit(Job(job.captioner, [], job.search)))
    assert {answer.result(20).text for answer in answers} == {f"of {SIZE}"}
    coming[0] = 1  # and one that never comes is not waited for
    assert batcher.submit(Job(job.captioner, [], job.search)).result(20).text == "of 1"
    batcher.close()
