"""The CNN by OpenVINO gives the regions that PyTorch gives, from several threads, and is compiled once."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from latentcap.bench.captioning import parameters_of
from latentcap.captioner import Captioner
from latentcap.config import BackboneConfig
from latentcap.data.errors import UserError
from latentcap.inference import engine as engines
from latentcap.inference.engine import OpenVINONetwork, choose_engine, inference_backbone, inference_frozen_layers
from latentcap.model.backbone import Backbone
from latentcap.model.stored_backbone import StoredBackbone
from tests.helpers import tiny_captioner

CPU = torch.device("cpu")
pytest.importorskip("openvino")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "CACHE", tmp_path / "engine")
    monkeypatch.delenv("LATENTCAP_ENGINE", raising=False)


def backbone(trainable: str | int = "none", **more: object) -> Backbone:
    settings = {"name": "test_efficientnet", "weights": "random", "image_size": 72, **more}
    net = Backbone(BackboneConfig(trainable=trainable, **settings))  # type: ignore[arg-type]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
    return net.eval()


@pytest.fixture(params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


@pytest.mark.parametrize(("examples", "views"), [(1, 1), (3, 2), (5, 1)])
def test_regions_are_those_of_torch(engine: str, examples: int, views: int) -> None:
    net = backbone()
    images = torch.randn(examples, views, 3, 72, 72)
    with torch.inference_mode():
        torch.testing.assert_close(
            inference_backbone(net, torch.float32, engine=engine)(images), net(images), rtol=1e-3, atol=1e-4
        )


def test_another_stage_and_grey_images() -> None:
    net = backbone(stage=2, in_chans=1)
    images = torch.randn(3, 1, 1, 72, 72)
    with torch.inference_mode():
        torch.testing.assert_close(
            inference_backbone(net, torch.float32, engine="openvino")(images), net(images), rtol=1e-3, atol=1e-4
        )


def test_frozen_layers_of_a_backbone_trained_in_part(engine: str) -> None:
    net = backbone(trainable="2")
    assert net.split is not None
    images = torch.randn(3, 3, 72, 72)
    with torch.inference_mode():
        found = inference_frozen_layers(net, torch.float32, engine=engine)(images)
        torch.testing.assert_close(found, net.split.stem(images), rtol=1e-3, atol=1e-4)


def test_threads_share_one_network(engine: str) -> None:
    net = backbone()
    network = inference_backbone(net, torch.float32, engine=engine)
    batches = [torch.randn(size, 1, 3, 72, 72) for size in (1, 4, 2, 3, 1, 5)]
    with ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = list(pool.map(network, batches))
    with torch.inference_mode():
        for images, regions in zip(batches, found, strict=True):
            torch.testing.assert_close(regions, net(images), rtol=1e-3, atol=1e-4)


def test_the_second_start_reads_what_the_first_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = backbone(), torch.randn(2, 1, 3, 72, 72)
    first = inference_backbone(net, torch.float32, engine="openvino")(images)

    def compiled_again(*given: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(engines.OpenVINONetwork, "_graph", compiled_again)
    torch.testing.assert_close(inference_backbone(net, torch.float32, engine="openvino")(images), first)
    with torch.no_grad():
        next(net.parameters()).mul_(1.5)
    with pytest.raises(AssertionError, match="compiled again"):
        inference_backbone(net, torch.float32, engine="openvino")(images)


def test_a_broken_file_is_compiled_anew(tmp_path: Path) -> None:
    net, images = backbone(), torch.randn(2, 1, 3, 72, 72)
    first = inference_backbone(net, torch.float32, engine="openvino")(images)
    for blob in (tmp_path / "engine").glob("*.blob"):
        blob.write_bytes(b"not a network")
    torch.testing.assert_close(inference_backbone(net, torch.float32, engine="openvino")(images), first)


class Dice(nn.Module):
    """Another result at each call, as of a network that the engine gets wrong."""

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.randn_like(images)


def test_a_network_that_comes_out_otherwise_is_not_taken() -> None:
    assert not OpenVINONetwork(lambda: Dice().eval(), "dice", (3, 8, 8), torch.float32).is_right()


class Polygamma(nn.Module):
    """An operation that OpenVINO does not know."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.polygamma(1, images.abs() + 1)


