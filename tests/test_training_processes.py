"""Two processes that train together, on CPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from latentcap.captioner import Captioner
from latentcap.data.scenes import render_scenes
from tests.test_train import TINY


@pytest.mark.slow
def test_images_that_one_process_cannot_read_do_not_make_the_other_wait(tmp_path: Path) -> None:
    """And ``ddp`` by its name allows parameters that a batch without context does not use."""
    render_scenes(tmp_path / "scenes", train=8, val=4, test=0, size=64)
    for path in sorted((tmp_path / "scenes" / "train").glob("*.jpg"))[::2]:
        path.write_bytes(b"no picture any more")
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [sys.executable, "-m", "latentcap.cli.main", "train", "fit", "--config", str(tmp_path / "tiny.yaml")]
    command += [f"--trainer.default_root_dir={tmp_path / 'run'}", f"--data.train={tmp_path / 'scenes'}"]
    command += ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=1", "--data.batch_size=1"]
    command += ["--model.model.backbone.trainable=all", "--data.workers=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    Captioner.from_pretrained(tmp_path / "run" / "model")
