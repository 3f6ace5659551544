"""What every benchmark is made of: contenders timed in turns, numbers with their spread, sections of a report."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from latentcap.inference.precision import multiplies_bfloat16

SHORTEST = 0.1  # seconds that one measurement lasts at least


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)}–{number(self.high)})"


@dataclass
class Section:
    """One table of the report: rows are dictionaries with the same keys; notes say what has to be known to read it."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Setting:
    """How a benchmark is to run.

    Attributes:
        repeats: measurements of each contender; the warm-up comes on top.
        quick: tiny models and few steps, to see that everything runs; the numbers mean nothing.
        say: told what is being measured, before it is.
        seconds: how long runs are killed.
    """

    repeats: int
    device: torch.device
    quick: bool
    say: Callable[[str], None]
    seconds: float = 600.0


def number(value: float) -> str:
    """Three significant digits, never an exponent: 0.0123, 1.52, 47.1, 1,234."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def shown(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else str(value)


def in_turns(
    contenders: Mapping[str, Callable[[], object]], setting: Setting, *, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of one call of each contender, ``setting.repeats`` times, in turns: A B A B ...

    Whatever else the machine does then meets all of them alike. A short call is repeated within a measurement until
    it lasts a tenth of a second; ``warmup`` calls of each are not counted.
    """
    device, calls = setting.device, {}
    shortest = 0.0 if setting.quick else SHORTEST
    for name, call in contenders.items():
        for _ in range(warmup - 1):
            call()
        calls[name] = max(1, math.ceil(shortest / seconds(call, device=device)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(setting.repeats):
        for name, call in contenders.items():
            times[name].append(seconds(call, device=device, calls=calls[name]))
    return times


def seconds(call: Callable[[], object], *, device: torch.device, calls: int = 1) -> float:
    """Mean duration of ``calls`` calls, the device's work included."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    _wait(device)
    return (time.perf_counter() - start) / calls


def ratio(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """How many times faster, turn by turn: what disturbs one turn does not disturb the ratio of another."""
    return Spread.of([a / b for a, b in zip(slower, faster, strict=True)])


def milliseconds(times: Sequence[float]) -> Spread:
    return Spread.of([1000 * value for value in times])


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Mixed precision in ``dtype``; nothing at all for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    return {
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "bfloat16 on cpu": "native" if multiplies_bfloat16(torch.device("cpu")) else "emulated",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def plain(value: Any) -> Any:
    """Sections and spreads as what JSON can hold."""
    if isinstance(value, Spread):
        return asdict(value)
    if isinstance(value, Section):
        return {"title": value.title, "rows": plain(value.rows), "notes": value.notes}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
