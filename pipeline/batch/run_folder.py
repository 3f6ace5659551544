"""The folder beside an output that says how it was begun and by whom it is being written."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from latentcap.batch.journal import Journal, written_to_disk
from latentcap.batch.newer import Times
from latentcap.data.errors import UserError

MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json")
PACKAGES = ("latentcap", "torch", "timm", "pillow")
MAX_SHOWN = 6
MERGED = "merged.json"  # what ``latentcap caption merge`` has written


class RunFolder:
    """``OUTPUT.run/``: ``manifest.json``, ``errors.jsonl``, ``times.jsonl``, a lock, its ``writer``, and the journal of
    formats that are written last.

    Use as a context manager: it holds the lock, which the system drops with the process, however that ends.
    """

    def __init__(self, path: Path, *, output: str) -> None:
        self.path, self.output = path, output
        self.manifest: dict[str, Any] = {}
        self.errors = Journal(path / "errors.jsonl")
        self._lock = FileLock(path / "lock", thread_local=False)

    @property
    def times(self) -> Times:
        """When what of the journal was captioned."""
        began = self.manifest.get("began")
        return Times(self.path / "times.jsonl", began=datetime.fromisoformat(began).timestamp() if began else 0.0)

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
            self._writer.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        except Timeout:
            raise UserError(
                f"{self.output}: another run is writing it ({self._holder()}). Wait for it, stop it, or choose another "
                "output."
            ) from None
        except OSError as error:
            self._lock.release()
            raise UserError(f"{self.path}: cannot be written ({error.strerror}).") from None
        self.manifest = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def _writer(self) -> Path:
        """Says who holds the lock; apart from the lock itself, which some systems let nobody else read."""
        return self.path / "writer"

    def _holder(self) -> str:
        try:
            return self._writer.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
        except OSError:
            return "unknown"

    def clear(self) -> None:
        """Forget an earlier run: everything but the lock, who holds it, and what was merged, which is still there."""
        for path in self.path.iterdir():
            if path.name not in ("lock", "writer", MERGED):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.manifest = {}

    def begin(self, settings: Mapping[str, Any], *, empty: bool) -> None:
        """Write down how the output is made. Raises UserError where it was begun with others and is not ``empty``."""
        known = self.manifest.get("settings")
        if known is not None and not empty:
            differences = list(_differences(known, json.loads(json.dumps(settings))))
            if known.get("model") != settings.get("model") and (folder := self.manifest.get("model_folder")):
                differences.insert(0, f"the model was {folder}, as it was then")
            if differences:
                more = f"; and {len(differences) - MAX_SHOWN} more" if len(differences) > MAX_SHOWN else ""
                raise UserError(
                    f"{self.output} was begun with other settings: {'; '.join(differences[:MAX_SHOWN])}{more}. Use "
                    "those to go on, --overwrite to start anew, or another --output."
                )
        began = self.manifest.get("began") or _now()
        self.update(settings=dict(settings), versions=_versions(), began=began, status="running")

    def update(self, **entries: Any) -> None:
        """Change entries of the manifest."""
        self.manifest = {"format": "latentcap-run", "version": 1, **self.manifest, **entries, "updated": _now()}
        with written_to_disk(self.path / "manifest.json", "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(self.manifest, file, indent=2, ensure_ascii=False)
            file.write("\n")

    def _read(self) -> dict[str, Any]:
        path = self.path / "manifest.json"
        if not path.is_file():
            return {}
        try:
            manifest = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error}). --overwrite starts anew.") from None
        if not isinstance(manifest, dict) or manifest.get("format") != "latentcap-run":
            raise UserError(f"{path}: not the manifest of a run. Choose another --output.")
        return manifest


def model_hash(folder: Path) -> str:
    """SHA-256 over a model folder's configuration, weights and vocabulary."""
    total = hashlib.sha256()
    for name in MODEL_FILES:
        try:
            with open(folder / name, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{folder / name}: cannot be read ({error.strerror}).") from None
    return total.hexdigest()


def _differences(known: Mapping[str, Any], now: Mapping[str, Any], inside: str = "") -> Iterator[str]:
    for name in dict.fromkeys((*known, *now)):
        before, after = known.get(name), now.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{inside}{name}.")
        elif before != after:
            yield f"{inside}{name} was {_short(before)} and is {_short(after)}"


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:28] + "[...]" + text[-28:]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
