"""Requests that come slowly, or never whole: they take no place, and hold up neither others nor the end."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers import tiny_captioner

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from starlette.requests import ClientDisconnect, Request

from latentcap.serve import bodies
from latentcap.serve.errors import ApiError
from latentcap.serve.limits import Limits
from tests.test_serve import Server, chat, png, uri


def read(*messages: dict[str, Any], ending: bool = False) -> bytes:
    """What is read of a client that sends these, and then nothing."""
    left = list(messages)

    async def receive() -> Any:
        return left.pop(0) if left else await asyncio.Event().wait()

    async def run() -> bytes:
        request = Request({"type": "http", "headers": []}, receive)
        service: Any = SimpleNamespace(limits=Limits(body=8), ending=lambda: ending)
        return b"".join([chunk async for chunk in bodies.chunks(request, service)])

    return asyncio.run(run())


def part(content: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": content, "more_body": more}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "IDLE", 0.05)
    monkeypatch.setattr(bodies, "LOOK", 0.01)


def test_a_body_in_parts() -> None:
    assert read(part(b"abc"), part(b"def", more=False)) == b"abcdef"
    assert read(part(b"abc", more=False), ending=True) == b"abc"
    with pytest.raises(ApiError) as refused:
        read(part(b"abcde"), part(b"fghij", more=False))
    assert refused.value.status == 413


def test_a_body_that_stops_coming_is_closed() -> None:
    with pytest.raises(ApiError, match="nothing more of the request came") as refused:
        read(part(b"abc"))
    assert refused.value.status == 408
    assert refused.value.response().headers["connection"] == "close"


def test_a_body_that_is_not_whole_is_sent_away_when_the_server_ends() -> None:
    with pytest.raises(ApiError, match="ending") as refused:
        read(part(b"abc"), ending=True)
    assert refused.value.status == 503
    assert {"retry-after", "connection"} <= set(refused.value.response().headers)


def test_a_client_that_leaves_in_the_middle() -> None:
    with pytest.raises(ClientDisconnect):
        read(part(b"abc"), {"type": "http.disconnect"})


def test_headers_alone_take_no_place_and_hold_up_no_end(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "tiny")
    running = Server(tmp_path, "--model", "tiny", "--queue", "2")
    address = "127.0.0.1", int(running.url.rsplit(":", 1)[1])
    head = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    waiting = [socket.create_connection(address) for _ in range(4)]
    for connection in waiting:
        connection.sendall(head + b'{"images"')
    time.sleep(0.1)
    assert running.client.post("/v1/chat/completions", json=chat(uri(png()))).status_code == 200
    start = time.monotonic()
    assert running.close() in (0, -15)
    assert time.monotonic() - start < 8
    for connection in waiting:
        assert connection.recv(4096).startswith(b"HTTP/1.1 503")
        connection.close()
