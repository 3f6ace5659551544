"""The chain: backbone, context encoder, fusion and decoder as one module. Tensors in, tensors out.

Dimension letters: see ``latent_attention.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from latentcap.config import BackboneConfig, ModelConfig
from latentcap.data.batches.context import ContextBatch, ContextFields
from latentcap.data.errors import UserError
from latentcap.model.context import ContextEncoder
from latentcap.model.decoder import Decoder
from latentcap.model.dropout import Dropout
from latentcap.model.fusion import Fusion, Memory
from latentcap.model.label_head import LabelHead, mean_of
from latentcap.model.routed_fusion import RoutedFusion
from latentcap.model.stored_backbone import StoredBackbone

if TYPE_CHECKING:
    from latentcap.model.backbone import Backbone


class CaptionModel(nn.Module):
    """Images and context to a :class:`Memory`, once; then words from it, all at once or one by one."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        vocab_size: int,
        fields: ContextFields | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
        label_lists: Mapping[str, Sequence[float]] | None = None,
        load_weights: bool = True,
        backbone: StoredBackbone | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        embed_dim = config.decoder.embed_dim
        self.backbone: Backbone | StoredBackbone = backbone or _build(config.backbone, load_weights=load_weights)
        self.context: ContextEncoder | None = None
        self.summarise_context: nn.Linear | None = None
        if config.context.encoder != "none":
            self.context = ContextEncoder(
                config.context,
                fields or ContextFields(),
                vocab_size=vocab_size,
                embed_dim=embed_dim,
                load_weights=load_weights,
            )
        fusion = build_fusion(config, region_dim=self.backbone.num_channels)
        self.decoder = Decoder(
            vocab_size,
            fusion,
            embed_dim=embed_dim,
            hidden_dim=config.decoder.hidden_dim,
            dropout=config.decoder.dropout,
        )
        self.summarise_image = nn.Sequential(nn.Linear(self.backbone.num_channels, embed_dim), nn.LayerNorm(embed_dim))
        if self.context is not None:
            self.summarise_context = nn.Linear(embed_dim, embed_dim)
        self.dropout = Dropout(config.decoder.dropout)
        channels = self.backbone.num_channels
        self.labels = None
        if labels:
            self.labels = LabelHead(
                channels, labels, dropout=config.decoder.dropout, lists=label_lists, pooling=config.label_pooling
            )
        self.summarise_labels = None
        if config.reads_labels:
            if self.labels is None:
                raise UserError(
                    "model.model.reads_labels is true, and there is no label head to read: name labels in "
                    "data.fields.labels and set model.optim.label_weight above 0, or leave reads_labels out."
                )
            self.summarise_labels = nn.Linear(self.labels.num_classes, embed_dim)

    def encode(
        self,
        *,
        images: Tensor | None = None,
        regions: Tensor | None = None,
        cells: Tensor | None = None,
        view_mask: Tensor | None = None,
        context: ContextBatch | None = None,
    ) -> Memory:
        """Everything that is computed once per example.

        Args:
            images: normalised, (B, V, 3, H, W); or
            regions: the backbone's output for them, (B, V * h * w, C), from the feature cache; or
            cells: the output of the backbone's frozen layers, (B, V * h' * w', c), see ``Backbone.split``.
            view_mask: True for views that exist, (B, V). None: all.
            context: None where the model has no context encoder or nothing is known.
        """
        if regions is None:
            regions = self.regions(images=images, cells=cells, view_mask=view_mask)
        regions = regions.to(self.decoder.bias.dtype)
        if not self.config.sees_image:
            regions = torch.zeros_like(regions)
        batch = regions.shape[0]
        region_mask = None
        if view_mask is not None and view_mask.shape[1] > 1:
            region_mask = view_mask.repeat_interleave(regions.shape[1] // view_mask.shape[1], 1)
        pooled = mean_of(regions, region_mask)
        summary = self.summarise_image(pooled)
        found = None
        if self.labels is not None:
            found = self.labels(regions, region_mask)
            if self.summarise_labels is not None:
                summary = summary + self.summarise_labels(self.labels.readings(found).to(summary.dtype))
        fusion = self.decoder.fusion
        visual = fusion.compress_regions(regions, self.backbone.grid)
        if self.context is not None:
            if context is None:
                empty = torch.zeros(batch, 0, dtype=torch.long, device=regions.device)
                fields = self.context.fields
                context = ContextBatch(
                    empty,
                    empty.bool(),
                    regions.new_full((batch, len(fields.numbers)), torch.nan),
                    empty.new_full((batch, len(fields.categories)), -1),
                )
            assert self.summarise_context is not None
            encoded, context_mask = self.context(context)
            summary = summary + self.summarise_context(mean_of(encoded, context_mask))
            latents = fusion.compress_context(encoded)
        else:
            latents, context_mask = summary.new_zeros(batch, 0, fusion.latent_dim), None
        return Memory(
            visual,
            region_mask,
            latents,
            context_mask,
            self.dropout(summary),
            pooled,
            found,
            visual_keys=fusion.region_keys(visual, self.backbone.grid),
            context_keys=fusion.context_keys(latents),
        )

    def regions(
        self, *, images: Tensor | None = None, cells: Tensor | None = None, view_mask: Tensor | None = None
    ) -> Tensor:
        """Images or cells, as :meth:`encode` takes them, to regions (B, V * h * w, C).

        Those of missing views are 0, and no batch statistics see them.
        """
        if cells is not None:
            assert self.backbone.split is not None
            return self.backbone.split.regions_from(cells.to(self.decoder.bias.dtype))
        assert images is not None
        if view_mask is None or images.shape[1] == 1 or bool(view_mask.all()):
            return self.backbone(images)
        seen = self.backbone(images[view_mask].unsqueeze(1))  # (number of images, h * w, C)
        regions = seen.new_zeros(*view_mask.shape, *seen.shape[1:])
        regions[view_mask] = seen
        return regions.flatten(1, 2)


def _build(config: BackboneConfig, *, load_weights: bool) -> Backbone:
    from latentcap.model.backbone import Backbone  # timm takes seconds to import

    return Backbone(config, load_weights=load_weights)


def build_fusion(config: ModelConfig, *, region_dim: int) -> Fusion:
    """The fusion layer of a configuration, with routers where that asks for them."""
    fusion, embed_dim = config.fusion, config.decoder.embed_dim
    sizes: dict[str, Any] = {
        "query_dim": config.decoder.hidden_dim,
        "region_dim": region_dim,
        "text_dim": embed_dim,
        "output_dim": embed_dim,
        "visual_heads": fusion.visual_heads,
        "text_heads": fusion.text_heads,
        "head_dim": config.head_dim,
        "latent_dim": config.latent_dim,
        "latent_dropout": fusion.latent_dropout,
        "max_views": config.max_views,
        "gates": fusion.gates,
        "position": fusion.position,
    }
    if not fusion.routed_top_k:
        return Fusion(**sizes)
    return RoutedFusion(
        **sizes,
        top_k=fusion.routed_top_k,
        shared_heads=fusion.shared_heads,
        route_by=fusion.route_by,
        balance=fusion.balance,
    )
