"""What other systems lack is not needed: Windows has no fcntl, no resource, and fewer functions in os."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from latentcap.data.cores import available_cores, keep_to_quota
from tests.helpers import tiny_captioner

HIDE = """
import os, sys, warnings
missing = ("fcntl", "grp", "pwd", "resource", "termios")
for name in missing:
    sys.modules[name] = None  # an import of it fails
for name in ("fork", "pread", "pwrite", "sync"):
    delattr(os, name)
warnings.simplefilter("ignore")  # of filelock, which takes the hidden fcntl for a broken Python
from latentcap.cli.main import main
main()
"""


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_captioning_where_unix_is_hidden(kind: str, tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "model")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    given = [str(tmp_path / "red.png"), "--model", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
    command = [sys.executable, "-c", HIDE, "caption", *given, "--format", kind]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 captioned" in done.stderr


def test_every_module_is_imported_where_unix_is_hidden() -> None:
    """But for the parts that are of one tool alone: Ray's cluster, and the benchmark that measures processes."""
    code = HIDE.split("from latentcap")[0] + (
        "import importlib, pkgutil, latentcap\n"
        "for module in pkgutil.walk_packages(latentcap.__path__, 'latentcap.'):\n"
        "    if module.name not in ('latentcap.batch.ray_engine',) and not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 6), ("250000 100000", 3), ("50000 100000", 1), ("900000 100000", 6), ("", 6)]
)
def test_a_container_has_as_many_cores_as_its_quota_pays_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr("latentcap.data.cores.QUOTA", tmp_path / "cpu.max")
    assert available_cores() == cores
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    keep_to_quota()
    assert os.environ["OMP_NUM_THREADS"] == "5"  # as somebody has said
    monkeypatch.delenv("OMP_NUM_THREADS")
    keep_to_quota()
    assert os.environ.get("OMP_NUM_THREADS") == (str(cores) if cores < 6 else None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("latentcap.data.cores.QUOTA", tmp_path / "none")
    assert available_cores() == 6
