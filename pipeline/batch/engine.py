"""What maps blocks of inputs to blocks of records: on this machine, or on a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from latentcap.batch.journal import Record
from latentcap.batch.pool import Block
from latentcap.search.config import SearchConfig


class Engine(ABC):
    """Devices with a model each, and threads that share it.

    Attributes:
        search: the settings of the search, the model's own with those that were given.
        devices: processes or actors.
        workers: threads of each.
        batch_size: the most inputs of a block.
        described: what runs the CNN and in which precision; empty where each device decides that.
    """

    search: SearchConfig
    devices: int
    workers: int
    batch_size: int
    described: str

    def block(self, inputs: int) -> int:
        """Inputs of a block, where there are ``inputs`` or more: a few are shared out among all threads."""
        return max(1, min(self.batch_size, -(-inputs // (self.workers * self.devices))))

    @abstractmethod
    def map(self, blocks: Iterator[Block]) -> Iterator[list[Record]]:
        """The records of every block, in order. Raises UserError where the devices cannot go on."""
