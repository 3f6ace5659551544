"""How many inputs were seen, and what became of each: the counts add up."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from latentcap.batch.journal import written_to_disk

FILE = "summary.json"


@dataclass
class Summary:
    """What a run did: ``seen`` is the sum of ``captioned``, ``earlier``, ``skipped``, ``failed`` and ``left``.

    ``seen``: inputs, each name once; ``earlier``: those of them that earlier runs captioned; ``skipped``: inputs that
    the output has no use for, and files that are not read as images, of which ``missed`` are pictures all the same
    (HEIC without the extra, raw files); ``left``: those that an interrupted run has not come to. ``resumed`` are all
    captions of earlier runs, of inputs that are no longer there too.
    """

    captioned: int = 0
    failed: int = 0
    resumed: int = 0
    skipped: int = 0
    missed: int = 0
    seen: int = 0
    earlier: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    skips: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def left(self) -> int:
        return self.seen - self.captioned - self.earlier - self.skipped - self.failed

    @property
    def rate(self) -> float:
        """Captions a second."""
        return self.captioned / max(self.seconds, 1e-6)

    def skip(self, reason: str) -> None:
        self.skipped += 1
        self.skips[reason] += 1

    def __str__(self) -> str:
        parts = {"captioned": self.captioned}
        rare = {"captioned before": self.earlier, "skipped": self.skipped}
        parts |= {name: number for name, number in rare.items() if number} | {"failed": self.failed}
        if self.left:
            parts["left"] = self.left
        counts = ", ".join(f"{number:,} {name}" for name, number in parts.items())
        return f"{counts} of {self.seen:,} seen, {self.rate:.1f} images/s"

    def write(self, folder: Path, status: str) -> None:
        """``summary.json`` in the run folder, for programs. Raises UserError where it cannot be written."""
        told = {
            "status": status,
            "seen": self.seen,
            "captioned": self.captioned,
            "captioned_before": self.earlier,
            "skipped": self.skipped,
            "failed": self.failed,
            "left": self.left,
            "why_skipped": dict(self.skips.most_common()),
            "why_failed": dict(self.failures.most_common()),
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.rate, 3),
        }
        with written_to_disk(folder / FILE, "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(told, file, indent=2, ensure_ascii=False)
            file.write("\n")
