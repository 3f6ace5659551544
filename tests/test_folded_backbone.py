"""The network for captioning gives the regions of the one that was trained."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from latentcap.config import BackboneConfig
from latentcap.inference.folded_backbone import DepthwiseConvolution, inference_copy
from latentcap.model.backbone import Backbone


def trained(name: str) -> Backbone:
    """Random weights with statistics that matter."""
    net = Backbone(BackboneConfig(name=name, weights="random", image_size=64)).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return net


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_same_regions_and_untouched_original(name: str) -> None:
    net = trained(name)
    images = torch.randn(2, 1, 3, 64, 64)
    with torch.inference_mode():
        expected = net(images)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        found = inference_copy(net, torch.float32)(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_efficientnet_loses_all_its_normalisations() -> None:
    copy = inference_copy(trained("test_efficientnet"), torch.float32)
    assert not [module for module in copy.modules() if isinstance(module, nn.BatchNorm2d)]


class Crossed(Backbone):
    """Declares a normalisation after a convolution and runs them side by side."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.config = BackboneConfig()
        self.data_config = {"input_size": (3, 8, 8)}
        self.net = nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1), "norm": nn.BatchNorm2d(3)})
        nn.init.uniform_(self.net["norm"].running_mean)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net["conv"](images[:, 0]) + self.net["norm"](images[:, 0])  # type: ignore[index]


def test_a_network_that_runs_in_another_order_is_left_as_it_is() -> None:
    net = Crossed().eval()
    images = torch.randn(1, 1, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(inference_copy(net, torch.float32)(images), net(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("same", "stride"), [(False, 1), (False, 2), (True, 2)])
def test_depthwise_convolutions_pad_as_they_did(monkeypatch: pytest.MonkeyPatch, same: bool, stride: int) -> None:
    kind = Conv2dSame if same else nn.Conv2d
    layer = kind(6, 6, 5, stride=stride, padding=0 if same else 2, groups=6)
    maps = torch.randn(2, 6, 9, 12)

    def on_this_processor(maps, weight, kernel, bias, stride, padding, dilation):  # type: ignore[no-untyped-def]
        return nn.functional.conv2d(maps, weight, bias, stride, padding, dilation, groups=len(weight))

    monkeypatch.setattr(torch.ops.aten, "_conv_depthwise2d", on_this_processor)
    torch.testing.assert_close(DepthwiseConvolution(layer)(maps), layer(maps))


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["test_efficientnet", "tf_efficientnet_lite0", "test_resnet"])
def test_on_a_gpu_regions_are_those_of_the_cpu(name: str) -> None:
    net = trained(name)
    images = torch.randn(3, 1, 3, 64, 64)
    with torch.inference_mode():
        expected = net(images)
        copy = inference_copy(net.to("cuda"), torch.float32)
        found = copy(images.to("cuda")).cpu()
    assert (found - expected).norm() <= 0.01 * expected.norm()  # convolutions may round to TensorFloat-32
    depthwise = any(isinstance(module, DepthwiseConvolution) for module in copy.modules())
    assert depthwise == ("efficientnet" in name)
