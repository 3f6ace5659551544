"""The decoder for captioning against the one that is trained: the same scores, attention and captions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from latentcap.config import ContextConfig, DecoderConfig, FusionConfig
from latentcap.data.batches.context import ContextBatch
from latentcap.inference.folded_decoder import WIDTH, FoldedDecoder, fold_decoder
from latentcap.model.caption_model import CaptionModel
from latentcap.model.decoder import Decoder
from latentcap.model.fusion import Memory
from tests.helpers import tiny_config
from tests.test_decoder import LAYERS

VOCAB = 23


def model(**changes: object) -> CaptionModel:
    return CaptionModel(tiny_config(**changes), vocab_size=VOCAB).eval()


def memory_of(net: CaptionModel, batch: int = 3, length: int = 4) -> Memory:
    regions = torch.randn(batch, net.backbone.grid[0] * net.backbone.grid[1], net.backbone.num_channels)
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[0, 1:] = False
    context = ContextBatch(
        torch.randint(4, VOCAB, (batch, length)), mask, torch.zeros(batch, 0), torch.zeros(batch, 0, dtype=torch.long)
    )
    return net.encode(regions=regions, context=context if net.context is not None else None)


@pytest.mark.parametrize("heads", [(2, 2), (4, 0), (0, 4), (1, 3)])
@pytest.mark.parametrize("context", ["embedding", "none"])
@pytest.mark.parametrize("layer", LAYERS)
@torch.inference_mode()
def test_steps_are_those_of_the_trained_decoder(heads: tuple[int, int], context: str, layer: dict[str, Any]) -> None:
    net = model(fusion=FusionConfig(*heads, **layer), context=ContextConfig(encoder=context))
    net.decoder.fusion.head_gate.copy_(torch.rand(sum(heads)))
    net.decoder.bias.normal_()
    memory, parents = memory_of(net), torch.tensor([[0, 0], [1, 0], [1, 1]])
    plain, fast = net.decoder, FoldedDecoder(net.decoder, torch.float32)
    states = [decoder.start(memory).reorder(torch.zeros_like(parents)) for decoder in (plain, fast)]
    for _ in range(5):
        tokens = torch.randint(0, VOCAB, parents.shape)
        (logits, one, looked), (found, other, seen) = (
            decoder.step(tokens, memory, state) for decoder, state in zip((plain, fast), states, strict=True)
        )
        torch.testing.assert_close(found[..., :VOCAB], logits, rtol=1e-4, atol=1e-5)
        for expected, given in ((looked.visual, seen.visual), (looked.text, seen.text)):
            assert (expected is None) == (given is None)
            if expected is not None:
                torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
        if looked.query_gate is not None and seen.query_gate is not None:
            torch.testing.assert_close(seen.query_gate, looked.query_gate, rtol=1e-4, atol=1e-5)
        assert (looked.query_gate is None) == (seen.query_gate is None)
        without, _, nothing = fast.step(tokens, memory, states[1], maps=False)
        torch.testing.assert_close(without[..., :VOCAB], logits, rtol=1e-4, atol=1e-5)
        assert nothing.visual is nothing.text is None
        states = [one.reorder(parents), other.reorder(parents)]
    kept = torch.tensor([0, 2])
    rows = [state.select(kept) for state in states]
    (logits, _, _), (found, _, _) = (
        decoder.step(tokens[kept], memory.select(kept), state)
        for decoder, state in zip((plain, fast), rows, strict=True)
    )
    torch.testing.assert_close(found[..., :VOCAB], logits, rtol=1e-4, atol=1e-5)


def test_hidden_states_of_another_size_than_the_embedding() -> None:
    net = model(decoder=DecoderConfig(embed_dim=16, hidden_dim=24))
    memory, tokens = memory_of(net), torch.tensor([[3], [4], [5]])
    with torch.inference_mode():
        fast = FoldedDecoder(net.decoder, torch.float32)
        expected = net.decoder.step(tokens, memory, net.decoder.start(memory))[0]
        torch.testing.assert_close(
            fast.step(tokens, memory, fast.start(memory))[0][..., :VOCAB], expected, rtol=1e-4, atol=1e-5
        )


def test_bfloat16_is_near() -> None:
    net = model()
    memory, tokens = memory_of(net), torch.tensor([[3], [4], [5]])
    with torch.inference_mode():
        fast = FoldedDecoder(net.decoder, torch.bfloat16)
        expected = net.decoder.step(tokens, memory, net.decoder.start(memory))[0]
        found = fast.step(tokens, memory, fast.start(memory))[0]
    assert found.dtype == torch.float32
    assert found.shape[-1] % WIDTH == 0
    assert (found[..., VOCAB:] == -torch.inf).all()
    torch.testing.assert_close(found[..., :VOCAB], expected, rtol=0.02, atol=0.02)


def test_routed_heads_are_left_to_the_trained_decoder() -> None:
    net = model(fusion=FusionConfig(4, 4, routed_top_k=1))
    assert isinstance(fold_decoder(net.decoder, torch.float32), Decoder)
