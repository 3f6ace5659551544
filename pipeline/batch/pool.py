"""Blocks of inputs to blocks of records, in order, while several are computed: by threads, or by a process a device."""

from __future__ import annotations

import multiprocessing
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any

from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record
from latentcap.data.errors import UserError

Block = Sequence[Input]
Work = Callable[[Block], list[Record]]


def in_threads(work: Work, blocks: Iterator[Block], workers: int) -> Iterator[list[Record]]:
    """``work`` of every block, in order, by ``workers`` threads that each take whole blocks from file to caption.

    On a CPU each thread computes alone, for threads that share every layer wait for one another at each; on a GPU one
    computes while the others decode. One block more than there are threads waits.
    """
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(1, threads // workers),))
    try:
        jobs = (pool.submit(work, block) for block in blocks)
        waiting: deque[Future[list[Record]]] = deque(islice(jobs, workers + 1))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(islice(jobs, 1))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def in_processes(load: Sequence[Callable[[], Work]], blocks: Iterator[Block], workers: int) -> Iterator[list[Record]]:
    """``work`` of every block, in order, by a process for each of ``load``, with ``workers`` threads each.

    Raises:
        UserError: a process has died, or could not load its model.
    """
    spawn = multiprocessing.get_context("spawn")
    ours: dict[Connection, Any] = {}
    for entry in load:
        here, there = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(there, entry, workers), daemon=True)
        process.start()
        there.close()
        ours[here] = process
    try:
        yield from _exchange(list(ours), blocks, slots=workers + 1)
    finally:
        for connection in ours:
            connection.close()  # which ends the process
        for process in ours.values():
            process.join(timeout=30)
            if process.is_alive():
                process.kill()


def _exchange(connections: list[Connection], blocks: Iterator[Block], *, slots: int) -> Iterator[list[Record]]:
    """Keep every process busy with ``slots`` blocks; hand out results in the order of the blocks."""
    numbered = enumerate(blocks)
    results: dict[int, list[Record]] = {}
    asked = done = 0

    def feed(connection: Connection) -> int:
        if asked - done >= 4 * slots * len(connections):  # do not run far ahead of a slow one
            return 0
        for number, block in islice(numbered, 1):
            connection.send((number, block))
            return 1
        return 0

    free = dict.fromkeys(connections, slots)
    try:
        while True:
            for connection in free:
                while free[connection] and (more := feed(connection)):
                    asked += more
                    free[connection] -= more
            if asked == done + len(results):
                return
            for ready in wait(connections):
                assert isinstance(ready, Connection)
                number, result = ready.recv()
                if isinstance(result, BaseException):
                    raise result
                results[number] = result
                free[ready] += 1
            while done in results:
                yield results.pop(done)
                done += 1
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise UserError(
            "a captioning process died: it was killed, or memory ran out. What was captioned before is kept, and the "
            "same command goes on; --batch-size or --devices may have to be smaller."
        ) from None


def _serve(connection: Connection, load: Callable[[], Work], workers: int) -> None:
    """A captioning process: loads, then answers blocks until the other side hangs up."""
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: the first process says when to stop
    lock = threading.Lock()

    def answer(number: int, block: Block) -> None:
        try:
            result: Any = work(block)
        except Exception as error:
            result = error
        with lock:
            connection.send((number, result))

    try:
        work = load()
    except Exception as error:
        connection.send((-1, error))
        return
    share = max(1, torch.get_num_threads() // workers)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,)) as pool:
        try:
            while True:
                pool.submit(answer, *connection.recv())
        except (EOFError, OSError):
            pool.shutdown(cancel_futures=True)
