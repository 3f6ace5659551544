"""The model on a Ray cluster: a Ray Data pipeline from blocks of inputs to blocks of records.

    blocks ──> queue ──> source (a task that streams) ──> map_batches by a pool of actors ──> records, in order

The driver lists the inputs and keeps the journal, as on one machine; only blocks on their way are in the cluster.
Where a node dies, the pipeline begins anew on the others, with the blocks whose records have not come.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import pickle
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError
from ray.util.queue import Queue

from latentcap.batch.engine import Engine
from latentcap.batch.inputs import Input
from latentcap.batch.journal import Record
from latentcap.batch.pool import Block
from latentcap.batch.run_folder import model_hash
from latentcap.batch.settings import BATCH, WorkerSettings
from latentcap.batch.worker import Worker
from latentcap.data.errors import UserError
from latentcap.data.remote import is_remote
from latentcap.inference.memory import keep_freed_memory

START = b""  # comes first in the queue
GPU_THREADS = 4  # of an actor with a GPU: one computes while the others decode
STARTS = 3  # of a pipeline in a row that give no record
LOOK_SECONDS = 5.0  # between looks at what nodes there are

logger = logging.getLogger(__name__)


class CaptioningActor:
    """What each actor of the pool is: a model, from rows that each hold a block of inputs to rows of their records."""

    def __init__(self, settings: WorkerSettings, model: str) -> None:
        keep_freed_memory()
        if model_hash(Path(settings.model)) != model:
            raise UserError(f"{settings.model}: is another model on {ray.util.get_node_ip_address()}.")
        self.worker = Worker.load(settings)

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[bytes]]:
        torch.set_num_threads(1)  # each thread of an actor has batches of its own, as on one machine
        blocks = map(pickle.loads, rows["block"])  # made by our own driver, as everything that Ray hands over
        return {"records": [json.dumps(self.worker(block)).encode() for block in blocks]}


class RayEngine(Engine):
    """Actors of the cluster that ``ray.init`` has reached.

    Args:
        settings: what each actor loads. An empty device is a GPU where the cluster has one.
        search: settings of the search that differ from the model's own.
        actors: how many, each with a GPU or else ``cpus`` cores; by default as many as the cluster's nodes hold, more
            when nodes come.
        cpus: cores of each actor and threads in it, which share its model; for an actor with a GPU its threads alone.

    Raises:
        UserError: the model folder, a setting of the search or this cluster cannot be used.
    """

    described = ""  # each actor chooses for its own processor

    def __init__(
        self,
        settings: WorkerSettings,
        search: Mapping[str, Any],
        *,
        actors: int | None = None,
        cpus: int | None = None,
        batch_size: int = BATCH,
    ) -> None:
        self.search = Worker.load(replace(settings, device="cpu", dtype=None)).captioner.search_config(**search)
        nodes = _nodes()
        on_gpu = settings.device.startswith("cuda") if settings.device else any(node.get("GPU", 0) for node in nodes)
        self.device = "cuda" if on_gpu else settings.device or "cpu"  # an actor sees its own GPU alone
        self.workers = cpus or (GPU_THREADS if on_gpu else 1)
        self.cpus = None if on_gpu else self.workers
        self.gpus = 1 if on_gpu else None
        self.actors = actors
        self.devices = self._room()
        self.settings = replace(settings, model=os.path.abspath(settings.model), device=self.device, search=self.search)
        self.model = model_hash(Path(settings.model))
        self.batch_size = batch_size

    def map(self, blocks: Iterator[Block]) -> Iterator[list[Record]]:
        """The records of every block, in order. No more blocks are asked for than keep all actors busy.

        Raises:
            UserError: actors cannot load the model, or die again and again.
        """
        under_way: deque[Block] = deque()
        failures = 0
        while True:
            try:
                for records in self._run(under_way, blocks):
                    failures = 0
                    yield records
                return
            except RayError as error:
                failures += 1
                if failures == STARTS or _told_by_us(error):
                    raise UserError(
                        f"the Ray cluster cannot go on: {_reason(error)} What was captioned before is kept, and the "
                        "same command goes on. All nodes need latentcap, and have to be able to read the model folder."
                    ) from None
                logger.warning("a node or an actor has died (%s); going on with those that are left", _reason(error))
            gc.collect()  # what is left of the broken pipeline refers to its actors, and they would keep their cores
            time.sleep(failures)  # until the cluster knows which

    def _run(self, under_way: deque[Block], blocks: Iterator[Block]) -> Iterator[list[Record]]:
        """The records of the blocks ``under_way`` and of those to come; a block is under way until they are there."""
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        queue = Queue(actor_options={"num_cpus": 0, "label_selector": here})
        self.devices, looked = self._room(), time.monotonic()

        def hand_out(block: Block) -> None:
            queue.put(pickle.dumps([_absolute(item) for item in block]))

        def feed() -> None:
            while len(under_way) < 2 * self.devices * (self.workers + 1):
                block = next(blocks, None)
                if block is None:
                    break
                under_way.append(block)
                hand_out(block)
            if not under_way:
                queue.put(None)

        try:
            queue.put(START)
            for block in under_way:
                hand_out(block)
            feed()
            for row in self._pipeline(queue, here).iter_batches(batch_size=None, prefetch_batches=0):
                (records,) = map(json.loads, row["records"])
                assert len(records) == len(under_way.popleft()), "the pipeline keeps the order of the blocks"
                yield records
                if time.monotonic() - looked > LOOK_SECONDS:
                    self.devices, looked = self._room(), time.monotonic()
                feed()
        finally:
            queue.shutdown(force=True)

    def _room(self) -> int:
        """How many actors the cluster has room for now, or is to have. Raises UserError where it has none."""
        held = sum(int(node.get("GPU", 0) if self.gpus else node.get("CPU", 0) // self.workers) for node in _nodes())
        if not (self.actors or held):
            needed = "a GPU" if self.gpus else f"{self.workers} cores"
            raise UserError(
                f"no node of the cluster has {needed}. Choose another --device or fewer --num-cpus, or give "
                "--num-actors to wait for nodes to come."
            )
        return self.actors or held

    def _pipeline(self, queue: Queue, here: dict[str, str]) -> ray.data.Dataset:
        """Rows of records from the blocks in the queue, up to None. A block of Ray's is one row, a block of ours."""

        def source(_: Any) -> Iterator[dict[str, list[bytes]]]:
            if queue.get() != START:  # Ray has begun it anew: what was on its way is lost
                raise RuntimeError("the task that hands out the images has died.")
            while (block := queue.get()) is not None:
                yield {"block": [block]}

        context = DataContext.get_current()
        context.target_max_block_size = 1  # byte: hand on each row as soon as it is there
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        return (
            ray.data.from_items([0])
            .map_batches(source, num_cpus=0, label_selector=here)
            .map_batches(
                CaptioningActor,
                fn_constructor_args=(self.settings, self.model),
                batch_size=1,
                compute=ActorPoolStrategy(
                    min_size=self.devices,
                    max_size=self.actors,
                    max_concurrent_calls_per_actor=self.workers,
                    max_tasks_in_flight_per_actor=self.workers + 1,
                    enable_true_multi_threading=True,
                ),
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                # Elsewhere there may be no room, and what it was to do would wait for ever.
                ray_remote_args_fn=lambda: {"max_restarts": 0, "max_task_retries": 0},
            )
        )


def _nodes() -> list[dict[str, float]]:
    """What each node of the cluster that is alive has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _absolute(item: Input) -> Input:
    """The input with paths that hold wherever an actor runs."""
    images = (
        image if is_remote(image.path) else replace(image, path=os.path.abspath(image.path)) for image in item.images
    )
    return replace(item, images=tuple(images))


def _told_by_us(error: BaseException) -> bool:
    """Whether an actor has said what is wrong, which it would say again."""
    return f"{UserError.__module__}.UserError" in str(error)


def _reason(error: BaseException) -> str:
    """The last line of what Ray tells, which is what has happened; traces of the cluster's own code come before."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix(f"{UserError.__module__}.UserError: ") if lines else type(error).__name__
