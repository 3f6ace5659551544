"""The server, as its clients see it: OpenAI's own client, raw requests, several at once, and bad ones."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.cli.serve import bind, named_models
from latentcap.data.errors import UserError
from tests.helpers import tiny_captioner

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx2")


def png(colour: str = "red", size: tuple[int, int] = (40, 30)) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, "PNG")
    return encoded.getvalue()


def uri(encoded: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64," + base64.b64encode(encoded).decode()


def chat(*images: str, text: str = "Describe this image.", **more: Any) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": [{"type": "text", "text": text}, *parts]}],
        **more,
    }


class Server:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "latentcap.cli.main", "serve", "--port", "0", "--dtype", "float32", *more],
            cwd=folder, env={**os.environ, "LATENTCAP_ENGINE": "torch", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "http://" not in line:
            raise AssertionError(self.process.communicate()[1])
        self.url = "http://" + line.split("http://")[1].split("/")[0]
        self.client = httpx.Client(base_url=self.url, timeout=60)
        for _ in range(200):
            try:
                if self.client.get("/healthz").status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise AssertionError("never healthy")

    def close(self) -> int:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve")
    tiny_captioner().save(path / "tiny")
    torch.manual_seed(1)
    tiny_captioner().save(path / "other")
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    running = Server(folder, "--model", "tiny", "--model", "second=other", "--max-body", "4", "--max-pixels", "1")
    yield running
    running.close()


def test_a_caption_is_the_captioners(server: Server, folder: Path) -> None:
    captioner = Captioner.from_pretrained(folder / "tiny", dtype=torch.float32, engine="torch")
    picture, question = Image.new("RGB", (40, 30), "red"), "the red square on the left"
    expected = captioner.caption([picture], context=question)[0]
    answer = server.client.post("/v1/chat/completions", json=chat(uri(png()), text=question)).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == expected.text
    assert answer["usage"]["completion_tokens"] == len(expected.tokens)
    upload = [("image", ("a.png", png(), "image/png"))]
    form = server.client.post("/caption", files=upload, data={"context": question}).json()
    assert form["caption"] == expected.text
    assert form["score"] == pytest.approx(expected.score, abs=1e-3)
    assert [word for word, _ in form["words"]] == [word for word, _ in expected.words]


def test_openais_own_client(server: Server) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["tiny", "second"]
    assert client.models.retrieve("second").id == "second"
    body = chat(uri(png("green")), n=2)
    done = client.chat.completions.create(**body)
    assert len(done.choices) == 2
    assert done.choices[0].finish_reason == "length"  # the tiny model never ends by itself
    told = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = client.chat.completions.create(**chat(uri(png("green"))), **told)
    assert not last.choices
    assert last.usage.completion_tokens == done.usage.completion_tokens // 2
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == done.choices[0].message.content
    sampled = [client.chat.completions.create(**chat(uri(png())), temperature=0.9, seed=3) for _ in range(2)]
    assert sampled[0].choices[0].message.content == sampled[1].choices[0].message.content
    short = client.chat.completions.create(**chat(uri(png())), max_tokens=2)
    assert short.usage.completion_tokens <= 2
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4'"):
        client.chat.completions.create(**{**chat(uri(png())), "model": "gpt-4"})
    with pytest.raises(openai.BadRequestError, match="fetches nothing"):
        client.chat.completions.create(**chat("https://example.org/a.jpg"))


def test_photo_programs(server: Server) -> None:
    """PhotoPrism by OpenAI's responses and by Ollama's API, taggui by KoboldAI's."""
    content = [{"type": "input_text", "text": "Write a caption."},
               {"type": "input_image", "image_url": uri(png()), "detail": "low"}]  # fmt: skip
    asked = {"model": "tiny", "input": [{"role": "system", "content": [{"type": "input_text", "text": "x"}]},
             {"role": "user", "type": "message", "content": content}], "max_output_tokens": 512}  # fmt: skip
    answer = server.client.post("/v1/responses", json=asked).json()
    assert answer["output"][0]["content"][0]["text"]
    text = server.client.post("/caption", json={"images": [uri(png())]}).json()["caption"]
    plain = base64.b64encode(png()).decode()
    ollama = {"model": "tiny:latest", "prompt": "Describe", "images": [plain], "stream": False, "options": {"seed": 1}}
    assert server.client.post("/api/generate", json=ollama).json()["response"] == text
    kobold = {"prompt": "<|im_start|>user", "images": [plain], "max_length": 100, "rep_pen": 1}
    assert server.client.post("/api/v1/generate", json=kobold).json()["results"][0]["text"] == text


