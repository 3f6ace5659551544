"""Bodies of requests: read as they come, up to what is allowed, and what they ask for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from latentcap.serve.asked import Asked, check_texts
from latentcap.serve.caption_api import read_form, read_json
from latentcap.serve.errors import ApiError
from latentcap.serve.service import Service

IDLE = 10.0  # seconds that a body may send nothing
LOOK = 0.2  # seconds between two looks at whether the server is ending

Reader = Callable[[Mapping[str, Any], Any], Asked]


async def from_any(request: Request, service: Service) -> Asked:
    """Our own API's request, as JSON or as a form. Raises ApiError."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await from_json(request, service, read_json)
    limits = service.limits
    try:
        parser = MultiPartParser(
            request.headers, chunks(request, service), max_files=limits.images + 1, max_fields=16,
            max_part_size=limits.body,
        )  # fmt: skip
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError, AssertionError) as error:
        told = getattr(error, "message", str(error))
        raise ApiError(400, f"the form cannot be read: {told}", code="invalid_form") from None
    try:
        return await read_form(form, limits)
    finally:
        await form.close()


async def from_json(request: Request, service: Service, read: Reader) -> Asked:
    """A request that is a JSON object, for ``read``. Raises ApiError."""
    data = b"".join([chunk async for chunk in chunks(request, service)])
    return await run_in_threadpool(lambda: read(_json_object(data), service.limits))


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
        check_texts(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON, or was cut off.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object.", code="invalid_json")
    return body


async def chunks(request: Request, service: Service) -> AsyncGenerator[bytes, None]:
    """The body, as it comes.

    Raises ApiError where it is longer than allowed, where it stops coming, and where the server ends before all of it
    is here.
    """
    most = service.limits.body
    error = ApiError(413, f"the request is larger than {most >> 20} MiB.", code="request_too_large")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise error
    size, more = 0, True
    while more:
        message = await _next_message(request, service)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > most:
            raise error
        yield chunk


async def _next_message(request: Request, service: Service) -> Mapping[str, Any]:
    receiving = asyncio.ensure_future(request.receive())
    until = time.monotonic() + IDLE
    try:
        while not receiving.done():
            await asyncio.wait([receiving], timeout=LOOK)
            if receiving.done():
                break
            if service.ending():
                raise ApiError(503, "the server is ending.", code="ending", retry_after=1, close=True)
            if time.monotonic() > until:
                raise ApiError(408, f"nothing more of the request came for {IDLE:g} s.", code="timeout", close=True)
        return receiving.result()
    finally:
        receiving.cancel()
