"""A list in one block of memory, which worker processes share instead of copying it."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar, overload

import torch

T = TypeVar("T")


class PackedList(Sequence[T], Generic[T]):
    """Items as pickled bytes in one tensor, each read back when it is asked for.

    A forked process copies every page on which an object's reference count changes, so a plain list of objects is soon
    copied whole; a spawned process starts with a copy. A tensor is shared by both.
    """

    def __init__(self, items: Iterable[T]) -> None:
        ends, packed = array("q", [0]), bytearray()
        for item in items:
            packed += pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
            ends.append(len(packed))
        self._ends = torch.frombuffer(ends, dtype=torch.int64)
        self._bytes = torch.frombuffer(packed or bytearray(1), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, end = self._ends[index % len(self) : index % len(self) + 2].tolist()
        item: T = pickle.loads(self._bytes[start:end].numpy().data)
        return item
