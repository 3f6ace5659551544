"""The web application: addresses, keys, limits and answers."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import wraps

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from latentcap.pages.serve import explained, front_page
from latentcap.serve.bodies import from_any, from_json
from latentcap.serve.caption_api import caption_answer
from latentcap.serve.errors import ApiError, answer_error, answer_http_error
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

logger = logging.getLogger(__name__)


def make_app(service: Service, *, api_key: str | None = None, origins: Sequence[str] = ()) -> Starlette:
    """The application around a service.

    Args:
        api_key: what clients have to send as ``Authorization: Bearer KEY``; None lets everybody in.
        origins: web pages of other addresses that browsers may let in.
    """
    started = int(time.time())

    async def chat(request: Request) -> Response:
        asked = await from_json(request, service, read_chat)
        name, captions = await service.captions(request, asked)
        if asked.stream:
            return StreamingResponse(chat_events(name, captions, usage=asked.usage), media_type="text/event-stream")
        return JSONResponse(chat_answer(name, captions))

    async def responses(request: Request) -> Response:
        name, captions = await service.captions(request, await from_json(request, service, read_responses))
        return JSONResponse(responses_answer(name, captions))

    async def ollama(request: Request) -> Response:
        start = time.perf_counter()
        name, captions = await service.captions(request, await from_json(request, service, read_generate))
        return JSONResponse(ollama_answer(name, captions, time.perf_counter() - start))

    async def kobold(request: Request) -> Response:
        asked = await from_json(request, service, read_generate)
        asked.model = None
        _, captions = await service.captions(request, asked)
        return JSONResponse(kobold_answer(captions))

    async def caption(request: Request) -> Response:
        asked = await from_any(request, service)
        name, captions = await service.captions(request, asked)
        return JSONResponse(caption_answer(name, captions, attention=asked.attention))

    async def explain(request: Request) -> Response:
        asked = await from_any(request, service)
        asked.attention = True
        name, captions = await service.captions(request, asked)
        captioner = await service.models[name].with_heads(asked.heads)
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
    """An endpoint that asks for the key, keeps to the time where it works, answers whatever happens and is counted."""

    @wraps(endpoint)
    async def handler(request: Request) -> Response:
        start, path = time.perf_counter(), request.scope["route"].path
        try:
            if api_key is not None and path not in OPEN:
                _check_key(request, api_key)
            if work:
                async with asyncio.timeout(service.limits.seconds):
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
        except Exception as error:
            logger.exception("%s failed", path)
            message = f"the server failed: {type(error).__name__}. Its log says more."
            response = ApiError(500, message, code="internal_error").response()
        service.watch.requests.labels(path, response.status_code).inc()
        service.watch.seconds.labels(path).observe(time.perf_counter() - start)
        return response

    return handler


def _check_key(request: Request, api_key: str) -> None:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), api_key.encode()):
        raise ApiError(401, "the key is missing or wrong: send Authorization: Bearer KEY.", code="invalid_api_key")
