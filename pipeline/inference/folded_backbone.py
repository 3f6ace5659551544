"""A network for captioning only: normalisation folded into convolutions, weights in the type that is computed in."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from timm.layers import BatchNormAct2d
from torch import nn
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
    folded = _frozen_copy(net)
    probe = torch.randn(*size, generator=torch.Generator().manual_seed(0)).to(next(net.parameters()).device)
    with torch.inference_mode():
        expected = folded(probe)
    _fold(folded.net if isinstance(folded, Backbone) else folded)
    with torch.inference_mode():
        same = (expected - folded(probe)).norm() <= TOLERANCE * expected.norm()
    return (folded if same else _frozen_copy(net)).to(dtype)


def _frozen_copy(net: Net) -> Net:
    return copy.deepcopy(net).eval().requires_grad_(False)


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
