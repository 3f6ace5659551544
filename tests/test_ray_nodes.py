"""A Ray cluster of several nodes, which come and die while it captions."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentcap.batch.inputs import Input
from latentcap.batch.pool import Block
from latentcap.batch.settings import WorkerSettings
from latentcap.cli import caption_ray
from latentcap.data.image import ImageRef
from tests.helpers import tiny_captioner


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A cluster whose first node has one core; this process is connected to it."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'latentcap[scale]'")
    temporary = tempfile.mkdtemp(prefix="ray")  # paths of sockets must be short
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (caption_ray.QUIET | caption_ray.ALONE | {"RAY_TMPDIR": temporary}).items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            with caption_ray.cluster(cluster.address):
                yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(temporary, ignore_errors=True)


def works_on(node: Any) -> bool:
    """Whether an actor of the pool runs there."""
    import ray

    actors = ray._private.state.actors().values()
    return any(actor["State"] == "ALIVE" and actor["Address"]["NodeID"] == node.node_id for actor in actors)


@pytest.mark.slow
def test_a_node_that_comes_is_used_and_one_that_is_killed_loses_and_repeats_nothing(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentcap.batch import ray_engine

    monkeypatch.setattr(ray_engine, "LOOK_SECONDS", 0.5)
    tiny_captioner().save(tmp_path / "model")
    Image.new("RGB", (640, 480), "red").save(tmp_path / "red.png")
    engine = ray_engine.RayEngine(WorkerSettings(str(tmp_path / "model")), {})
    assert engine.devices == 1
    handed_out, second, since, killed, most = 0, None, 0, False, 0

    def blocks() -> Iterator[Block]:
        nonlocal handed_out
        left = 20
        while left:
            left -= killed
            yield [Input(str(handed_out), (ImageRef(str(tmp_path / "red.png")),))]
            handed_out += 1

    names: list[str] = []
    for (record,) in engine.map(blocks()):
        names.append(record["file"])
        assert record["caption"]
        most = max(most, handed_out - len(names))
        if second is None:
            second = nodes.add_node(num_cpus=1)
        elif not since:
            since = works_on(second) and len(names)
        elif not killed and len(names) > since + 20:
            assert engine.devices == 2
            nodes.remove_node(second, allow_graceful=False)
            killed = True
    assert names == [str(number) for number in range(handed_out)]
    assert most <= 2 * 2 * 2  # blocks in the cluster at once
