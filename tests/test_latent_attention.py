"""The absorbed form against the expanded one, and both against transformers' DeepSeek-V2 attention."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from latentcap.model import latent_attention
from latentcap.model.latent_attention import COPIED, LatentAttention
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


@pytest.mark.parametrize("memories", ["shared", "both", "own"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("keyed", [True, False])
def test_all_forms_agree_in_outputs_and_gradients(memories: str, masked: bool, keyed: bool) -> None:
    """With maps, by the fused kernel without, and expanded; with keys that are what is read, and that are not."""
    layer = attention()
    given = {name: value.detach() for name, value in inputs(layer).items()}
    if memories == "shared":
        del given["own"], given["own_mask"]
    if memories == "own":
        given |= {"shared": given["shared"][:, :0], "shared_mask": given["shared_mask"][:, :0]}
    if not masked:
        given = {name: value for name, value in given.items() if "mask" not in name}
    if keyed:
        places = {f"{name}_keys": given[name] for name in ("shared", "own") if name in given}
        given |= {name: value + torch.randn(value.shape[-2:]) for name, value in places.items()}
    found = []
    for form in (layer, partial(layer, maps=False), partial(expanded_attention, layer)):
        leaves = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in given.items()}
        layer.zero_grad()
        outputs, where = form(**leaves)
        assert (where is None) == (form is not layer and "maps" in form.keywords)
        outputs.square().sum().backward()
        weights = (layer.query.weight, layer.up_key, layer.up_value, *leaves.values())
        found.append([outputs, *(value.grad for value in weights if value.grad is not None and value.numel())])
    for absorbed, fused, expanded in zip(*found, strict=True):
        torch.testing.assert_close(fused, absorbed, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(absorbed, expanded, rtol=1e-4, atol=1e-5)


def test_a_long_context_is_not_copied_for_each_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, sizes = attention(), []
    original = latent_attention.scaled_dot_product_attention

    def counted(queries: torch.Tensor, keys: torch.Tensor, *more: torch.Tensor, **settings: object) -> torch.Tensor:
        sizes.append(keys.shape[:3].numel())
        return original(queries, keys, *more, **settings)

    monkeypatch.setattr(latent_attention, "scaled_dot_product_attention", counted)
    state, own = torch.randn(1, 3, 4, 16), torch.randn(1, 3, 4, 12)
    for length, copied in ((COPIED, [3 * (COPIED + 4)]), (COPIED + 1, [])):
        sizes.clear()
        given = {"shared": torch.randn(1, length, 12), "own": own}
        outputs, where = layer(state, **given, maps=False)
        assert where is None
        assert sizes == copied
        torch.testing.assert_close(outputs, layer(state, **given)[0], rtol=1e-4, atol=1e-5)


def test_fused_products_in_bfloat16_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = attention()
    given = inputs(layer)
    exact, _ = layer(**given, maps=False)
    monkeypatch.setattr(latent_attention, "product_dtype", lambda device: torch.bfloat16)
    near, _ = layer(**given, maps=False)
    assert near.dtype == torch.bfloat16
    torch.testing.assert_close(near.float(), exact, rtol=0.05, atol=0.05)


def test_products_are_in_the_trainings_precision_where_matrices_of_it_are_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for amx, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert latent_attention.product_dtype("cpu") == torch.float32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert latent_attention.product_dtype("cpu") == expected


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
