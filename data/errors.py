"""The one error that users see: a message that says what is wrong, where, what is accepted and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the input or the configuration. Programs print its message alone, without a traceback."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the valid name nearest to ``name``, or an empty string."""
    nearest = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""
