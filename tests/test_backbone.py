"""timm networks as region encoders: grids, weights, what is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from latentcap.config import BackboneConfig
from latentcap.data.errors import UserError
from latentcap.model.backbone import Backbone, packaged_weights
from latentcap.model.split_backbone import split_at_first_trained

TINY = "test_efficientnet"


def backbone(**settings: object) -> Backbone:
    return Backbone(BackboneConfig(**{"name": TINY, "weights": "random", "image_size": 64, **settings}))  # type: ignore[arg-type]


def test_regions_are_the_grid_cells_of_all_views() -> None:
    net = backbone().eval()
    images = torch.randn(2, 3, 3, 64, 64)
    regions = net(images)
    height, width = net.grid
    assert regions.shape == (2, 3 * height * width, net.num_channels)
    features = net.net.forward_features(images[1, 2:3])  # type: ignore[operator]
    torch.testing.assert_close(regions[1, 2 * height * width :], features[0].flatten(1).T, rtol=1e-4, atol=1e-5)


def test_an_earlier_stage_is_finer() -> None:
    assert backbone(stage=2).grid[0] > backbone().grid[0]


@pytest.mark.skipif(packaged_weights("tf_efficientnet_lite0") is None, reason="the weights' package is not installed")
def test_packaged_weights_are_imagenets() -> None:
    """The real network tells a plain picture's features apart from another's; random weights fit by shape only."""
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    from latentcap.model.backbone import load_weights_into

    load_weights_into(net, BackboneConfig())
    assert float(net.get_parameter("conv_stem.weight").detach().abs().max()) > 0.5
    assert float(net.get_buffer("bn1.running_var").std()) > 0.01


def test_frozen_layers_stay_in_evaluation_mode() -> None:
    net = backbone().train()
    assert not any(p.requires_grad for p in net.parameters())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    regions = net(torch.randn(4, 1, 3, 64, 64))
    assert not regions.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_last_stages_can_be_trained() -> None:
    some, all_ = (
        sum(p.numel() for p in backbone(trainable=trainable).parameters() if p.requires_grad)
        for trainable in (2, "all")
    )
    assert 0 < some < all_
    net = backbone(trainable=2).train()
    net(torch.randn(2, 1, 3, 64, 64)).sum().backward()
    assert any(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_frozen_and_trained_layers_run_apart(name: str) -> None:
    """What the frozen layers give can be kept: the trained ones make the same regions of it."""
    net = backbone(name=name, trainable=3).train()
    images = torch.randn(2, 2, 3, 64, 64)
    split = net.split
    assert split is not None
    with torch.no_grad():
        maps = split.stem(images.flatten(0, 1))
    assert maps.shape[2:] + maps.shape[1:2] == split.shape
    regions = split.regions_from(maps.flatten(2).mT.reshape(2, -1, maps.shape[1]))
    torch.testing.assert_close(regions, net(images), rtol=1e-4, atol=1e-5)
    regions.sum().backward()
    assert not any(p.requires_grad for p in split.stem.parameters())
    assert any(p.grad is not None for p in split.tail.parameters())


@pytest.mark.parametrize("nothing", [0, "0"])
def test_no_layers_are_none(nothing: object) -> None:
    net = backbone(trainable=nothing)
    assert net.frozen
    assert not any(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("trainable", ["some", -1, "-1", True, 1.5])
def test_what_is_no_number_of_layers_is_refused(trainable: object) -> None:
    with pytest.raises(UserError, match=r"backbone\.trainable is '.*': it is 'none', 'all', or the number"):
        backbone(trainable=trainable)


def test_nothing_is_kept_where_all_or_nothing_is_trained() -> None:
    assert backbone().split is None
    assert backbone(trainable="all").split is None
    assert backbone(trainable=99).split is None


def test_depthwise_filters_and_statistics_stay() -> None:
    net = backbone(trainable=4).train()
    depthwise = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert depthwise
    assert not any(m.weight.requires_grad for m in depthwise)
    before = {name: value.clone() for name, value in net.named_buffers()}
    net(torch.randn(4, 1, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())


def test_a_network_that_runs_in_another_order_is_not_taken_apart() -> None:
    class Crossed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 3)
            self.first.requires_grad_(False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.first(self.second(images))

    net = Crossed()
    assert split_at_first_trained(net, net.forward, torch.randn(1, 3, 8, 8)) is None


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = timm.create_model(TINY, pretrained=False, num_classes=0)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    torch.save(source.state_dict(), tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        net = backbone(weights=str(tmp_path / name))
        assert torch.equal(net.net.state_dict()["conv_stem.weight"], source.state_dict()["conv_stem.weight"])


def test_what_cannot_be_loaded_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'resnet50'"):
        backbone(name="resnet5O")
    with pytest.raises(UserError, match="is no file"):
        backbone(weights="nowhere.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not fit"):
        backbone(weights=str(tmp_path / "other.pth"))
    (tmp_path / "code.pth").write_bytes(b"\x80\x04c__builtin__\nexec\n.")
    with pytest.raises(UserError, match="plain tensors"):
        backbone(weights=str(tmp_path / "code.pth"))


def test_grey_images_need_one_channel(tmp_path: Path) -> None:
    """Weights of colours, summed, see in a grey picture what they saw in three equal channels."""
    colour = backbone().eval()
    save_file({k: v.contiguous() for k, v in colour.net.state_dict().items()}, tmp_path / "weights.safetensors")
    grey = backbone(in_chans=1, weights=str(tmp_path / "weights.safetensors")).eval()
    picture = torch.randn(2, 1, 1, 64, 64)
    torch.testing.assert_close(grey(picture), colour(picture.expand(-1, -1, 3, -1, -1)), rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match=r"backbone.in_chans is 2: it is 3 \(colour\) or 1 \(grey\)"):
        backbone(in_chans=2)


@pytest.mark.skipif(packaged_weights("tf_efficientnet_lite0") is None, reason="the weights' package is not installed")
def test_packaged_weights_for_grey_images() -> None:
    settings = {"name": "tf_efficientnet_lite0", "weights": "auto"}
    grey, colour = backbone(in_chans=1, **settings).net, backbone(**settings).net
    torch.testing.assert_close(grey.conv_stem.weight, colour.conv_stem.weight.sum(1, keepdim=True))  # type: ignore[union-attr]
