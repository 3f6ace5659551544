"""Our own API, ``POST /caption``: everything that the captioner can be asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import FormData, UploadFile

from latentcap.captioner import Caption
from latentcap.pages.explain.record import packed
from latentcap.serve.asked import Asked, check_texts
from latentcap.serve.errors import ApiError
from latentcap.serve.limits import Limits
from latentcap.serve.pictures import from_base64

FIELDS = ("images", "image", "model", "context", "numbers", "categories", "search", "heads", "attention")


def read_json(body: Mapping[str, Any], limits: Limits) -> Asked:
    """A JSON object: ``images`` (data URIs or base64, the views of one example) and any of the other fields.

    Raises ApiError.
    """
    images = body.get("images", body.get("image"))
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not images:
        raise ApiError(400, "images must be a list of data URIs or base64 texts.", code="no_image", param="images")
    _not_too_many(len(images), limits)
    return _asked(body, [from_base64(image, f"images[{place}]") for place, image in enumerate(images)])


async def read_form(form: FormData, limits: Limits) -> Asked:
    """A multipart form: files called ``image``, the other fields as texts, objects as JSON. Raises ApiError."""
    files = [value for name, value in form.multi_items() if isinstance(value, UploadFile)]
    _not_too_many(len(files), limits)
    body: dict[str, Any] = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    for name in ("numbers", "categories", "search", "attention"):
        if name in body:
            try:
                body[name] = json.loads(body[name])
            except (ValueError, RecursionError):
                raise ApiError(400, f"{name} is not JSON.", code="invalid_value", param=name) from None
    check_texts(body)
    images = [await file.read() for file in files]
    if not images:
        raise ApiError(400, "no file: send one or more as the field 'image'.", code="no_image", param="image")
    if not all(images):
        raise ApiError(400, "an uploaded file is empty, or was cut off.", code="invalid_image", param="image")
    return _asked(body, images)


def _not_too_many(count: int, limits: Limits) -> None:
    if count > limits.images:
        message = f"{count} images in one request; at most {limits.images} are accepted."
        raise ApiError(400, message, code="too_many_images", param="images")


def _asked(body: Mapping[str, Any], images: list[bytes]) -> Asked:
    for name in body:
        if name not in FIELDS:
            raise ApiError(
                400, f"unknown field '{name[:40]}'. Fields: {', '.join(FIELDS)}.", code="unknown_field", param=name[:40]
            )

    def typed(name: str, kind: type, what: str) -> Any:
        value = body.get(name)
        if value is not None and not isinstance(value, kind):
            raise ApiError(400, f"{name} must be {what}.", code="invalid_value", param=name)
        return value

    search = typed("search", dict, "an object of search settings") or {}
    return Asked(
        images,
        typed("model", str, "a text") or None,
        typed("context", str, "a text") or None,
        typed("numbers", dict, "an object of numbers") or {},
        typed("categories", dict, "an object of texts") or {},
        {name: tuple(value) if isinstance(value, list) else value for name, value in search.items()},
        typed("heads", str, "a text such as 1+1") or None,
        bool(typed("attention", bool, "true or false")),
    )


def caption_answer(model: str, captions: list[Caption], *, attention: bool) -> dict[str, Any]:
    """The best caption with all that is known of it, and the others."""
    best = captions[0]
    answer = {"model": model, **_told(best), "alternatives": [_told(other) for other in captions[1:]]}
    if best.labels:
        answer |= {"labels": best.labels, "label_scores": best.label_scores}
    if attention and best.visual_attention is not None:
        maps = best.visual_attention  # (T, H, V, h, w)
        answer["visual_attention"] = {"grid": list(maps.shape[2:]), **packed(maps.flatten(2))}
    return answer


def _told(caption: Caption) -> dict[str, Any]:
    return {
        "caption": caption.text,
        "score": round(caption.score, 4),
        "confidence": round(caption.confidence, 4),
        "words": [[word, round(probability, 4)] for word, probability in caption.words],
        "token_scores": [round(math.exp(score), 4) for score in caption.token_scores],
    }
