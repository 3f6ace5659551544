"""One job on several machines: which inputs are this process's part, and what its output is called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from latentcap.batch.inputs import Input
from latentcap.batch.journal import digest
from latentcap.data.errors import UserError

SOURCES = (  # what launchers say of a process: its index, their number, and the least index
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ""),  # inside srun; sbatch alone starts one process
    ("RANK", "WORLD_SIZE", ""),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
)


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``number`` parts that are alike. An input's part depends on its name alone.

    So a file that is added later changes no other file's part, and no two parts ever hold the same input.
    """

    index: int = 0
    number: int = 1
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.number:
            raise UserError(
                f"--shard-index {self.index} of --num-shards {self.number}: the index must be from 0 to the number "
                "less 1."
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.number}"

    def holds(self, item: Input, *, whole_tars: bool = False, by_stem: bool = False) -> bool:
        """Whether an input belongs to this part.

        With ``whole_tars`` all images of a tar are in one part, with ``by_stem`` those whose names differ in the ending
        alone, which may have one text.
        """
        if self.number == 1:
            return True
        archive = whole_tars and item.images and item.images[0].in_tar
        name = item.images[0].path if archive else item.name
        return digest(os.path.splitext(name)[0] if by_stem else name) % self.number == self.index

    def output(self, path: Path) -> Path:
        """This part's own output: ``captions-00003-of-00016.jsonl`` for ``captions.jsonl``."""
        if self.number == 1:
            return path
        return path.with_name(f"{path.stem}-{self.index:05d}-of-{self.number:05d}{path.suffix}")


def choose_shard(index: int | None, number: int | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """The part that was given, else the one that a launcher's variables give, else all.

    Raises UserError where only one of the two is given, or where they do not fit.
    """
    if (index is None) != (number is None):
        raise UserError("--num-shards and --shard-index go together: give both or neither.")
    if index is not None and number is not None:
        return Shard(index, number)
    for index_name, number_name, first_name in SOURCES:
        try:
            found = int(environment[number_name])
            place = int(environment[index_name]) - int(environment.get(first_name, 0))
        except (KeyError, ValueError):
            continue
        if found > 1:
            return Shard(place, found, source=index_name)
    return Shard()
