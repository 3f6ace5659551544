"""Training that Ray starts: two processes on a cluster of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from latentcap.captioner import Captioner
from latentcap.data.scenes import render_scenes
from tests.test_train import TINY

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_train_one_model_to_its_end(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'latentcap[scale]'")
    render_scenes(tmp_path / "scenes", train=16, val=4, test=0, size=64)
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [sys.executable, str(ROOT / "scripts" / "train_ray.py"), "2", "--config", str(tmp_path / "tiny.yaml")]
    command += [f"--data.train={tmp_path / 'scenes'}", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    command += [
        "--data.batch_size=4",
        "--data.workers=0",
        "--trainer.max_epochs=1",
        f"--data.cache_dir={tmp_path / 'cache'}",
    ]
    temporary = tempfile.mkdtemp(prefix="ray")  # paths of sockets must be short
    environment = os.environ | {"RAY_TMPDIR": temporary, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2  # of 2 x 4 images
    Captioner.from_pretrained(tmp_path / "run" / "model")
