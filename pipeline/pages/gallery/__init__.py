"""Captions beside their images as one self-contained HTML file."""

from latentcap.pages.gallery.page import write_gallery

__all__ = ["write_gallery"]
