"""The web application: addresses, keys, limits and answers."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from latentcap.pages.serve import explained, front_page
from latentcap.serve.asked import Asked
from latentcap.serve.caption_api import caption_answer, read_form, read_json
from latentcap.serve.errors import ApiError, answer_error, answer_http_error
from latentcap.serve.limits import Limits
from latentcap.serve.openai_api import (
    chat_answer,
    chat_events,
    models_answer,
    read_chat,
    read_responses,
    responses_answer,
)
from latentcap.serve.other_apis import kobold_answer, ollama_answer, read_generate
from latentcap.serve.service import CLIENT_GONE, Service

Endpoint = Callable[[Request], Awaitable[Response]]
OPEN = ("/", "/healthz")  # without a key


def make_app(service: Service, *, api_key: str | None = None, origins: Sequence[str] = ()) -> Starlette:
    """The application around a service.

    Args:
        api_key: what clients have to send as ``Authorization: Bearer KEY``; None lets everybody in.
        origins: web pages of other addresses that browsers may let in.
    """
    started = int(time.time())

    async def chat(request: Request) -> Response:
        asked = await _from_json(request, service, read_chat)
        name, captions = await service.captions(request, asked)
        if asked.stream:
            return StreamingResponse(chat_events(name, captions), media_type="text/event-stream")
        return JSONResponse(chat_answer(name, captions))

    async def responses(request: Request) -> Response:
        name, captions = await service.captions(request, await _from_json(request, service, read_responses))
        return JSONResponse(responses_answer(name, captions))

    async def ollama(request: Request) -> Response:
        start = time.perf_counter()
        name, captions = await service.captions(request, await _from_json(request, service, read_generate))
        return JSONResponse(ollama_answer(name, captions, time.perf_counter() - start))

    async def kobold(request: Request) -> Response:
        asked = await _from_json(request, service, read_generate)
        asked.model = None
        _, captions = await service.captions(request, asked)
        return JSONResponse(kobold_answer(captions))

    async def caption(request: Request) -> Response:
        asked = await _from_any(request, service)
        name, captions = await service.captions(request, asked)
        return JSONResponse(caption_answer(name, captions, attention=asked.attention))

    async def explain(request: Request) -> Response:
        asked = await _from_any(request, service)
        asked.attention = True
        name, captions = await service.captions(request, asked)
        captioner = service.models[name].with_heads(asked.heads)
        return HTMLResponse(await run_in_threadpool(explained, captioner, captions[0], asked.images, asked.text))

    async def models(request: Request) -> Response:
        return JSONResponse(models_answer(list(service.models), started))

    async def one_model(request: Request) -> Response:
        name, _ = service.model(request.path_params["name"])
        return JSONResponse(models_answer([name], started)["data"][0])

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "models": list(service.models)})

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(service.watch.registry), media_type=CONTENT_TYPE_LATEST)

    async def page(request: Request) -> Response:
        return HTMLResponse(front_page({name: entry.full for name, entry in service.models.items()}))

    def route(path: str, endpoint: Endpoint, *, method: str = "GET", work: bool = False) -> Route:
        handler = _guarded(endpoint, service, api_key, work=work)
        return Route(path, handler, methods=[method])

    working = {
        "/v1/chat/completions": chat,
        "/v1/responses": responses,
        "/api/generate": ollama,
        "/api/v1/generate": kobold,
        "/caption": caption,
        "/explain": explain,
    }
    asking = {
        "/v1/models": models,
        "/v1/models/{name:path}": one_model,
        "/healthz": health,
        "/metrics": metrics,
        "/": page,
    }

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    return Starlette(
        routes=[
            *(route(path, endpoint, method="POST", work=True) for path, endpoint in working.items()),
            *(route(path, endpoint) for path, endpoint in asking.items()),
        ],
        middleware=[
            Middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"])
        ] if origins else [],
        exception_handlers={ApiError: answer_error, HTTPException: answer_http_error},
        lifespan=lifespan,
    )  # fmt: skip


def _guarded(endpoint: Endpoint, service: Service, api_key: str | None, *, work: bool) -> Endpoint:
    """An endpoint that asks for the key, holds a place while it works, keeps to the time and is counted."""

    @wraps(endpoint)
    async def handler(request: Request) -> Response:
        start, path = time.perf_counter(), request.scope["route"].path
        try:
            if api_key is not None and path not in OPEN:
                _check_key(request, api_key)
            if work:
                async with service.admitted(), asyncio.timeout(service.limits.seconds):
                    response = await endpoint(request)
            else:
                response = await endpoint(request)
        except ApiError as error:
            response = error.response()
        except TimeoutError:
            message = f"not answered within {service.limits.seconds:g} s."
            response = ApiError(504, message, code="timeout", retry_after=1).response()
        except ClientDisconnect:
            response = Response(status_code=CLIENT_GONE)
        service.watch.requests.labels(path, response.status_code).inc()
        service.watch.seconds.labels(path).observe(time.perf_counter() - start)
        return response

    return handler


def _check_key(request: Request, api_key: str) -> None:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), api_key.encode()):
        raise ApiError(401, "the key is missing or wrong: send Authorization: Bearer KEY.", code="invalid_api_key")


# Bodies ---------------------------------------------------------------------------------------------------------------


async def _from_any(request: Request, service: Service) -> Asked:
    """Our own API's request, as JSON or as a form."""
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        limits = service.limits
        try:
            parser = MultiPartParser(
                request.headers, _chunks(request, limits), max_files=limits.images + 1, max_fields=16,
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
    return await _from_json(request, service, read_json)


async def _from_json(request: Request, service: Service, read: Callable[[Mapping[str, Any], Limits], Asked]) -> Asked:
    data = b"".join([chunk async for chunk in _chunks(request, service.limits)])
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON, or was cut off.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object.", code="invalid_json")
    return await run_in_threadpool(read, body, service.limits)


async def _chunks(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The body, as it comes. Raises ApiError where it is longer than allowed."""
    error = ApiError(413, f"the request is larger than {limits.body >> 20} MiB.", code="request_too_large")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limits.body:
        raise error
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.body:
            raise error
        yield chunk
