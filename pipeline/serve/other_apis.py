"""Two more APIs that photo programs speak: Ollama's and KoboldAI's. Prompts are not read: nothing is chatted about."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from latentcap.captioner import Caption
from latentcap.serve.asked import Asked
from latentcap.serve.errors import ApiError
from latentcap.serve.limits import Limits
from latentcap.serve.pictures import from_base64


def read_generate(body: Mapping[str, Any], limits: Limits) -> Asked:
    """``POST /api/generate`` (Ollama, as PhotoPrism sends it) and ``POST /api/v1/generate`` (KoboldAI, as taggui does).

    Both have their images as base64 in ``images``. Raises ApiError.
    """
    images = body.get("images")
    if not isinstance(images, list) or not images:
        raise ApiError(400, "images must be a list of base64 texts.", code="no_image", param="images")
    if len(images) > limits.images:
        raise ApiError(400, f"more than {limits.images} images in one request.", code="too_many_images", param="images")
    encoded = [from_base64(image, f"images[{place}]") for place, image in enumerate(images)]
    name = body.get("model")
    return Asked(encoded, name.removesuffix(":latest") if isinstance(name, str) and name else None)


def ollama_answer(model: str, captions: list[Caption], seconds: float) -> dict[str, Any]:
    return {
        "model": model,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "response": captions[0].text,
        "done": True,
        "done_reason": "stop" if captions[0].ended else "length",
        "total_duration": int(seconds * 1e9),
        "eval_count": len(captions[0].tokens),
    }


def kobold_answer(captions: list[Caption]) -> dict[str, Any]:
    return {"results": [{"text": caption.text} for caption in captions]}
