"""Processes that train together, on CPUs: as devices of one machine, and as nodes that meet over the network."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from latentcap.captioner import Captioner
from latentcap.cli.train import main
from latentcap.data.batches.fixed import FixedBatches
from latentcap.data.batches.loaders import evaluation_loader
from latentcap.data.scenes import render_scenes
from latentcap.training.lightning_messages import explain
from latentcap.training.processes import launched, limit_meeting, note_termination, share_of
from tests.test_train import TINY

ROOT = Path(__file__).parent.parent
PROGRAM = [sys.executable, "-m", "latentcap.cli.main", "train"]
NO_CHANCE = ["--model.model.decoder.dropout=0", "--model.model.fusion.latent_dropout=0"]


class DiesOnSecondNode(Callback):
    """As a machine that loses its power, in the second step of the second epoch."""

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)


def on_two_nodes(*arguments: str) -> list[tuple[int, str]]:
    """Exit codes and messages of ``latentcap train`` on two nodes, with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    same = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "x", "OMP_NUM_THREADS": "1"}
    same |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    nodes = [
        subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=ROOT,
            env={**os.environ, **same, "RANK": rank, "GROUP_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        said = [node.communicate()[1] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    return [(node.returncode, text) for node, text in zip(nodes, said, strict=True)]


@pytest.mark.slow
def test_two_nodes_learn_what_one_process_learns_also_when_one_of_them_dies(tmp_path: Path) -> None:
    """The same weights, to rounding, from batches that are half as large; the other node ends too, and goes on."""
    render_scenes(tmp_path / "scenes", train=40, val=5, test=0, size=64)
    (tmp_path / "tiny.yaml").write_text(TINY)
    given = ["fit", "--config", str(tmp_path / "tiny.yaml"), f"--data.train={tmp_path / 'scenes'}", *NO_CHANCE]
    given += [f"--data.cache_dir={tmp_path / 'cache'}", "--checkpoint.monitor=null"]
    assert main([*given, f"--trainer.default_root_dir={tmp_path / 'one'}"]) == 0

    given += [f"--trainer.default_root_dir={tmp_path / 'two'}", "--data.batch_size=4"]
    dies = f"--trainer.callbacks+=tests.{Path(__file__).stem}.{DiesOnSecondNode.__name__}"
    (code, said), (killed, last) = on_two_nodes(*given, dies)
    assert (code, killed) == (2, -signal.SIGKILL), said + last
    assert "another process of this training has ended" in said
    assert "--ckpt_path last goes on" in said
    assert "Traceback" not in said
    assert torch.load(tmp_path / "two" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6

    for code, said in on_two_nodes(*given, "--ckpt_path=last"):
        assert code == 0, said
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    )
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    Captioner.from_pretrained(tmp_path / "two" / "model")


def test_what_started_the_processes_says_how_many_there_are() -> None:
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    assert launched(torchrun) == (2, 4)
    assert launched({"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "3", "SLURM_NTASKS": "6"}) == (3, 2)
    assert launched({"SLURM_NTASKS": "6", "SLURM_STEP_NUM_TASKS": "1"}) is None  # sbatch without srun
    assert launched({}) is None


@pytest.mark.parametrize("counts", [(3, 5), (0, 4), (0, 0)])
def test_gradients_averaged_over_processes_are_those_of_all_words(
    counts: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentcap.training.processes.together", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: len(counts))
    monkeypatch.setattr("torch.distributed.all_reduce", lambda value: value.fill_(float(sum(counts))))
    parts = [torch.arange(count) + 1.0 for count in counts]  # losses of words
    mean = sum(float(share_of(torch.tensor(len(part))) * part.sum()) / max(len(part), 1) for part in parts) / len(parts)
    assert mean == pytest.approx(float(torch.cat(parts).sum()) / max(sum(counts), 1))


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[L.Trainer]:
    """The trainer of one process, where a launcher has promised two."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in (told | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    yield L.Trainer(accelerator="cpu", devices=1, num_nodes=2, strategy="ddp", logger=False, enable_checkpointing=False)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_processes_wait_for_one_that_never_comes_for_a_short_time_only(first_of_two: L.Trainer) -> None:
    limit_meeting(first_of_two, timedelta(seconds=1))
    with pytest.raises(RuntimeError) as caught:
        first_of_two.strategy.setup_environment()
    assert "have not all met in time" in str(explain(caught.value))


def test_once_they_have_met_they_wait_as_long_as_ever(first_of_two: L.Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_meeting(first_of_two)
    environment = first_of_two.strategy.cluster_environment
    monkeypatch.setattr(type(environment), "world_size", lambda self: 1)
    first_of_two.strategy.setup_environment()
    group = torch.distributed.distributed_c10d._get_default_group()
    assert group._get_backend(torch.device("cpu")).options._timeout == timedelta(minutes=30)


def test_one_process_changes_no_loss() -> None:
    assert share_of(torch.tensor(7)) == 1


@pytest.mark.parametrize(
    "said",
    [
        "[/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:31151: Connection reset by peer.",
        "NCCL error in: ProcessGroupNCCL.cpp:2014, remote process exited or there was a network error",
        "The client socket has timed out after 1800000ms while trying to connect to (head, 29500).",
    ],
)
def test_a_process_that_has_ended_is_told_by_the_others(said: str) -> None:
    assert "another process of this training has ended" in str(explain(RuntimeError(said)))


def test_a_process_without_examples_to_validate_still_takes_part() -> None:
    loader = evaluation_loader([None], batch_size=4, rank=1, world=2, workers=0)  # type: ignore[arg-type]
    assert isinstance(loader.sampler, FixedBatches)
    assert list(loader.sampler) == [[]]


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


def test_a_process_that_is_to_end_finishes_its_step_and_talks_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.broadcast", lambda *given, **settings: pytest.fail("told the others"))
    monkeypatch.setattr(type(trainer), "world_size", 2)
    note_termination(trainer)
    trainer._signal_connector._sigterm_notifier_fn(signal.SIGTERM, None)
    assert trainer.received_sigterm
