"""Thousands of broken files in one run: no crash, every file accounted for, memory flat; broken tables, too."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from latentcap.batch.inputs import Inputs
from latentcap.batch.journal import Journal
from latentcap.batch.metadata.xmp import description_of, with_description
from latentcap.bench.captioning import pictures
from latentcap.bench.mutants import IMAGES, TEXTS, mutants
from latentcap.bench.timing import Section, Setting
from latentcap.data.errors import UserError
from latentcap.data.readers import read_examples

FILES, FILES_OF_TEXT = 5_000, 1_200
SIDE = 96
EVERY = 0.25  # seconds between two looks at the memory


def bench(setting: Setting, *, folder: Path, images: Path | None) -> list[Section]:
    """A run over broken images and archives, and every reader of tables over broken ones."""
    chance = random.Random(0)
    with pictures(images, count=16) as refs, TemporaryDirectory() as temporary:
        small = [ref.open() for ref in refs]
        for picture in small:
            picture.thumbnail((SIDE, SIDE))
        source = Path(temporary, "broken")
        names: dict[str, list[str]] = {kind: [] for kind in IMAGES}
        for number, (kind, data) in enumerate(mutants(IMAGES, small, 60 if setting.quick else FILES, chance)):
            name = f"{number // 1000}/{number:05}.{kind}"
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
            names[kind].append(name)
        setting.say(f"fuzz: {sum(map(len, names.values())):,} files in one run")
        found = _run(source, folder, Path(temporary, "captions.jsonl"), names)
        setting.say("fuzz: tables and texts")
        texts = _texts(Path(temporary), mutants(TEXTS, small, 60 if setting.quick else FILES_OF_TEXT, chance))
    return [found, texts]


def _run(source: Path, model: Path, output: Path, names: dict[str, list[str]]) -> Section:
    """One ``latentcap caption`` over a folder: what became of each kind."""
    more = ["--model", str(model), "--output", str(output), "--beam-size", "1", "--quiet"]
    command = [sys.executable, "-m", "latentcap.cli.main", "caption", str(source), *more]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    memory: list[tuple[int, float]] = []  # captions and errors so far, as bytes, and MB
    while process.poll() is None:
        time.sleep(EVERY)
        written = sum(path.stat().st_size for path in (output, _beside(output, "errors.jsonl")) if path.is_file())
        memory.append((written, _megabytes(process.pid)))
    if process.returncode != 3:  # some are captioned, some are not
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    told = {
        "captioned": _names(Journal(output)),
        "failed": _names(Journal(_beside(output, "errors.jsonl"))),
        "skipped": _names(Journal(_beside(output, "skipped.jsonl"))),
    }
    section = Section("Broken files, captioned in one run")
    for kind, files in names.items():
        row: dict[str, object] = {"kind": kind, "files": len(files)}
        row |= {what: sum(counts[file] for file in files) for what, counts in told.items()}
        row["not accounted for"] = sum(not any(counts[file] for counts in told.values()) for file in files)
        section.rows.append(row)
    totals = [name for name in section.rows[0] if name != "kind"]
    section.rows.append({"kind": "all"} | {name: sum(row[name] for row in section.rows) for name in totals})
    half = max(written for written, _ in memory) / 2
    early = max((size for written, size in memory if 0 < written <= half), default=0.0)
    late = max((size for written, size in memory if written > half), default=0.0)
    section.notes = [
        f"{model.name}; each file of one to three changes to a whole one (cut, bytes changed, sizes in headers, parts "
        "left out, doubled, blank or random), one in twenty as it was. Of archives, what is counted are the images in "
        "them, and the archive itself where it cannot be read. The run ended by itself, with exit code 3.",
        f"The most memory while the first half was written: {early:,.0f} MB, the second: {late:,.0f} MB.",
    ]
    return section


def _beside(output: Path, name: str) -> Path:
    return output.with_name(f"{output.name}.run") / name


def _names(records: Iterable[dict[str, object]]) -> Counter[str]:
    """How often each file occurs; an image in an archive counts as its archive."""
    names = (str(record["file"]) for record in records)
    return Counter(name.split(":", 1)[0] for name in names)


def _megabytes(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def _texts(folder: Path, files: Iterable[tuple[str, bytes]]) -> Section:
    """Every reader that may meet a file of this kind: it is read, or refused in a sentence."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in TEXTS}
    for number, (kind, data) in enumerate(files):
        path = folder / f"{number:05}.{kind}"
        path.write_bytes(data)
        for reader in _readers(kind):
            try:
                reader(path)
                counts[kind]["read"] += 1
            except UserError:
                counts[kind]["refused"] += 1
            except Exception as error:
                counts[kind]["crashes"] += 1
                raise RuntimeError(f"{kind} by {reader}: {type(error).__name__}: {error}; {data!r}") from error
        counts[kind]["files"] += 1
        path.unlink()
    section = Section("Broken tables and texts, by every reader that may meet them")
    columns = ("files", "read", "refused", "crashes")
    section.rows = [{"kind": kind} | {name: found[name] for name in columns} for kind, found in counts.items()]
    section.rows.append({"kind": "all"} | {name: sum(row[name] for row in section.rows) for name in columns})
    section.notes = [
        "read and refused count a file once for each reader: as images to caption, and as data to train on; XMP where "
        "it is read and where a description is set. Refused: an error of one sentence. A crash is any other error."
    ]
    return section


def _readers(kind: str) -> tuple[Callable[[Path], object], ...]:
    if kind == "xmp":
        return (_description, _set_description)
    if kind == "json":
        return (read_examples,)
    return (lambda path: list(Inputs([str(path)])), read_examples)


def _description(path: Path) -> None:
    try:
        description_of(path.read_bytes())
    except ValueError as error:
        raise UserError(str(error)) from None


def _set_description(path: Path) -> None:
    try:
        with_description(path.read_bytes(), "new")
    except ValueError as error:
        raise UserError(str(error)) from None
