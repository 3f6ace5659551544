"""From what a request asks for to its captions: models, admission, decoding, batches, and what is counted of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import Request
from torch import Tensor

from latentcap.captioner import Caption, Captioner
from latentcap.data.cores import available_cores
from latentcap.data.errors import UserError
from latentcap.inference.precision import dtype_named
from latentcap.model.prune import check_budget, parse_budget
from latentcap.serve.asked import Asked, search_of
from latentcap.serve.batcher import Batcher, Job
from latentcap.serve.errors import ApiError
from latentcap.serve.limits import Limits
from latentcap.serve.pictures import to_tensor

BUDGETS = 4  # versions of one model with fewer heads that are kept in memory
CLIENT_GONE = 499


class Served:
    """A model folder, and versions of it with fewer heads."""

    def __init__(self, folder: Path, *, device: str, dtype: str | None, engine: str | None) -> None:
        self.folder, self.device, self.engine = folder, device, engine
        self.dtype = dtype_named(dtype)
        self.full = self._load(None)
        self._fewer: OrderedDict[tuple[int, int], asyncio.Future[Captioner]] = OrderedDict()
        self._loader = ThreadPoolExecutor(1, "load", torch.set_num_threads, (1,))

    async def with_heads(self, heads: str | None) -> Captioner:
        """All heads, or a budget such as "1+1", loaded once. Raises ApiError for one that the model has not."""
        if heads is None:
            return self.full
        try:
            budget = parse_budget(heads)
            check_budget(self.full.model.config.fusion, *budget)
        except UserError as error:
            raise ApiError(400, str(error), code="invalid_value", param="heads") from None
        loaded = self._fewer.get(budget)
        if loaded is None:
            loop = asyncio.get_running_loop()
            loaded = loop.run_in_executor(self._loader, self._load, "{}+{}".format(*budget))
            self._fewer[budget] = loaded
        self._fewer.move_to_end(budget)
        while len(self._fewer) > BUDGETS:
            self._fewer.popitem(last=False)
        try:
            return await asyncio.shield(loaded)  # others may wait for it too
        except Exception:
            if self._fewer.get(budget) is loaded:
                del self._fewer[budget]
            raise

    def close(self) -> None:
        self._loader.shutdown()

    def _load(self, heads: str | None) -> Captioner:
        return Captioner.from_pretrained(
            self.folder, device=self.device, dtype=self.dtype, heads=heads, engine=self.engine
        )


class Watch:
    """What ``GET /metrics`` tells."""

    def __init__(self) -> None:
        self.registry = here = CollectorRegistry()
        sizes = (1, 2, 4, 8, 16, 32, 64, 128)
        self.requests = Counter("latentcap_requests", "Requests.", ["path", "status"], registry=here)
        self.seconds = Histogram("latentcap_request_seconds", "From request to answer.", ["path"], registry=here)
        self.images = Counter("latentcap_images", "Examples captioned.", registry=here)
        self.batches = Histogram("latentcap_batch_size", "Examples of a batch.", buckets=sizes, registry=here)
        self.batch_seconds = Histogram("latentcap_batch_seconds", "Time of a batch in the model.", registry=here)
        self.waiting = Gauge("latentcap_waiting", "Requests accepted and not answered.", registry=here)

    def batch(self, size: int, seconds: float) -> None:
        self.images.inc(size)
        self.batches.observe(size)
        self.batch_seconds.observe(seconds)


class Service:
    """Models by name, and the captions of requests.

    Args:
        models: name to folder; the first is the default.
        batch_size: most examples of a batch.
        workers: batches that are computed at once; by default one a core, four at most.
        ending: whether the server is about to end and takes no more requests.

    Raises:
        UserError: a model cannot be loaded.
    """

    def __init__(
        self,
        models: Mapping[str, Path],
        *,
        limits: Limits,
        batch_size: int = 32,
        workers: int | None = None,
        device: str = "cpu",
        dtype: str | None = None,
        engine: str | None = None,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self.limits, self.ending = limits, ending
        with ThreadPoolExecutor(1) as loader:  # its helpers end with it, see Batcher
            load = partial(Served, device=device, dtype=dtype, engine=engine)
            self.models = dict(zip(models, loader.map(load, models.values()), strict=True))
        self.watch = Watch()
        self._accepted = 0
        self._arriving = 0
        cores = available_cores()
        self._decoders = ThreadPoolExecutor(cores, "decode", torch.set_num_threads, (1,))
        self.batcher = Batcher(
            batch_size=batch_size,
            workers=workers or min(4, cores),
            expected=lambda: self._arriving,
            watch=self.watch.batch,
        )

    def close(self) -> None:
        """Finish what was accepted."""
        self.batcher.close()
        self._decoders.shutdown()
        for served in self.models.values():
            served.close()

    def model(self, name: str | None) -> tuple[str, Served]:
        """A model by its name, the first without one. Raises ApiError for a name that is not served."""
        if name is None:
            return next(iter(self.models.items()))
        if name not in self.models:
            names = ", ".join(self.models)
            raise ApiError(404, f"there is no model '{name[:80]}' here; there is {names}.", code="model_not_found",
                           param="model")  # fmt: skip
        return name, self.models[name]

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """A place for one request. Raises ApiError 503 where all are taken."""
        if self._accepted >= self.limits.waiting:
            message = f"{self._accepted} requests are waiting; that is all there is room for. Try again soon."
            raise ApiError(503, message, code="overloaded", retry_after=1)
        self._accepted += 1
        self.watch.waiting.set(self._accepted)
        try:
            yield
        finally:
            self._accepted -= 1
            self.watch.waiting.set(self._accepted)

    async def captions(self, request: Request, asked: Asked) -> tuple[str, list[Caption]]:
        """The name of the model and the captions, best first; a place is held from here on. Raises ApiError."""
        name, served = self.model(asked.model)
        async with self.admitted():
            return name, await self._captions(request, served, asked)

    async def _captions(self, request: Request, served: Served, asked: Asked) -> list[Caption]:
        captioner = await served.with_heads(asked.heads)
        loop = asyncio.get_running_loop()
        self._arriving += 1
        try:
            job = await loop.run_in_executor(self._decoders, self._job, captioner, asked)
        finally:
            self._arriving -= 1
        answer = asyncio.wrap_future(self.batcher.submit(job))
        gone = asyncio.create_task(_until_gone(request))
        ends: set[asyncio.Future[Any]] = {answer, gone}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ApiError(CLIENT_GONE, "the client has gone.", code="client_gone")
            best = answer.result()
        except UserError as error:
            raise ApiError(400, str(error), code="invalid_value") from None
        except ApiError:
            raise
        except Exception as error:
            raise ApiError(500, f"captioning failed: {type(error).__name__}.", code="internal_error") from error
        finally:
            gone.cancel()
            answer.cancel()  # frees its place where it has not begun
        return [best, *best.alternatives]

    def _job(self, captioner: Captioner, asked: Asked) -> Job:
        most = captioner.model.config.max_views
        if len(asked.images) > most:
            raise ApiError(
                400, f"{len(asked.images)} images in one request are views of one example, and this model was trained "
                f"with at most {most}. Send other images in requests of their own.", code="too_many_images",
                param="images",
            )  # fmt: skip
        search = search_of(captioner.search, asked.search)
        if search.num_captions > self.limits.captions or search.beam_size > 4 * self.limits.captions:
            raise ApiError(
                400, f"at most {self.limits.captions} captions of an image.", code="invalid_value", param="n"
            )
        longest = captioner.model.config.decoder.max_length
        if search.max_length > longest:
            search = search_of(search, {"max_length": longest})
        views: list[Tensor] = [
            to_tensor(encoded, captioner, self.limits, f"images[{place}]") for place, encoded in enumerate(asked.images)
        ]
        reads = captioner.model.context is not None
        return Job(
            captioner,
            views,
            search,
            context=asked.text if reads else None,
            numbers=asked.numbers if reads else {},
            categories=asked.categories if reads else {},
            attention=asked.attention,
        )


async def _until_gone(request: Request) -> None:
    """Ends when the client has closed the connection; its body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
