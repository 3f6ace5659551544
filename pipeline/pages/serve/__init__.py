"""The page of the server: an image in, a caption out, and where the heads looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latentcap.captioner import Caption, Captioner
from latentcap.data.image import ImageRef
from latentcap.pages.explain.page import page_parts
from latentcap.pages.explain.record import caption_record
from latentcap.pages.html import embedded, page_around_content

ALLOWED = "connect-src 'self'; media-src blob:"


def front_page(models: Mapping[str, Captioner]) -> str:
    """The page at ``/``. It speaks to its own server alone and keeps its history to itself."""
    known = [
        {
            "name": name,
            "visual": captioner.model.config.fusion.visual_heads,
            "text": captioner.model.config.fusion.text_heads,
            "routed": bool(captioner.model.config.fusion.routed_top_k),
            "context": captioner.model.context is not None,
            "views": captioner.model.config.max_views,
        }
        for name, captioner in models.items()
    ]
    return "".join(page_around_content("serve", title="latentcap", more=ALLOWED, models=embedded(known)))


def explained(captioner: Captioner, caption: Caption, images: Sequence[bytes], context: str | None) -> str:
    """The page of ``latentcap explain`` for one caption with its attention."""
    views = [ImageRef("", data=encoded).open() for encoded in images]
    record = caption_record(captioner, caption, file=caption.text, views=views, context=context)
    return "".join(page_parts([record], title="Where each head looked"))
