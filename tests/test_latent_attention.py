"""The absorbed form against the expanded one, and both against transformers' DeepSeek-V2 attention."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from latentcap.model.latent_attention import LatentAttention
from tests.attention_oracle import expanded_attention


def attention(**changes: int) -> LatentAttention:
    sizes = {"num_heads": 3, "head_dim": 8, "latent_dim": 12} | changes
    return LatentAttention(16, 20, latent_dropout=0.0, **sizes)  # type: ignore[arg-type]


def inputs(layer: LatentAttention) -> dict[str, torch.Tensor]:
    """Two examples, three captions, four steps; five shared positions, four own ones."""
    return {
        "state": torch.randn(2, 3, 4, 16),
        "shared": layer.compress(torch.randn(2, 5, 20), torch.zeros(5, layer.latent_dim)),
        "shared_mask": torch.tensor([[True] * 5, [True, True, False, False, True]]),
        "own": torch.randn(2, 3, 4, layer.latent_dim),
        "own_mask": torch.ones(4, 4, dtype=torch.bool).tril(),
    }


@pytest.mark.parametrize("latent_dim", [4, 8, 12])
@pytest.mark.parametrize("memories", ["shared", "both"])
def test_absorbed_equals_expanded(latent_dim: int, memories: str) -> None:
    layer = attention(latent_dim=latent_dim)
    given = inputs(layer)
    if memories == "shared":
        del given["own"], given["own_mask"]
    absorbed, where = layer(**given)
    expanded, where_expanded = expanded_attention(layer, **given)
    torch.testing.assert_close(absorbed, expanded, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(where, where_expanded, rtol=1e-5, atol=1e-6)


def test_gradients_of_both_forms_agree() -> None:
    layer = attention()
    given = {name: value.detach() for name, value in inputs(layer).items()}
    gradients = []
    for form in (layer, partial(expanded_attention, layer)):
        layer.zero_grad()
        form(**given)[0].square().sum().backward()
        gradients.append([p.grad.clone() for p in (layer.query.weight, layer.up_key, layer.up_value)])  # type: ignore[union-attr]
    for absorbed, expanded in zip(*gradients, strict=True):
        torch.testing.assert_close(absorbed, expanded, rtol=1e-4, atol=1e-5)


def test_masked_positions_get_nothing() -> None:
    layer = attention()
    given = inputs(layer)
    before, where = layer(**given)
    assert where[1, :, :, :, 2:4].abs().max() == 0
    assert where[..., 5:].triu(1).transpose(2, 3).shape  # own part exists
    for step in range(4):
        assert where[:, :, step, :, 5 + step + 1 :].abs().sum() == 0
    torch.testing.assert_close(where.sum(-1), torch.ones(2, 3, 4, 3))
    given["shared"] = given["shared"].clone()
    given["shared"][1, 2:4] = 1e3
    torch.testing.assert_close(layer(**given)[0], before)


def test_captions_share_memory_without_mixing() -> None:
    """Each caption's result is what it gets alone: beams are queries, not copies."""
    layer = attention()
    given = inputs(layer)
    together, _ = layer(**given)
    for place in range(3):
        alone = {**given, "state": given["state"][:, place : place + 1], "own": given["own"][:, place : place + 1]}
        torch.testing.assert_close(layer(**alone)[0][:, 0], together[:, place], rtol=1e-5, atol=1e-6)


def test_probabilities_are_float32_under_autocast() -> None:
    layer = attention()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, where = layer(**inputs(layer))
    assert outputs.dtype == where.dtype == torch.float32


def test_equals_deepseek_attention_of_transformers() -> None:
    """The same weights in DeepSeek-V2's layer, its rotary part silenced, give the same output."""
    from transformers import DeepseekV2Config
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention, DeepseekV2RotaryEmbedding

    size, heads, nope, rope, latent, steps = 24, 3, 8, 4, 12, 6
    config = DeepseekV2Config(
        hidden_size=size,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        q_lora_rank=None,
        kv_lora_rank=latent,
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rope,
        v_head_dim=nope,
        attention_bias=False,
        rms_norm_eps=1e-6,
    )
    config._attn_implementation = "eager"
    theirs = DeepseekV2Attention(config, layer_idx=0).eval()
    ours = LatentAttention(size, size, num_heads=heads, head_dim=nope, latent_dim=latent, latent_dropout=0.0)
    ours.norm.eps = 1e-6
    with torch.no_grad():
        theirs.kv_a_layernorm.weight.uniform_(0.5, 1.5)
        theirs.q_proj.weight.view(heads, nope + rope, size)[:, nope:] = 0
        ups = theirs.kv_b_proj.weight.view(heads, 2 * nope, latent)
        # Their scale counts the rotary part of the head, ours does not.
        queries = theirs.q_proj.weight.view(heads, nope + rope, size)[:, :nope] * math.sqrt(nope / (nope + rope))
        ours.query.weight.copy_(queries.reshape(heads * nope, size))
        ours.down.weight.copy_(theirs.kv_a_proj_with_mqa.weight[:latent])
        ours.norm.weight.copy_(theirs.kv_a_layernorm.weight)
        ours.up_key.copy_(ups[:, :nope])
        ours.up_value.copy_(ups[:, nope:])
        hidden = torch.randn(2, steps, size)
        causal = torch.full((steps, steps), -torch.inf).triu(1)[None, None]
        positions = torch.arange(steps)[None].expand(2, -1)
        rotary = DeepseekV2RotaryEmbedding(config)(hidden, positions)
        expected = theirs(hidden, attention_mask=causal, position_embeddings=rotary, position_ids=positions)[0]
        for form in (ours, partial(expanded_attention, ours)):
            outputs, _ = form(
                hidden.unsqueeze(1),
                torch.zeros(2, 0, latent),
                own=ours.compress(hidden, torch.zeros(steps, latent)).unsqueeze(1),
                own_mask=torch.ones(steps, steps, dtype=torch.bool).tril(),
            )
            torch.testing.assert_close(theirs.o_proj(outputs.squeeze(1).flatten(2)), expected, rtol=1e-4, atol=1e-5)