def test_a_network_that_cannot_be_converted_is_not_taken() -> None:
    assert not OpenVINONetwork(lambda: Polygamma().eval(), "polygamma", (3, 8, 8), torch.float32).is_right()


def test_captions_are_the_same() -> None:
    captioner = tiny_captioner()
    images = [Image.new("RGB", (70, 60), colour) for colour in ("red", "green", "navy")]
    found = {}
    for captioner.engine in ("torch", "openvino", "onnxruntime"):
        found[captioner.engine] = [(entry.text, round(entry.score, 3)) for entry in captioner.caption(images)]
    assert found["torch"] == found["openvino"] == found["onnxruntime"]


def test_onnxruntime_computes_in_float32(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "model")
    assert Captioner.from_pretrained(tmp_path / "model", engine="onnxruntime").dtype == torch.float32
    with pytest.raises(UserError, match=r"onnxruntime' computes in float32 on a CPU, not in torch.bfloat16"):
        Captioner.from_pretrained(tmp_path / "model", engine="onnxruntime", dtype=torch.bfloat16)


def test_the_engine_is_chosen_by_device_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine(None, CPU, torch.float32) == "openvino"
    assert choose_engine(None, CPU, torch.float16) == "torch"
    assert choose_engine(None, torch.device("cuda"), torch.float32) == "torch"
    monkeypatch.setenv("LATENTCAP_ENGINE", "torch")
    assert choose_engine(None, CPU, torch.float32) == "torch"
    assert choose_engine("openvino", CPU, torch.float32) == "openvino"
    with pytest.raises(UserError, match="Engines: openvino, onnxruntime, torch"):
        choose_engine("tensorrt", CPU, torch.float32)
    with pytest.raises(UserError, match="float32 or bfloat16 on a CPU"):
        choose_engine("openvino", CPU, torch.float16)
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    assert choose_engine(None, CPU, torch.float32) == "torch"
    with pytest.raises(UserError, match="pip install openvino"):
        choose_engine("openvino", CPU, torch.float32)
    with pytest.raises(UserError, match="needs the extra 'export'"):
        choose_engine("onnxruntime", CPU, torch.float32)


START = """
import sys
from PIL import Image
from latentcap import Captioner
captioner = Captioner.from_pretrained(sys.argv[1], engine="openvino")
caption = captioner.caption([Image.new("RGB", (70, 60), "green")])[0]
print(caption.text, round(caption.score, 3))
print("timm" in sys.modules, "torch._dynamo" in sys.modules)
captioner.save(sys.argv[2])
"""


def test_the_second_start_does_without_timm(tmp_path: Path) -> None:
    """Nor without torch's compiler, which timm imports; the model is the same, and saved as it was."""
    torch.manual_seed(3)
    tiny_captioner().save(tmp_path / "model")
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("LATENTCAP_ENGINE", None)
    told = []
    for copy in ("first", "second"):
        command = [sys.executable, "-c", START, str(tmp_path / "model"), str(tmp_path / copy)]
        told.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    (first, began), (second, again) = (text.splitlines() for text in told)
    assert first == second
    assert began == "True True"
    assert again == "False False"
    original = load_file(tmp_path / "model" / "model.safetensors")
    saved = load_file(tmp_path / "second" / "model.safetensors")
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], original[name]) for name in original)


def test_a_stored_backbone_is_built_when_it_is_run(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    captioner.engine = "openvino"
    captioner.caption([Image.new("RGB", (70, 60), "red")])
    captioner.save(tmp_path / "model", half=False)
    model = Captioner.from_pretrained(tmp_path / "model", dtype=torch.float32, engine="openvino").model
    stored = model.backbone
    assert isinstance(stored, StoredBackbone)
    assert parameters_of(model) == parameters_of(captioner.model)
    images = torch.randn(2, 1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(stored(images), captioner.model.backbone(images))
    assert stored.grid == captioner.model.backbone.grid
    plain = Captioner.from_pretrained(tmp_path / "model", dtype=torch.float32, engine="torch").model.backbone
    assert not isinstance(plain, StoredBackbone)
