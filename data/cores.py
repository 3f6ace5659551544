"""How many processors a program may use, which in a container is fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of this process's control group: microseconds of time, of each period


def available_cores() -> int:
    """Processors that this process may use: those of its affinity mask, as many as its container's quota pays for."""
    cores = _reachable()
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
        return min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such group, or "max": no quota
        return cores


def keep_to_quota() -> None:
    """Let PyTorch start as many threads as a container's quota pays for, where nobody has said how many.

    Of itself it starts one for each processor of the machine, and a quota then halts them all for most of the time. To
    be called before PyTorch is imported.
    """
    if (cores := available_cores()) < _reachable():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def _reachable() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
