"""``metrics.csv`` of a run: a row for each step or validation that was logged."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger


class Metrics(CSVLogger):
    """Lightning's logger, which would delete the rows of an earlier run in the same folder.

    Args:
        resumed: the checkpoint that a training goes on from: rows of later steps come again. None keeps all rows.
    """

    def __init__(self, folder: str, *, resumed: str | None = None) -> None:
        super().__init__(folder, name="", version="")
        self.resumed = resumed

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            path = Path(self.log_dir) / "metrics.csv"
            rows = list(_rows(path))
            if rows and self.resumed:
                step = torch.load(self.resumed, map_location="cpu", weights_only=True, mmap=True)["global_step"]
                rows = [row for row in rows if float(row.get("step") or math.inf) < step]
            writer = super().experiment  # deletes the file
            if rows:
                writer.metrics_keys = list(rows[0])
                with open(path, "w", encoding="utf-8", newline="") as file:
                    table = csv.DictWriter(file, writer.metrics_keys, extrasaction="ignore")
                    table.writeheader()
                    table.writerows(rows)
        return self._experiment


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
