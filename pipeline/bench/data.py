"""Big data sets: what it costs to read a table of rows, the first time and again, and to start training on it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from latentcap.bench.timing import Section, Setting

ROWS = (200_000, 1_000_000, 10_000_000)
TRAINED = 1_000_000  # rows at most that training is started on: words of all captions are counted, which takes minutes
WORKERS = 2
IN_A_FOLDER = 1000  # images
WORDS = ("man", "woman", "dog", "ball", "street", "red", "green", "runs", "stands", "near", "with", "water", "child")
CAPTION = 10  # words


def bench(setting: Setting) -> list[Section]:
    """Each measurement in a process of its own."""
    counts = (500,) if setting.quick else ROWS
    reading = Section("Reading a JSON-lines table with two captions a row")
    starting = Section(f"From a table to the first batch of images, {WORKERS} workers")
    with TemporaryDirectory() as temporary:
        for count in counts:
            setting.say(f"data: {count:,} rows")
            folder = Path(temporary, str(count))
            table = write_table(folder, count)
            first, again = (_measured("read", table, folder / "cache") for _ in range(2))
            reading.rows.append(
                {
                    "rows": count,
                    "file MB": round(table.stat().st_size / 1e6),
                    "first time, CPU s": first["seconds"],
                    "first time, peak MB": round(first["peak"]),
                    "again, CPU s": again["seconds"],
                    "again, peak MB": round(again["peak"]),
                }
            )
            if count <= TRAINED:
                start = _measured("start", table, folder / "cache")
                starting.rows.append(
                    {
                        "rows": count,
                        "CPU s": start["seconds"],
                        "peak MB": round(start["peak"]),
                        "MB over the libraries": round(start["peak"] - start["before"]),
                        "MB of each worker's own": round(start["worker"]),
                    }
                )
    reading.notes = [
        "Each row in a process of its own; processor time without the import of libraries, peak memory with it. "
        f"Captions of {CAPTION} words, a thousand images in a folder; no image is opened. Goals at 1,000,000 rows: "
        "12 s and 400 MB, and 3 s the second time.",
    ]
    starting.notes = [
        "The table has been read before. From there to the first batch of decoded images: splits, words, tokens, the "
        "order of the epoch; of processor time, the workers' is not in it. Libraries are PyTorch, Lightning and what "
        "they import.",
    ]
    return [reading, starting]


def write_table(folder: Path, count: int) -> Path:
    """A table of ``count`` rows with two captions each, and images that all its rows lead to."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for number in range(IN_A_FOLDER):
        Image.new("RGB", (32, 32), (number % 256, number // 4, 0)).save(pictures / f"{number:03}.jpg")
    chance = random.Random(0)
    with open(folder / "table.jsonl", "w", encoding="utf-8") as file:
        for number in range(count):
            name = f"images-{number // IN_A_FOLDER:05}"
            if number % IN_A_FOLDER == 0:
                (folder / name).symlink_to(pictures)
            captions = [" ".join(chance.choices(WORDS, k=CAPTION)) for _ in range(2)]
            row = {"image": f"{name}/{number % IN_A_FOLDER:03}.jpg", "captions": captions}
            file.write(json.dumps(row) + "\n")
    return folder / "table.jsonl"


def _measured(what: str, table: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "latentcap.bench.reading", what, str(table), str(cache)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found
