"""What the sweep compares: one thing changed at a time, around eight heads split 4 + 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import yaml

from latentcap.in_the_box import find_recipe

STUDIES = ("heads", "split", "latent", "dropout", "routing")
HEADS = (1, 2, 4, 6, 8, 12)
SPLITS = ((8, 0), (6, 2), (4, 4), (2, 6), (0, 8))
LATENTS = (0.5, 1, 2, 4)  # multiples of embed_dim / heads
DROPOUTS = (0.0, 0.1, 0.2, 0.3)
ROUTERS = ((0, "example", "bias"), (1, "example", "bias"), (1, "query", "bias"), (1, "query", "loss"))
EMBED_DIM = 512  # the default of DecoderConfig


@dataclass(frozen=True)
class Variant:
    """One setting of the fusion layer, trained once for each seed. Studies share what they have in common."""

    visual: int = 4
    text: int = 4
    latent: float = 1.0
    dropout: float = 0.1
    top_k: int = 0
    route_by: str = "example"
    balance: str = "bias"

    @property
    def name(self) -> str:
        routed = f", 1+{self.top_k} of {self.visual} by {self.route_by}, {self.balance}" if self.top_k else ""
        return f"{self.visual}+{self.text}, latent x{self.latent:g}, dropout {self.dropout:g}{routed}"

    @property
    def folder(self) -> str:
        routed = f"_top{self.top_k}_{self.route_by}_{self.balance}" if self.top_k else ""
        return f"{self.visual}+{self.text}_latent{self.latent:g}_dropout{self.dropout:g}{routed}"

    def overrides(self, embed_dim: int) -> dict[str, Any]:
        """The settings of ``FusionConfig``. Sizes are multiples of 4, which the position code needs."""
        size = max(4, round(embed_dim / (self.visual + self.text) / 4) * 4)
        return {
            "visual_heads": self.visual,
            "text_heads": self.text,
            "head_dim": size,
            "latent_dim": max(4, round(size * self.latent / 4) * 4),
            "latent_dropout": self.dropout,
            "routed_top_k": self.top_k,
            "route_by": self.route_by,
            "balance": self.balance,
        }


def study(name: str) -> list[Variant]:
    """The variants that one study compares, in the order of its table."""
    return {
        "heads": [Variant(count - count // 2, count // 2) for count in HEADS],
        "split": [Variant(visual, text) for visual, text in SPLITS],
        "latent": [Variant(latent=float(multiple)) for multiple in LATENTS],
        "dropout": [Variant(dropout=rate) for rate in DROPOUTS],
        "routing": [Variant(top_k=k, route_by=by, balance=balance) for k, by, balance in ROUTERS],
    }[name]


def variants(studies: Sequence[str]) -> list[Variant]:
    """Every variant of the studies, once."""
    return list(dict.fromkeys(variant for name in studies for variant in study(name)))


def embed_dim(arguments: Sequence[str]) -> int:
    """``model.model.decoder.embed_dim`` as arguments of ``train fit`` set it. Raises UserError for a bad recipe."""
    found, key = EMBED_DIM, "--model.model.decoder.embed_dim"
    joined = [part for argument in arguments for part in argument.split("=", 1)]
    for name, value in pairwise(joined):
        if name == key:
            found = int(value)
        elif name in ("--config", "-c"):
            node: Any = yaml.safe_load(find_recipe(value).read_text(encoding="utf-8"))
            for part in ("model", "model", "decoder"):
                node = node.get(part) if isinstance(node, dict) else None
            found = (node or {}).get("embed_dim", found)
    return found
