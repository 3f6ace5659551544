"""A CNN as its tensors alone: what captions by a network that was compiled before needs neither timm nor its code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from latentcap.config import BackboneConfig

if TYPE_CHECKING:
    from latentcap.model.backbone import Backbone


@dataclass(frozen=True)
class BackboneFacts:
    """What is found out about a CNN by running it once; attributes as those of ``Backbone``."""

    num_channels: int
    grid: tuple[int, int]
    data_config: dict[str, Any]


class StoredBackbone(nn.Module):
    """Stands for a :class:`Backbone` whose weights nobody changes. timm, which takes seconds to import, and the network
    itself come only when it is run (``built``).

    Args:
        facts: what is known of the network.
        state: its tensors by name, ``net.conv_stem.weight`` and so on, as in ``Backbone.state_dict()``.
    """

    frozen = True
    split = None

    def __init__(self, config: BackboneConfig, facts: BackboneFacts, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        self.num_channels, self.grid, self.data_config = facts.num_channels, facts.grid, facts.data_config
        for name, value in state.items():
            _hold(self, name, value.float() if value.is_floating_point() else value)

    @cached_property
    def built(self) -> Backbone:
        """The network itself, with these tensors."""
        from latentcap.model.backbone import Backbone

        backbone = Backbone(self.config, load_weights=False)
        backbone.load_state_dict(self.state_dict())
        return backbone.eval()

    def forward(self, images: Tensor) -> Tensor:
        """As ``Backbone.forward``."""
        regions: Tensor = self.built(images)
        return regions


def weights_hash(config: BackboneConfig, state: Mapping[str, Tensor]) -> str:
    """Of everything that a frozen CNN's output depends on but its input: the architecture and every weight."""
    digest = hashlib.sha256(repr((config.name, config.image_size, config.stage, config.in_chans)).encode())
    for name in sorted(state):
        value = state[name].detach()
        digest.update(name.encode())
        value = (value.float() if value.is_floating_point() else value).contiguous().cpu()
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:24]


def _hold(module: nn.Module, name: str, value: Tensor) -> None:
    """Register a tensor under a name with dots, in modules that do nothing else."""
    first, dot, rest = name.partition(".")
    if not dot:
        module.register_buffer(first, value)
        return
    if first not in dict(module.named_children()):
        module.add_module(first, nn.Module())
    _hold(module.get_submodule(first), rest, value)
