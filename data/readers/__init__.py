"""Readers: whatever form a data set comes in, a list of :class:`~latentcap.data.example.Example`."""

from __future__ import annotations

from latentcap.data.readers.fields import Fields
from latentcap.data.readers.read import FORMATS, read_examples

__all__ = ["FORMATS", "Fields", "read_examples"]
