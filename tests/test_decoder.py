"""Teacher forcing against single steps, gates, and what text heads may see."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from latentcap.config import ContextConfig, FusionConfig
from latentcap.data.batches.context import ContextBatch, ContextFields
from latentcap.model.caption_model import CaptionModel
from latentcap.model.fusion import Memory
from tests.attention_oracle import teacher_forced
from tests.helpers import tiny_config

VOCAB = 23
LAYERS: tuple[dict[str, Any], ...] = (
    {"gates": "output", "position": "latents"},
    {"gates": "heads", "position": "latents"},
    {"gates": "both", "position": "keys", "latent_dim": 16},
)


def model(**changes: object) -> CaptionModel:
    return CaptionModel(tiny_config(**changes), vocab_size=VOCAB).eval()


def memory_of(net: CaptionModel, batch: int = 3, length: int = 4) -> Memory:
    regions = torch.randn(batch, net.backbone.grid[0] * net.backbone.grid[1], net.backbone.num_channels)
    tokens = torch.randint(4, VOCAB, (batch, length))
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[0] = False  # the first example has no context
    context = ContextBatch(tokens, mask, torch.zeros(batch, 0), torch.zeros(batch, 0, dtype=torch.long))
    return net.encode(regions=regions, context=context if net.context is not None else None)


@pytest.mark.parametrize("heads", [(2, 2), (4, 0), (0, 4), (1, 3)])
@pytest.mark.parametrize("context", ["embedding", "none"])
@pytest.mark.parametrize("layer", LAYERS)
def test_step_equals_teacher_forcing(heads: tuple[int, int], context: str, layer: dict[str, Any]) -> None:
    net = model(fusion=FusionConfig(*heads, **layer), context=ContextConfig(encoder=context))
    memory = memory_of(net)
    tokens = torch.randint(0, VOCAB, (3, 2, 7))
    hidden, attention = net.decoder(tokens, memory)
    without, nothing = net.decoder(tokens, memory, maps=False)
    torch.testing.assert_close(without, hidden, rtol=1e-4, atol=1e-5)
    assert nothing.visual is nothing.text is None
    logits = net.decoder.logits(hidden)
    state = net.decoder.start(memory).reorder(torch.zeros(3, 2, dtype=torch.long))
    for step in range(7):
        stepped, state, looked = net.decoder.step(tokens[:, :, step], memory, state)
        torch.testing.assert_close(stepped, logits[:, :, step], rtol=1e-4, atol=1e-5)
        if attention.visual is not None and looked.visual is not None:
            torch.testing.assert_close(looked.visual[:, :, 0], attention.visual[:, :, step], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_decoder_computes_what_the_equations_say(layer: dict[str, Any]) -> None:
    net = model(fusion=FusionConfig(2, 2, **layer))
    memory = memory_of(net)
    tokens = torch.randint(0, VOCAB, (3, 2, 7))
    torch.testing.assert_close(net.decoder(tokens, memory)[0], teacher_forced(net.decoder, tokens, memory)[0])


def test_the_query_weighs_each_head_beside_the_one_gate() -> None:
    net = model(fusion=FusionConfig(2, 2, gates="heads"))
    memory, tokens = memory_of(net), torch.randint(4, VOCAB, (3, 2, 5))
    hidden, attention = net.decoder(tokens, memory)
    gate = attention.query_gate
    assert gate is not None
    assert gate.shape == (3, 2, 5, 4)
    assert gate.std() > 0
    with torch.no_grad():
        net.decoder.fusion.query_gate.weight.zero_()  # type: ignore[union-attr]
    even, attention = net.decoder(tokens, memory)
    assert (attention.query_gate == 1).all()  # type: ignore[union-attr]
    assert not torch.allclose(even, hidden)
    torch.testing.assert_close(net.decoder(tokens, memory, gate=gate)[0], hidden)


@pytest.mark.parametrize(("position", "same"), [("keys", True), ("latents", False)])
def test_a_position_in_keys_is_not_read_out(position: Any, same: bool) -> None:
    """Regions that look alike give one output, whichever of them a head looks at."""
    net = model(fusion=FusionConfig(4, 0, position=position))
    regions = torch.randn(1, 1, net.backbone.num_channels).expand(-1, 4, -1)
    memory, other = net.encode(regions=regions), net.encode(regions=regions)
    mask = torch.tensor([[True, False, False, False]])
    memory.visual_mask, other.visual_mask = mask, mask.flip(1)
    words, state = torch.zeros(1, 1, 3, net.decoder.fusion.latent_dim), torch.randn(1, 1, 3, 32)
    read, moved = (net.decoder.fusion.attend(state, place, words, causal=True)[0] for place in (memory, other))
    assert torch.allclose(moved, read, atol=1e-5) == same


def test_a_position_in_keys_decides_where_heads_look() -> None:
    net = model(fusion=FusionConfig(2, 2, position="keys"))
    regions = torch.randn(1, 1, net.backbone.num_channels).expand(-1, 4, -1)
    _, attention = net.decoder(torch.full((1, 1, 4), 5), net.encode(regions=regions))
    assert attention.visual is not None
    assert attention.text is not None
    assert attention.visual.std(-1).max() > 1e-3  # of equal regions
    assert attention.text[:, :, -1].std(-1).max() > 1e-3  # of equal words


def test_no_word_sees_a_later_one() -> None:
    net = model()
    memory = memory_of(net)
    tokens = torch.randint(4, VOCAB, (3, 1, 7))
    changed = tokens.clone()
    changed[..., 4:] = 3
    before, after = net.decoder(tokens, memory)[0], net.decoder(changed, memory)[0]
    torch.testing.assert_close(before[:, :, :4], after[:, :, :4])
    assert not torch.allclose(before[:, :, 4:], after[:, :, 4:])


def test_reorder_and_select_follow_the_beams() -> None:
    net = model()
    memory = memory_of(net)
    tokens = torch.randint(4, VOCAB, (3, 2))
    _, state, _ = net.decoder.step(tokens, memory, net.decoder.start(memory).reorder(torch.zeros(3, 2).long()))
    parents = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 0]])
    rows = torch.tensor([2, 0])
    moved = state.reorder(parents).select(rows)
    following = torch.randint(4, VOCAB, (2, 3))
    logits, _, _ = net.decoder.step(following, memory.select(rows), moved)
    for row, example in enumerate(rows.tolist()):
        for beam in range(3):
            alone = state.select(torch.tensor([example])).reorder(parents[example, beam].view(1, 1))
            one, _, _ = net.decoder.step(following[row, beam].view(1, 1), memory.select(torch.tensor([example])), alone)
            torch.testing.assert_close(one[0, 0], logits[row, beam], rtol=1e-4, atol=1e-5)


def test_gate_switches_heads_and_carries_gradients() -> None:
    net = model()
    memory = memory_of(net)
    tokens = torch.randint(4, VOCAB, (3, 2, 5))
    full = net.decoder(tokens, memory)[0]
    torch.testing.assert_close(net.decoder(tokens, memory, gate=torch.ones(4))[0], full)
    off = net.decoder(tokens, memory, gate=torch.tensor([1.0, 0.0, 1.0, 1.0]))[0]
    assert not torch.allclose(off, full)
    # A head that is off does not exist: its weights do not matter.
    with torch.no_grad():
        net.decoder.fusion.visual.up_value[1] += 7  # type: ignore[union-attr, index]
    torch.testing.assert_close(net.decoder(tokens, memory, gate=torch.tensor([1.0, 0.0, 1.0, 1.0]))[0], off)
    gate = torch.ones(3, 1, 1, 4, requires_grad=True)  # one importance per example and head
    net.decoder(tokens, memory, gate=gate)[0].sum().backward()
    assert gate.grad is not None
    assert gate.grad.abs().min() > 0


def test_context_changes_words_and_missing_is_not_zero() -> None:
    fields = ContextFields(numbers={"age": (50.0, 10.0)}, categories={"sex": ["f", "m"]})
    net = CaptionModel(tiny_config(), vocab_size=VOCAB, fields=fields).eval()
    regions = torch.randn(1, net.backbone.grid[0] * net.backbone.grid[1], net.backbone.num_channels)
    empty = torch.zeros(1, 0, dtype=torch.long)

    def hidden(number: float, category: int) -> torch.Tensor:
        context = ContextBatch(empty, empty.bool(), torch.tensor([[number]]), torch.tensor([[category]]))
        return net.decoder(torch.ones(1, 1, 1, dtype=torch.long), net.encode(regions=regions, context=context))[0]

    missing = hidden(float("nan"), -1)
    assert missing.isfinite().all()
    for number, category in ((0.0, -1), (float("nan"), 0), (1.0, 1)):
        assert not torch.allclose(missing, hidden(number, category))
    torch.testing.assert_close(net.decoder(torch.ones(1, 1, 1).long(), net.encode(regions=regions))[0], missing)


def test_views_beyond_an_examples_own_do_not_count() -> None:
    net = CaptionModel(tiny_config(max_views=2), vocab_size=VOCAB).eval()
    cells = net.backbone.grid[0] * net.backbone.grid[1]
    regions = torch.randn(1, 2 * cells, net.backbone.num_channels)
    other = regions.clone()
    other[:, cells:] = 5
    mask = torch.tensor([[True, False]])
    tokens = torch.randint(4, VOCAB, (1, 1, 4))
    one, two = (net.decoder(tokens, net.encode(regions=r, view_mask=mask))[0] for r in (regions, other))
    torch.testing.assert_close(one, two)
    both = net.decoder(tokens, net.encode(regions=other))[0]
    assert not torch.allclose(one, both)