def test_all_settings_of_our_own(server: Server) -> None:
    body = {"images": [uri(png())], "model": "second", "search": {"beam_size": 4, "num_captions": 3}, "attention": True}
    answer = server.client.post("/caption", json=body).json()
    assert answer["model"] == "second"
    assert len(answer["alternatives"]) == 2
    assert answer["visual_attention"]["heads"] == 2
    fewer = server.client.post("/caption", json={**body, "heads": "1+1"}).json()
    assert fewer["visual_attention"]["heads"] == 1
    page = server.client.post("/explain", files=[("image", ("a.png", png(), "image/png"))]).text
    assert 'class="record"' in page


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "not JSON"),
        (b"[1]", 400, "JSON object"),
        (b"[" * 100_000, 400, "not JSON"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "hello"}]}, 400, "no message holds an image"),
        (chat("data:text/plain;base64,aGVsbG8="), 400, "of type text/plain"),
        (chat("data:image/png,abc"), 400, "base64"),
        (chat("data:image/png;base64,####"), 400, "no base64"),
        (chat(uri(b"hello, not an image")), 400, "cannot be read"),
        (chat(uri(png()[:40])), 400, "cannot be read"),
        (chat(uri(png(size=(2000, 1000)))), 413, "2,000 x 1,000"),
        (chat(*[uri(png())] * 65), 400, "more than 64 images"),
        (chat(*[uri(png())] * 9), 400, "views of one example"),
        (chat(uri(png()), n=0), 400, "from 1 to 16"),
        (chat(uri(png()), n="2"), 400, "from 1 to 16"),
        (chat(uri(png()), temperature=9), 400, "temperature"),
        (chat(uri(png()), stream="yes"), 400, "stream"),
        (b"x" * (5 << 20), 413, "4 MiB"),
    ],
)  # fmt: skip
def test_bad_requests_are_told_what_is_wrong(server: Server, body: Any, status: int, told: str) -> None:
    more = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = server.client.post("/v1/chat/completions", **more)
    error = answer.json()["error"]
    assert (answer.status_code, told in error["message"]) == (status, True), error
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"search": "{"}, "search is not JSON"),
        ({"search": '{"beam_sise": 2}'}, "Did you mean 'beam_size'"),
        ({"search": '{"beam_size": "many"}'}, "wrong type"),
        ({"heads": "9+9"}, "heads 9+9"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_bad_fields(server: Server, fields: dict[str, str], told: str) -> None:
    answer = server.client.post("/caption", files=[("image", ("a.png", png(), "image/png"))], data=fields)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


def test_addresses_that_do_not_exist(server: Server) -> None:
    assert server.client.get("/nothing").json()["error"]["code"] == "not_found"
    assert server.client.get("/caption").json()["error"]["code"] == "method_not_allowed"
    assert "<title>latentcap</title>" in server.client.get("/").text
    assert "access-control-allow-origin" not in server.client.get("/healthz", headers={"Origin": "http://x"}).headers


def test_fuzzed_requests_leave_it_serving(server: Server) -> None:
    draw = random.Random(0)
    good = json.dumps(chat(uri(png()))).encode()
    for number in range(120):
        broken = bytearray(good)
        for _ in range(draw.randrange(1, 6)):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        cut = bytes(broken[: draw.randrange(len(broken))]) if number % 3 == 0 else bytes(broken)
        path = ("/v1/chat/completions", "/caption", "/v1/responses", "/api/generate")[number % 4]
        kind = "multipart/form-data; boundary=x" if number % 5 == 0 else "application/json"
        answer = server.client.post(path, content=cut, headers={"Content-Type": kind})
        assert answer.status_code in (200, 400, 404, 413), (answer.status_code, answer.text)
    assert server.client.post("/v1/chat/completions", json=chat(uri(png()))).status_code == 200


def test_many_clients_are_gathered_into_batches(server: Server) -> None:
    colours = ["red", "green", "navy", "white", "black", "gold"] * 8

    def ask(colour: str) -> str:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=chat(uri(png(colour))), timeout=60)
        assert answer.status_code == 200
        return str(answer.json()["choices"][0]["message"]["content"])

    alone = {colour: ask(colour) for colour in set(colours)}
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, colours)) == [alone[colour] for colour in colours]
    told = dict(line.rsplit(" ", 1) for line in server.client.get("/metrics").text.splitlines() if line[0] != "#")
    assert float(told["latentcap_batch_size_count"]) < float(told["latentcap_images_total"])


