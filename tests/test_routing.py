"""Routed heads: the skipping path against the dense one, what is skipped, balance, and decoding."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from latentcap.config import FusionConfig, ModelConfig
from latentcap.data.errors import UserError
from latentcap.model.caption_model import CaptionModel
from latentcap.model.chosen_heads import ChosenHeads
from latentcap.model.fusion import Memory
from latentcap.model.routing import BIAS_STEP, LOSS_WEIGHT, HeadRouter
from tests.attention_oracle import teacher_forced
from tests.helpers import tiny_captioner, tiny_config
from tests.test_decoder import memory_of

VOCAB = 23


def routed(by: str = "example", *, heads: tuple[int, int] = (4, 4), **settings: object) -> CaptionModel:
    torch.manual_seed(0)
    fusion = FusionConfig(*heads, **{"routed_top_k": 1, "route_by": by, **settings})  # type: ignore[arg-type]
    net = CaptionModel(tiny_config(fusion=fusion), vocab_size=VOCAB)
    for router in (net.decoder.fusion.visual_router, net.decoder.fusion.text_router):
        if router is not None:
            torch.nn.init.normal_(router.score.weight)
    return net.eval()


def inputs(net: CaptionModel) -> tuple[Tensor, Memory]:
    tokens = torch.randint(1, VOCAB, (5, 2, 7))
    tokens[0, 0, 4:] = 0
    return tokens, memory_of(net, batch=5)


def test_each_row_is_computed_with_its_own_heads() -> None:
    heads = torch.tensor([[[[0, 2], [0, 1]], [[1, 2], [0, 2]]]])  # (1, 2, 2, 2): four queries, three sets
    chosen = ChosenHeads(heads, torch.ones(heads.shape), num_heads=3)
    rows, weight = torch.randn(1, 2, 2, 5), torch.randn(3, 5)
    sizes: list[int] = []

    def product(part: Tensor, chosen: Tensor) -> Tensor:
        sizes.append(len(part))
        return torch.einsum("nc,rc->nr", part, chosen)

    found = chosen.apply(product, rows, weight)
    torch.testing.assert_close(found, (rows @ weight.T).gather(-1, heads))
    assert sorted(sizes) == [1, 1, 2]
    spread = chosen.spread(found)
    assert spread.shape == (1, 2, 2, 3)
    torch.testing.assert_close(spread.gather(-1, heads), found)
    assert (spread != 0).sum() == found.numel()


@pytest.mark.parametrize("by", ["example", "query"])
@pytest.mark.parametrize(("heads", "shared", "top_k"), [((4, 4), 1, 1), ((4, 4), 0, 2), ((6, 2), 1, 2), ((0, 4), 1, 1)])
def test_skipping_equals_dense_in_values_and_gradients(
    by: str, heads: tuple[int, int], shared: int, top_k: int
) -> None:
    net = routed(by, heads=heads, shared_heads=shared, routed_top_k=top_k, head_dim=8, latent_dim=8)
    tokens, memory = inputs(net)
    results = []
    for form in (net.decoder, partial(teacher_forced, net.decoder)):
        net.zero_grad()
        hidden, attention = form(tokens, memory)
        hidden.square().sum().backward(retain_graph=True)
        gradients = {name: p.grad.clone() for name, p in net.decoder.named_parameters() if p.grad is not None}
        results.append((hidden, gradients, attention))
    (skipped, skipped_gradients, attention), (dense, dense_gradients, dense_attention) = results
    torch.testing.assert_close(net.decoder(tokens, memory, maps=False)[0], skipped, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(skipped, dense, rtol=1e-4, atol=1e-5)
    assert skipped_gradients.keys() == dense_gradients.keys()
    for name, gradient in skipped_gradients.items():
        torch.testing.assert_close(gradient, dense_gradients[name], rtol=1e-3, atol=1e-4, msg=name)
    assert any("router" in name for name in skipped_gradients)
    for maps, all_maps in ((attention.visual, dense_attention.visual), (attention.text, dense_attention.text)):
        if maps is not None and all_maps is not None:
            assert maps.shape == all_maps.shape
            on = maps.sum(-1) > 0.5
            torch.testing.assert_close(maps[on], all_maps[on], rtol=1e-4, atol=1e-5)
            assert not maps[~on].any()


@pytest.mark.parametrize("by", ["example", "query"])
def test_heads_that_are_not_chosen_are_not_computed(by: str) -> None:
    net = routed(by)
    tokens, memory = inputs(net)
    visual = net.decoder.fusion.visual
    assert visual is not None
    shapes = []
    visual.read = lambda queries, shared, original=visual.read, **masks: (  # type: ignore[method-assign, assignment, misc]
        shapes.append(queries.shape) or original(queries, shared, **masks)  # type: ignore[func-returns-value]
    )
    _, attention = net.decoder(tokens, memory)
    assert [tuple(shape[:4]) for shape in shapes] == [(5, 2, 7, 2)]  # two heads of four
    assert attention.visual is not None
    on = attention.visual.sum(-1) > 0.5  # (B, G, T, H)
    assert on[..., 0].all()  # shared
    assert (on.sum(-1) == 2).all()
    assert attention.gate is not None
    assert torch.equal(attention.gate[..., :4] > 0, on)
    if by == "example":
        assert torch.equal(on, on[:, :1, :1].expand_as(on))
    # A chosen head that breaks is heard, one that nobody chose is not.
    chosen = on.flatten(0, 2).any(0)
    before = net.decoder(tokens, memory)[0]
    with torch.no_grad():
        visual.up_value[~chosen] = torch.nan
    torch.testing.assert_close(net.decoder(tokens, memory)[0], before)


@pytest.mark.parametrize("by", ["example", "query"])
def test_steps_equal_teacher_forcing(by: str) -> None:
    net = routed(by)
    tokens, memory = inputs(net)
    hidden, attention = net.decoder(tokens, memory)
    logits = net.decoder.logits(hidden)
    state = net.decoder.start(memory).reorder(torch.zeros(5, 2, dtype=torch.long))
    for step in range(7):
        stepped, state, looked = net.decoder.step(tokens[:, :, step], memory, state)
        torch.testing.assert_close(stepped, logits[:, :, step], rtol=1e-4, atol=1e-5)
        assert looked.visual is not None
        assert attention.visual is not None
        torch.testing.assert_close(looked.visual[:, :, 0], attention.visual[:, :, step], rtol=1e-4, atol=1e-5)


def test_gate_is_a_second_factor_of_the_routers() -> None:
    net = routed("query")
    tokens, memory = inputs(net)
    full, attention = net.decoder(tokens, memory)
    gate = torch.ones(8, requires_grad=True)
    same = net.decoder(tokens, memory, gate=gate)[0]
    torch.testing.assert_close(same, full)
    same.sum().backward()
    assert gate.grad is not None
    assert attention.gate is not None
    heard = attention.gate.flatten(0, 2).any(0)
    assert torch.equal(gate.grad != 0, heard)
    off = net.decoder(tokens, memory, gate=torch.zeros(5, 1, 1, 8))[0]
    assert not torch.allclose(off, full)


def test_a_router_that_knows_nothing_multiplies_by_one() -> None:
    router = HeadRouter(6, num_heads=5, shared_heads=2, top_k=2, balance="bias")
    torch.nn.init.zeros_(router.score.weight)
    chosen, loss = router(torch.randn(3, 1, 1, 6))
    torch.testing.assert_close(chosen.weights, torch.ones(3, 1, 1, 4))
    assert loss is None
    assert chosen.heads[..., :2].unique().tolist() == [0, 1]


def test_biases_move_by_a_fixed_step_towards_balance_in_training_only() -> None:
    torch.manual_seed(0)
    router = HeadRouter(6, num_heads=4, shared_heads=1, top_k=1, balance="bias")
    torch.nn.init.zeros_(router.score.weight)
    inputs = torch.randn(8, 2, 3, 6)
    router.eval()(inputs)
    with torch.no_grad():
        router.train()(inputs)  # as guesses of scheduled sampling do
    assert not router.bias.any()
    before, _ = router(inputs)
    used = torch.bincount(before.heads[..., 1].flatten() - 1, minlength=3)
    assert used.max() == 48
    torch.testing.assert_close(router.bias, BIAS_STEP * (48 / 3 - used).sign())
    loads = torch.zeros(3)
    for _ in range(60):
        chosen, _ = router(inputs)
        loads += torch.bincount(chosen.heads[..., 1].flatten() - 1, minlength=3)
        torch.testing.assert_close(chosen.weights, torch.ones_like(chosen.weights))  # selection only
    assert loads.min() / loads.sum() > 0.25


def test_load_is_that_of_words_and_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    router = HeadRouter(6, num_heads=3, shared_heads=0, top_k=1, balance="bias")
    torch.nn.init.zeros_(router.score.weight)
    seen: list[Tensor] = []

    def other_process(load: Tensor) -> None:
        seen.append(load.clone())
        load += torch.tensor([0.0, 9.0, 0.0])

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", other_process)
    written = torch.tensor([[[True, True, False]]])
    chosen, _ = router(torch.zeros(1, 1, 3, 6), written)
    expected = torch.bincount(chosen.heads[written].flatten(), minlength=3).float()
    assert torch.equal(seen[0], expected)
    assert seen[0].sum() == 2
    total = expected + torch.tensor([0.0, 9.0, 0.0])
    torch.testing.assert_close(router.bias, BIAS_STEP * (total.mean() - total).sign())


def test_the_loss_is_least_in_balance_and_reaches_the_router() -> None:
    router = HeadRouter(3, num_heads=3, shared_heads=0, top_k=1, balance="loss")
    with torch.no_grad():
        router.score.weight.copy_(torch.eye(3) * 4)
    even, odd = torch.eye(3).view(3, 1, 1, 3), torch.eye(3)[:1].expand(3, 3).reshape(3, 1, 1, 3)
    (_, balanced), (_, one_sided) = router(even), router(odd)
    assert balanced is not None
    assert one_sided is not None
    torch.testing.assert_close(balanced, torch.tensor(LOSS_WEIGHT))
    assert one_sided > 2 * balanced
    one_sided.backward()
    assert router.score.weight.grad is not None
    assert not router.bias.any()


def test_attention_carries_the_loss_while_training() -> None:
    net = routed("query", balance="loss")
    tokens, memory = inputs(net)
    assert net.decoder(tokens, memory)[1].balance_loss is None
    loss = net.train().decoder(tokens, memory)[1].balance_loss
    assert loss is not None
    assert loss > 0


def test_a_routed_model_captions_alike_from_its_folder(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image

    from latentcap.captioner import Captioner

    captioner = tiny_captioner(fusion=FusionConfig(4, 4, routed_top_k=1, route_by="query"))
    captioner.model.decoder.fusion.visual_router.bias += 0.5  # type: ignore[union-attr, operator]
    captioner.save(tmp_path, half=False)
    loaded = Captioner.from_pretrained(tmp_path, dtype=torch.float32)
    image = Image.new("RGB", (64, 64), "red")
    one, two = (entry.caption([image], return_attention=True)[0] for entry in (captioner, loaded))
    assert one.text == two.text
    assert two.visual_attention is not None
    assert two.visual_attention.shape[1] == 4
    assert ((two.visual_attention.flatten(2).sum(-1) > 0.5).sum(1) == 2).all()


def test_old_configurations_have_no_router() -> None:
    config = ModelConfig.from_dict({"fusion": {"visual_heads": 4, "text_heads": 4}})
    assert config.fusion.routed_top_k == 0
    net = CaptionModel(tiny_config(), vocab_size=VOCAB)
    assert not any("router" in name for name in net.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"routed_top_k": -1}, "0 or more"),
        ({"routed_top_k": 3}, "no head to be skipped"),
        ({"routed_top_k": 1, "route_by": "word"}, "example or query"),
        ({"balance": "luck"}, "bias or loss"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(fusion=FusionConfig(**settings))  # type: ignore[arg-type]


def test_more_heads_than_a_number_has_bits_are_refused() -> None:
    with pytest.raises(UserError, match="at most 62 of a kind"):
        ModelConfig(fusion=FusionConfig(63, 2, routed_top_k=1))
    heads = torch.tensor([[[[3, 61]], [[3, 60]]]])
    found = ChosenHeads(heads, torch.ones(heads.shape), num_heads=62).apply(
        lambda part, chosen: part * chosen.T, torch.ones(1, 2, 1, 1), torch.arange(62.0).unsqueeze(-1)
    )
    assert found.flatten().tolist() == [3, 61, 3, 60]
