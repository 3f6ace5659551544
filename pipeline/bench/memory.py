"""Memory of processes, as Linux counts it; 0 elsewhere."""

from __future__ import annotations

from pathlib import Path


def kib(process: int | str, what: str) -> int:
    """KiB that a running process holds (VmRSS), or the most that it has held (VmHWM); 0 where it has ended."""
    return _sum(Path(f"/proc/{process}/status"), what)


def own_kib(process: int | str) -> int:
    """What a process holds that no other does, in KiB; 0 where it has ended."""
    return _sum(Path(f"/proc/{process}/smaps_rollup"), "Private_Clean", "Private_Dirty")


def _sum(path: Path, *names: str) -> int:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in names)