def test_a_key_is_asked_for(folder: Path) -> None:
    running = Server(folder, "--model", "tiny", "--api-key", "secret", "--cors", "https://mine.example")
    try:
        ask = chat(uri(png()))
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            answer = running.client.post("/v1/chat/completions", json=ask, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert running.client.get("/metrics").status_code == 401
        assert running.client.get("/").status_code == 200
        right = running.client.post("/v1/chat/completions", json=ask, headers={"Authorization": "Bearer secret"})
        assert right.status_code == 200
        page = running.client.get("/healthz", headers={"Origin": "https://mine.example"})
        assert page.headers["access-control-allow-origin"] == "https://mine.example"
    finally:
        running.close()


def test_too_many_are_sent_away_and_a_stop_finishes_what_was_accepted(folder: Path) -> None:
    running = Server(folder, "--model", "tiny", "--queue", "3", "--batch-size", "1", "--workers", "1")
    ask = chat(uri(png(size=(900, 900))), n=16)

    def send(_: int) -> int:
        answer = httpx.post(f"{running.url}/v1/chat/completions", json=ask, timeout=60)
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "overloaded"
        return int(answer.status_code)

    with ThreadPoolExecutor(24) as pool:
        codes = list(pool.map(send, range(48)))
    assert set(codes) == {200, 503}
    with ThreadPoolExecutor(3) as pool:
        accepted = [pool.submit(send, number) for number in range(3)]
        while "latentcap_waiting 3.0" not in running.client.get("/metrics").text and not accepted[0].done():
            time.sleep(0.002)
        running.close()
        assert [answer.result() for answer in accepted] == [200, 200, 200]


def test_a_client_that_goes_away_frees_its_place(server: Server) -> None:
    for _ in range(6):
        with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
            body = json.dumps(chat(uri(png(size=(800, 800))))).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            connection.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    for _ in range(100):
        told = server.client.get("/metrics").text
        if next(line for line in told.splitlines() if line.startswith("latentcap_waiting ")).endswith(" 0.0"):
            return
        time.sleep(0.05)
    raise AssertionError("places are still taken")


def test_mistakes_in_the_command(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"cannot be used .*Choose another with --port"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="--port"):
        bind("127.0.0.1", 99_999)
    with pytest.raises(UserError, match="two models called 'tiny'"):
        named_models([str(folder / "tiny"), f"tiny={folder / 'other'}"])
    assert list(named_models([f"a={folder / 'tiny'}", "rsicd"])) == ["a", "rsicd"]


def test_answers_are_sent_at_once() -> None:
    """Of a connection that stays, an answer in two parts would else wait 40 ms for the client's acknowledgement."""

    async def delays() -> bool:
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            own = writer.get_extra_info("socket")
            found.set_result(not own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(accept, sock=(listener := bind("127.0.0.1", 0))):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.close()
            return await found

    assert not asyncio.run(delays())
