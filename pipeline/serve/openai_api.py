"""OpenAI's API: chat completions and responses, as their clients send them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from latentcap.captioner import Caption
from latentcap.search.config import LEAST_TEMPERATURE, LEAST_TOP_P
from latentcap.serve.asked import Asked, number
from latentcap.serve.errors import ApiError
from latentcap.serve.limits import Limits
from latentcap.serve.pictures import from_address

MOST_TOKENS = 100_000  # clients ask for far more than captions have


def read_chat(body: Mapping[str, Any], limits: Limits) -> Asked:
    """``POST /v1/chat/completions``. Images are the views of one example, texts the context, both of the user's last
    message with an image. Temperature above 0 samples; without it, or at 0, the model's own search decides.

    Raises ApiError.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list of at least one message.", code="invalid_value", param="messages")
    images, text = _last_with_images(messages, "messages", limits)
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise ApiError(400, "stream must be true or false.", code="invalid_value", param="stream")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or not isinstance(options.get("include_usage") or False, bool):
        raise ApiError(400, 'stream_options must be an object such as {"include_usage": true}.', code="invalid_value",
                       param="stream_options")  # fmt: skip
    search, usage = _search(body, limits), bool(options.get("include_usage"))
    return Asked(images, _model(body), text, search=search, stream=stream, usage=usage)


def read_responses(body: Mapping[str, Any], limits: Limits) -> Asked:
    """``POST /v1/responses``, as PhotoPrism sends it. Raises ApiError."""
    given = body.get("input")
    if not isinstance(given, list) or not given:
        raise ApiError(400, "input must be a list of messages with an image.", code="invalid_value", param="input")
    if body.get("stream"):
        raise ApiError(400, "only chat completions are streamed here.", code="unsupported", param="stream")
    images, text = _last_with_images(given, "input", limits)
    most = number(body, "max_output_tokens", least=1, most=MOST_TOKENS, whole=True)
    return Asked(images, _model(body), text, search={} if most is None else {"max_length": int(most)})


def _model(body: Mapping[str, Any]) -> str | None:
    name = body.get("model")
    if name is not None and not isinstance(name, str):
        raise ApiError(400, "model must be the name of a model; GET /v1/models lists them.", code="invalid_value",
                       param="model")  # fmt: skip
    return name or None


def _search(body: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    count = int(number(body, "n", least=1, most=limits.captions, whole=True) or 1)
    temperature = number(body, "temperature", least=0, most=2)
    top_p = number(body, "top_p", least=0, most=1)
    seed = number(body, "seed", least=-(2**63), most=2**63, whole=True)
    most = number(body, "max_completion_tokens", least=1, most=MOST_TOKENS, whole=True)
    most = number(body, "max_tokens", least=1, most=MOST_TOKENS, whole=True) if most is None else most
    search: dict[str, Any] = {"num_captions": count}
    if most is not None:
        search["max_length"] = int(most)
    if temperature:
        search |= {"sample": True, "temperature": max(temperature, LEAST_TEMPERATURE)}
        search |= {"top_p": max(top_p, LEAST_TOP_P)} if top_p else {}
        search |= {"seed": int(seed) % 2**31} if seed is not None else {}
    elif count > 1:
        search["beam_size"] = count
    return search


def _last_with_images(messages: list[Any], field: str, limits: Limits) -> tuple[list[bytes], str | None]:
    for place in reversed(range(len(messages))):
        message = messages[place]
        if not isinstance(message, dict):
            raise ApiError(400, "a message is an object with role and content.", code="invalid_value",
                           param=f"{field}[{place}]")  # fmt: skip
        content = message.get("content")
        if not isinstance(content, list):
            continue
        images, texts = _parts(content, f"{field}[{place}].content", limits)
        if images:
            return images, " ".join(texts).strip() or None
    raise ApiError(
        400, "no message holds an image: this server writes captions. Add a part of type image_url.", code="no_image",
        param=field,
    )  # fmt: skip


def _parts(content: list[Any], field: str, limits: Limits) -> tuple[list[bytes], list[str]]:
    """Images and texts. Parts of other types are passed over where there is no image, as in an assistant's answer."""
    images: list[bytes] = []
    texts: list[str] = []
    unknown: tuple[Any, str] | None = None
    for place, part in enumerate(content):
        param = f"{field}[{place}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "input_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image_url", "input_image"):
            address = part.get("image_url")
            address = address.get("url") if isinstance(address, dict) else address
            images.append(from_address(address, param))
            if len(images) > limits.images:
                raise ApiError(400, f"more than {limits.images} images in one request.", code="too_many_images",
                               param=field)  # fmt: skip
        elif unknown is None:
            unknown = kind, param
    if images and unknown is not None:
        raise ApiError(
            400, f"a part of type {str(unknown[0])[:40]!r} beside an image: text and image_url are accepted.",
            code="invalid_value", param=unknown[1],
        )  # fmt: skip
    return images, texts


# Answers --------------------------------------------------------------------------------------------------------------


def chat_answer(model: str, captions: list[Caption]) -> dict[str, Any]:
    """The body of a chat completion, a choice for each caption."""
    return {
        **_chat_head(model, "chat.completion"),
        "choices": [
            {
                "index": place,
                "message": {"role": "assistant", "content": caption.text, "refusal": None},
                "finish_reason": _finish_reason(caption),
                "logprobs": None,
            }
            for place, caption in enumerate(captions)
        ],
        "usage": _usage(captions),
    }


def chat_events(model: str, captions: list[Caption], *, usage: bool = False) -> Iterator[str]:
    """The same as server-sent events, a word each; with ``usage`` one more, without a choice, says how many tokens."""
    head = _chat_head(model, "chat.completion.chunk") | ({"usage": None} if usage else {})

    def sent(**more: Any) -> str:
        return f"data: {json.dumps({**head, **more}, ensure_ascii=False)}\n\n"

    def event(place: int, delta: dict[str, str], reason: str | None = None) -> str:
        return sent(choices=[{"index": place, "delta": delta, "finish_reason": reason, "logprobs": None}])

    for place, caption in enumerate(captions):
        yield event(place, {"role": "assistant", "content": ""})
        for at, word in enumerate(caption.text.split(" ")):
            yield event(place, {"content": f" {word}" if at else word})
        yield event(place, {}, _finish_reason(caption))
    if usage:
        yield sent(choices=[], usage=_usage(captions))
    yield "data: [DONE]\n\n"


def responses_answer(model: str, captions: list[Caption]) -> dict[str, Any]:
    """The body of a response."""
    ended, written = captions[0].ended, len(captions[0].tokens)
    status = "completed" if ended else "incomplete"
    text = {"type": "output_text", "text": captions[0].text, "annotations": []}
    message = {"type": "message", "id": _id("msg"), "role": "assistant", "status": status, "content": [text]}
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "incomplete_details": None if ended else {"reason": "max_output_tokens"},
        "model": model,
        "output": [message],
        "error": None,
        "usage": {"input_tokens": 0, "output_tokens": written, "total_tokens": written},
    }


def models_answer(names: list[str], created: int) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": created, "owned_by": "latentcap"} for name in names],
    }


def _chat_head(model: str, kind: str) -> dict[str, Any]:
    return {"id": _id("chatcmpl"), "object": kind, "created": int(time.time()), "model": model}


def _finish_reason(caption: Caption) -> str:
    return "stop" if caption.ended else "length"


def _usage(captions: list[Caption]) -> dict[str, int]:
    written = sum(len(caption.tokens) for caption in captions)
    return {"prompt_tokens": 0, "completion_tokens": written, "total_tokens": written}


def _id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:24]}"
