"""One caption and the attention of all its heads as plain values for the page: small, and safe to embed."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from latentcap.captioner import Caption, Captioner
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.transforms import eval_transform
from latentcap.model.context import START
from latentcap.pages.explain.tensors import context_names, text_tensor, written_words

PICTURE_SIDE = 480  # longest side of an embedded picture in pixels


def caption_record(
    captioner: Captioner, caption: Caption, *, file: str, views: Sequence[Image.Image], context: str | None = None
) -> dict[str, Any]:
    """What the page needs of one caption of ``Captioner.caption(..., return_attention=True)``.

    Args:
        file: name to show.
        views: the pictures that were captioned, RGB.
        context: the text that was given with them.
    """
    words = written_words(caption)
    text = text_tensor(caption)  # (T, H_t, M + T)
    known = text.shape[-1] - len(text) if text.shape[1] else 0
    record: dict[str, Any] = {
        "file": file,
        "caption": caption.text,
        "score": round(caption.score, 4),
        "context": context,
        "views": [_picture(as_seen(view, captioner.image)) for view in views],
        "words": words,
        "probabilities": [round(math.exp(score), 4) for score in caption.token_scores],
        "known": context_names(captioner, context, known) if known else [],
        "read": [START, *words][: len(words)],
        "text": packed(text),
    }
    if caption.visual_attention is not None:
        visual = caption.visual_attention  # (T, H_v, V, h, w)
        record["grid"] = list(visual.shape[2:])
        record["visual"] = packed(visual.flatten(2))
    return record


def packed(attention: Tensor) -> dict[str, Any]:
    """Probabilities (T, H, P) as one byte each, in 255ths of the greatest of their row: T * H * P bytes in base64."""
    peaks = attention.float().amax(-1) if attention.numel() else attention.sum(-1)  # (T, H)
    scaled = attention.float() / peaks.clamp_min(1e-12).unsqueeze(-1) * 255
    content = scaled.round().byte().cpu().numpy().tobytes()
    return {
        "heads": attention.shape[1],
        "size": attention.shape[2],
        "peaks": [[round(peak, 6) for peak in row] for row in peaks.tolist()],
        "bytes": base64.b64encode(content).decode("ascii"),
    }


def as_seen(image: Image.Image, config: ImageConfig) -> Image.Image:
    """The part of a picture that the grid of regions covers.

    All of it where it is squashed into the input; where it is cropped or padded, just what the model sees.
    """
    if config.crop_mode == "resize":
        return image
    pixels = eval_transform(config)(image)
    mean, std = (pixels.new_tensor(values).view(-1, 1, 1) for values in (config.mean, config.std))
    pixels = (pixels * std + mean).clamp(0, 1).mul(255).round().byte().expand(3, -1, -1)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _picture(image: Image.Image) -> dict[str, Any]:
    """At most ``PICTURE_SIDE`` pixels wide and high, as a JPEG data URI."""
    image = image.copy()
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=85, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
    return {"src": source, "width": image.width, "height": image.height}
