"""Readers: whatever form a data set comes in, a list of :class:`~data.example.Example`."""

from __future__ import annotations

from data.readers.fields import Fields
from data.readers.read import FORMATS, read_examples

__all__ = ["FORMATS", "Fields", "read_examples"]
