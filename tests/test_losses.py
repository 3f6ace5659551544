import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from latentcap.config import FusionConfig
from latentcap.model.caption_model import CaptionModel
from latentcap.model.decoder import Decoder
from latentcap.model.routing import HeadRouter
from latentcap.training import losses
from latentcap.training.losses import next_word_loss
from latentcap.training.optim import OptimConfig
from tests.helpers import tiny_captioner, tiny_config


def captions(generator: torch.Generator, *, examples: int = 4) -> Tensor:
    """Two of each example, of 1 to 9 words, from <bos> to <eos>: (B, 2, 11)."""
    tokens = torch.randint(4, 20, (examples, 2, 11), generator=generator)
    lengths = torch.randint(1, 10, (examples, 2, 1), generator=generator)
    return tokens * (torch.arange(11) <= lengths)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_words(smoothing: float) -> None:
    captioner = tiny_captioner()
    model = captioner.model.eval()
    memory = model.encode(images=torch.randn(4, 1, 3, 64, 64))
    for seed in range(5):
        tokens = captions(torch.Generator().manual_seed(seed))
        inputs, targets = tokens[..., :-1], tokens[..., 1:]
        logits = model.decoder.logits(model.decoder(inputs, memory)[0])[targets != 0]
        expected = cross_entropy(logits, targets[targets != 0], label_smoothing=smoothing)
        found, _ = next_word_loss(model.decoder, inputs, targets, memory, smoothing=smoothing)
        torch.testing.assert_close(found, expected)
        ours, theirs = (torch.autograd.grad(loss, model.decoder.embedding.weight)[0] for loss in (found, expected))
        torch.testing.assert_close(ours, theirs)


def test_words_are_scored_in_few_numbers_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN compiles kernels for each number, and keeps them: the memory of a training grew with every batch."""
    model = tiny_captioner().model.eval()
    memory = model.encode(images=torch.randn(16, 1, 3, 64, 64))
    rows, words, original = set(), set(), Decoder.logits

    def counted(self: Decoder, hidden: Tensor) -> Tensor:
        rows.add(len(hidden))
        return original(self, hidden)

    monkeypatch.setattr(Decoder, "logits", counted)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(15):
            tokens = captions(generator, examples=16)
            words.add(int((tokens[..., 1:] != 0).sum()))
            next_word_loss(model.decoder, tokens[..., :-1], tokens[..., 1:], memory)
    assert len(words) >= 8
    assert len(rows) <= 6


def test_a_process_without_captions_goes_through_the_decoder_as_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their routers add up loads over all processes, and would wait for this one."""
    monkeypatch.setattr(losses, "together", lambda: True)
    fusion = FusionConfig(visual_heads=3, text_heads=1, routed_top_k=1, route_by="query")
    model = CaptionModel(tiny_config(fusion=fusion), vocab_size=30, labels={"plane": ["a", "b"]}).train()
    counts: list[int] = []
    monkeypatch.setattr(HeadRouter, "_balance", lambda self, chosen, routed, counted: counts.append(int(counted.sum())))
    memory = model.encode(images=torch.randn(2, 1, 3, 64, 64))
    loss, _ = losses.training_loss(
        model,
        memory,
        torch.ones(2, 1, 1, dtype=torch.long),  # "<bos>" alone
        labels=[{"plane": "a"}, {"plane": "b"}],
        settings=OptimConfig(label_weight=1.0),
        progress=0.0,
    )
    loss.backward()
    assert counts == [0]
    assert model.decoder.embedding.weight.grad is not None
    assert torch.isfinite(loss)
