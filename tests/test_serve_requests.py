"""What requests may hold: images as programs write them, heads, texts; and what answers say of how captions ended."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentcap.caption import Caption
from tests.helpers import tiny_captioner

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from latentcap.serve.app import make_app
from latentcap.serve.errors import ApiError
from latentcap.serve.limits import Limits
from latentcap.serve.openai_api import chat_answer, chat_events, read_chat, responses_answer
from latentcap.serve.other_apis import ollama_answer
from latentcap.serve.pictures import from_address, from_base64, to_tensor
from latentcap.serve.service import Served, Service
from tests.test_image_size import bands, encoded, x_ray

PNG = encoded((40, 30), "PNG")
PLAIN = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{PLAIN}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("requests") / "tiny"
    tiny_captioner().save(folder)
    running = Service({"tiny": folder}, limits=Limits(), workers=1, dtype="float32", engine="torch")
    yield running
    running.close()


def post(service: Service, path: str, body: Any) -> tuple[int, Any]:
    """The status and the JSON that the application answers ``body`` with."""
    sent: list[dict[str, Any]] = []
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = asyncio.Queue[dict[str, Any]]()
    asked.put_nowait({"type": "http.request", "body": content, "more_body": False})

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "root_path": ""}
        await make_app(service)(scope, asked.get, send)

    asyncio.run(run())
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


# Images ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        URI + "\n",
        "  " + URI,
        f"data:image/png;base64, {PLAIN}",
        f"data:image/png; base64,{PLAIN}",
        f"data: image/png ;charset=utf-8; BASE64 ,{PLAIN}",
        "data:image/png;base64," + "\r\n".join(PLAIN[at : at + 76] for at in range(0, len(PLAIN), 76)),
        URI.rstrip("="),
        PLAIN + "\n",
        PLAIN.rstrip("="),
        "\n".join(PLAIN),
    ],
)
def test_base64_as_programs_write_it(text: str) -> None:
    assert from_base64(text, "images[0]") == PNG
    if "data:" in text:
        assert from_address(text, "url") == PNG


@pytest.mark.parametrize(
    "text", ["####", "a", "abcde", "ab=cd", "data:image/png;base64,a-b_", "grün", "data:;;base64,aa"]
)
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(ApiError, match="base64"):
        from_base64(text, "images[0]")


def test_the_limit_of_pixels_holds_for_every_kind() -> None:
    captioner = tiny_captioner()
    some = Limits(pixels=1199)
    kinds = [PNG, x_ray(), x_ray(deflated=True)]
    pytest.importorskip("pillow_jxl")
    heif = pytest.importorskip("pillow_heif")
    content = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (40, 30))).save(content)
    kinds += [encoded((40, 30), "JXL"), content.getvalue()]
    for kind in kinds:
        with pytest.raises(ApiError, match="40 x 30 pixels; at most 1,199") as refused:
            to_tensor(kind, captioner, some, "images[0]")
        assert refused.value.status == 413
        to_tensor(kind, captioner, Limits(pixels=1200), "images[0]")
    with pytest.raises(ApiError, match="40 x 30 pixels in 100 bands"):
        to_tensor(bands(100), captioner, Limits(pixels=29_999), "images[0]")
    with pytest.raises(ApiError, match="cannot be read: not an image"):
        to_tensor(b"hello", captioner, some, "images[0]")


# Heads ----------------------------------------------------------------------------------------------------------------


def test_a_budget_is_loaded_once_however_it_is_written(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = Served._load

    def counted(self: Served, heads: str | None) -> Any:
        loads.append(str(heads))
        return load(self, heads)

    monkeypatch.setattr(Served, "_load", counted)
    served = service.models["tiny"]

    async def ask() -> list[Any]:
        return await asyncio.gather(*(served.with_heads(text) for text in ("1+1", "1+1 ", " 1+1", "01 + 1")))

    assert len({id(captioner) for captioner in asyncio.run(ask())}) == 1
    assert loads == ["1+1"]
    for wrong in ("9+9", "one", "0+0", "١+١", "1" * 5000 + "+1"):
        with pytest.raises(ApiError, match="heads") as refused:
            asyncio.run(served.with_heads(wrong))
        assert refused.value.status == 400
    assert loads == ["1+1"]


def test_a_budget_that_could_not_be_loaded_is_tried_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    served = service.models["tiny"]
    with monkeypatch.context() as patch:
        patch.setattr(Served, "_load", lambda self, heads: np.zeros(1)[5])
        with pytest.raises(IndexError):
            asyncio.run(served.with_heads("1+0"))
        status, answer = post(service, "/caption", {"images": [URI], "heads": "1+0"})
        assert (status, answer["error"]["code"]) == (500, "internal_error")
    assert asyncio.run(served.with_heads("1+0")).model.config.num_heads == 1


# Texts and settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"images": [URI], "context": "\ud800"},
        {"images": [URI], "model": "\udfff"},
        {"images": [URI], "\ud800": 1},
        {"images": [URI], "search": {"required_words": ["\ud800"]}},
        b'{"model": "\xed\xa0\x80"}',
    ],
)
def test_half_characters_are_refused(service: Service, body: Any) -> None:
    status, answer = post(service, "/caption", body)
    assert (status, answer["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    "search",
    [
        {"num_captions": 1.5},
        {"max_length": 10.5},
        {"sample": "yes"},
        {"seed": 1.5, "sample": True},
        {"length_penalty": 1e308},
        {"sample": True, "top_p": 1e-300},
    ],
)
def test_settings_of_wrong_types_are_refused(service: Service, search: dict[str, Any]) -> None:
    status, answer = post(service, "/caption", {"images": [URI], "search": search})
    assert (status, answer["error"]["code"]) == (400, "invalid_setting")


def test_whole_numbers_with_a_point_are_taken(service: Service) -> None:
    assert post(service, "/caption", {"images": [URI], "search": {"beam_groups": 1.0}})[0] == 200


def test_a_fault_of_the_server_is_answered_and_counted(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentcap.serve.app.caption_answer", lambda *_, **__: {}["missing"])
    status, answer = post(service, "/caption", {"images": [URI]})
    assert (status, answer["error"]["type"]) == (500, "server_error")
    assert service.watch.registry.get_sample_value("latentcap_requests_total", {"path": "/caption", "status": "500"})


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def test_parts_of_other_types_where_there_is_no_image_are_passed_over() -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": URI}}]}
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert read_chat(chat(image, refusal), Limits()).images == [PNG]
    beside = {"role": "user", "content": [*image["content"], {"type": "input_audio"}]}
    with pytest.raises(ApiError, match="type 'input_audio' beside an image"):
        read_chat(chat(beside), Limits())


def test_a_temperature_that_is_hardly_any_still_samples() -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": URI}}]}
    asked = read_chat(chat(image, temperature=1e-9, top_p=1e-12), Limits())
    assert (asked.search["temperature"], asked.search["top_p"]) == (1e-3, 1e-6)


# Answers --------------------------------------------------------------------------------------------------------------

WHOLE = Caption("a red wall", -1.0, ["a", "red", "wall"], [-0.1, -0.2, -0.3, -0.4])
CUT = Caption("a red", -1.0, ["a", "red"], [-0.1, -0.2])


def test_answers_say_whether_the_caption_was_cut() -> None:
    choices = chat_answer("tiny", [WHOLE, CUT])["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["stop", "length"]
    whole, cut = (responses_answer("tiny", [caption]) for caption in (WHOLE, CUT))
    assert (whole["status"], whole["incomplete_details"]) == ("completed", None)
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert cut["output"][0]["status"] == "incomplete"
    assert [ollama_answer("tiny", [caption], 1.0)["done_reason"] for caption in (WHOLE, CUT)] == ["stop", "length"]


def test_a_stream_ends_with_the_usage_where_it_is_asked_for() -> None:
    def events(**more: Any) -> list[dict[str, Any]]:
        return [json.loads(line[6:]) for line in list(chat_events("tiny", [CUT], **more))[:-1]]

    assert all("usage" not in event for event in events())
    *others, last = events(usage=True)
    assert [event["usage"] for event in others] == [None] * len(others)
    assert others[-1]["choices"][0]["finish_reason"] == "length"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 2)
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": URI}}]}
    assert read_chat(chat(image, stream=True, stream_options={"include_usage": True}), Limits()).usage
    with pytest.raises(ApiError, match="stream_options"):
        read_chat(chat(image, stream_options=[1]), Limits())
