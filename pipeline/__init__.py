"""latentcap: images to regions, regions and context to latents, latents to words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentcap.captioner import Caption, Captioner

__all__ = ["Caption", "Captioner"]


def __getattr__(name: str) -> Any:
    """Import the captioner, and torch with it, when it is first asked for: metrics and galleries need neither."""
    if name in __all__:
        from latentcap import captioner

        return getattr(captioner, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
