"""The network for captioning gives the regions of the one that was trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latentcap.config import BackboneConfig
from latentcap.inference.folded_backbone import inference_copy
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
