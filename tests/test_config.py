"""Settings that do not fit are refused with what does."""

from __future__ import annotations

import pytest

from latentcap.config import DecoderConfig, FusionConfig, ModelConfig
from latentcap.data.errors import UserError


def test_defaults_follow_what_was_measured() -> None:
    config = ModelConfig()
    assert (config.fusion.visual_heads, config.fusion.text_heads) == (4, 4)
    assert config.latent_dim == 2 * config.head_dim == config.decoder.embed_dim // 4
    assert config.fusion.gates == "heads"
    assert config.fusion.latent_dropout == 0.1


def test_a_dictionary_round_trip() -> None:
    config = ModelConfig(fusion=FusionConfig(3, 3, latent_dim=48, head_dim=64))
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("fusion", "decoder", "message"),
    [
        ({"visual_heads": 3, "text_heads": 4}, {}, "does not split into 7 heads.*511"),
        ({"visual_heads": 0, "text_heads": 0}, {}, "at least one head"),
        ({"visual_heads": -1}, {}, "0 or more"),
        ({"latent_dim": 30}, {}, "multiple of 4.*32"),
        ({"latent_dim": 0}, {}, "1 or more"),
        ({"latent_dropout": 1.0}, {}, "below 1"),
        ({}, {"embed_dim": 0}, "1 or more"),
    ],
)
def test_sizes_that_do_not_fit(fusion: dict[str, int], decoder: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(fusion=FusionConfig(**fusion), decoder=DecoderConfig(**decoder))  # type: ignore[arg-type]


def test_unknown_settings_get_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"fusion.visual_head'. Did you mean 'visual_heads'"):
        ModelConfig.from_dict({"fusion": {"visual_head": 4}})
    with pytest.raises(UserError, match="Did you mean 'decoder'"):
        ModelConfig.from_dict({"decodr": {}})
