"""The settings of glibc's malloc, as releases take them."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from latentcap.inference.memory import keep_freed_memory

MMAP, TRIM = -3, -1


@pytest.mark.parametrize("most", [1 << 40, 32 << 20, 0])
def test_a_threshold_that_is_refused_leaves_mallocs_own_or_a_smaller_one(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[int, int] = {}

    class Library:
        def __init__(self, name: Any) -> None:
            pass

        def mallopt(self, option: int, value: int) -> int:
            if option == MMAP and value > most:
                return 0
            taken[option] = value
            return 1

    monkeypatch.setattr(ctypes, "CDLL", Library)
    keep_freed_memory()
    if not most:  # setting the other alone would end malloc's own growing threshold
        assert taken == {}
    else:
        assert taken[MMAP] == min(most, 1 << 30)
        assert TRIM in taken
