"""Where each head looked while a caption was written: a page to look at, and tensors to compute with."""

from latentcap.pages.explain.page import write_page
from latentcap.pages.explain.record import caption_record
from latentcap.pages.explain.tensors import bertviz_arguments, context_names

__all__ = ["bertviz_arguments", "caption_record", "context_names", "write_page"]
