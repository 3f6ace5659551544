"""A network for captioning only: normalisation folded into convolutions, weights in the type that is computed in."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from timm.layers import BatchNormAct2d, Conv2dSame, pad_same
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from latentcap.model.backbone import Backbone

TOLERANCE = 1e-3
Net = TypeVar("Net", bound=nn.Module)


def inference_copy(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    """A copy that computes the same regions faster and cannot be trained or saved.

    Folding follows the order in which layers are declared. Where that is not the order in which a network runs them,
    the result differs, which is checked on random pixels; the copy is then left unfolded.
    """
    return _inference_copy(backbone, dtype, (1, 1, *backbone.data_config["input_size"]))


def inference_stem(backbone: Backbone, dtype: torch.dtype) -> nn.Module:
    """The same of the frozen layers of a backbone that is trained in part (``Backbone.split``)."""
    assert backbone.split is not None
    return _inference_copy(backbone.split.stem, dtype, (1, *backbone.data_config["input_size"]))


def _inference_copy(net: Net, dtype: torch.dtype, size: Sequence[int]) -> Net:
    device, folded = next(net.parameters()).device, _frozen_copy(net)
    probe = torch.randn(*size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = folded(probe)
    _fold(folded.net if isinstance(folded, Backbone) else folded)
    with torch.inference_mode():
        same = (expected - folded(probe)).norm() <= TOLERANCE * expected.norm()
    found = folded if same else _frozen_copy(net)
    if device.type == "cuda":
        _spare_cudnn(found)
    return found.to(device, dtype)


def _frozen_copy(net: Net) -> Net:
    """On the CPU, where a first image takes no seconds."""
    return copy.deepcopy(net).eval().requires_grad_(False).cpu()


class DepthwiseConvolution(nn.Module):
    """A depthwise convolution by PyTorch's own kernel for CUDA.

    cuDNN compiles one of its own at run time: for every layer, number of images and thread anew, together seconds.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, maps: Tensor) -> Tensor:
        layer, padding = self.layer, self.layer.padding
        if isinstance(layer, Conv2dSame):
            maps, padding = pad_same(maps, [*layer.kernel_size], [*layer.stride], [*layer.dilation]), (0, 0)
        found: Tensor = torch.ops.aten._conv_depthwise2d(
            maps, layer.weight, layer.kernel_size, layer.bias, layer.stride, padding, layer.dilation
        )
        return found


def _spare_cudnn(module: nn.Module) -> None:
    """Take depthwise convolutions from cuDNN."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            known = type(child) in (nn.Conv2d, Conv2dSame) and child.padding_mode == "zeros"
            if known and 1 < child.groups == child.in_channels and not isinstance(child.padding, str):
                setattr(module, name, DepthwiseConvolution(child))
        else:
            _spare_cudnn(child)


def _fold(module: nn.Module) -> None:
    """Fold each normalisation into the convolution declared before it; what else the layer does (activation) stays."""
    convolution: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            convolution = name, child
            continue
        if isinstance(child, nn.BatchNorm2d) and convolution and convolution[1].out_channels == child.num_features:
            setattr(module, convolution[0], fuse_conv_bn_eval(convolution[1], child))
            rest = nn.Sequential(child.drop, child.act) if isinstance(child, BatchNormAct2d) else nn.Identity()
            setattr(module, name, rest)
        else:
            _fold(child)
        convolution = None
