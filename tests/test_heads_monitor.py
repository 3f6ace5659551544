"""The head monitor inside a real training: what it logs, and where."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentcap.cli.train import main
from latentcap.data.errors import UserError
from latentcap.data.scenes import render_scenes
from latentcap.heads.monitor import HeadMonitor, _log_picture, pictures
from tests.test_train import TINY

WANDB = importlib.util.find_spec("wandb") is not None

CALLBACK = """
trainer:
  callbacks:
    - class_path: latentcap.heads.monitor.HeadMonitor
      init_args: {examples: 6}
  logger:
    - class_path: lightning.pytorch.loggers.TensorBoardLogger
      init_args: {save_dir: SAVE, name: "", version: ""}
"""
OFFLINE = """
    - class_path: lightning.pytorch.loggers.WandbLogger
      init_args: {save_dir: SAVE, offline: true}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("monitored")
    render_scenes(folder / "scenes", train=16, val=8, test=2, size=64)
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "board").mkdir()
    settings = CALLBACK + (OFFLINE.lstrip("\n") if WANDB else "")
    (folder / "monitor.yaml").write_text(settings.replace("SAVE", str(folder / "board")))
    given = [f"--trainer.default_root_dir={folder}", f"--data.train={folder / 'scenes'}"]
    given += [f"--data.cache_dir={folder / 'cache'}", "--data.eval_batch_size=4"]
    assert main(["fit", "--config", str(folder / "tiny.yaml"), "--config", str(folder / "monitor.yaml"), *given]) == 0
    if WANDB:
        import wandb

        wandb.finish()  # as the end of the program does: all is in the file then
    return folder


def test_scalars_of_every_head_at_every_validation(run: Path) -> None:
    with open(run / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("heads/visual 1/entropy")]
    assert len(rows) == 2
    for row in rows:
        for head in ("visual 1", "visual 2", "text 1", "text 2"):
            assert 0 <= float(row[f"heads/{head}/of even"]) <= 1 + 1e-5
            assert float(row[f"heads/{head}/use"]) == 1
        importance = [float(value) for name, value in row.items() if name.endswith("/importance")]
        assert sum(importance) == pytest.approx(4, rel=1e-4)
        assert "heads/visual 1/stop" not in row


def test_scalars_and_pictures_in_tensorboard(run: Path) -> None:
    events = EventAccumulator(str(run / "board"), size_guidance={"images": 0})
    events.Reload()
    assert "heads/text 2/stop" in events.Tags()["scalars"]
    assert set(events.Tags()["images"]) == {"heads/maps", "heads/similarity visual", "heads/similarity text"}
    maps = events.Images("heads/maps")
    assert len(maps) == 2
    assert maps[0].width == 2 * (maps[0].height + 6)


@pytest.mark.skipif(not WANDB, reason="wandb is not installed: pip install 'latentcap[wandb]'")
def test_scalars_and_pictures_in_wandb_without_a_network(run: Path) -> None:
    (folder,) = (run / "board" / "wandb").glob("offline-run-*")
    names = {path.name.rsplit("_", 2)[0] for path in (folder / "files" / "media" / "images" / "heads").glob("*.png")}
    assert names == {"maps", "similarity visual", "similarity text"}
    (record,) = folder.glob("*.wandb")
    assert b"heads/text 2/stop" in record.read_bytes()


def test_the_page_is_that_of_the_last_validation(run: Path) -> None:
    page = (run / "heads.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 4
    assert "validation examples after step 4." in page


class WithImages(DummyLogger):
    """What W&B's logger offers."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[dict[str, Any]] = []

    @property
    def experiment(self) -> object:
        return object()

    def log_image(self, **given: Any) -> None:
        self.logged.append(given)


def test_pictures_for_wandb(run: Path) -> None:
    from tests.test_heads_measure import measured

    _, report = measured()
    logger = WithImages()
    for name, picture in pictures(report).items():
        _log_picture(logger, name, picture, 7)
    assert [entry["key"] for entry in logger.logged] == ["maps", "similarity visual", "similarity text"]
    assert logger.logged[0]["step"] == 7
    assert logger.logged[0]["images"][0].shape[-1] == 3


def test_no_examples_is_a_mistake() -> None:
    with pytest.raises(UserError, match="examples is 0"):
        HeadMonitor(examples=0)
