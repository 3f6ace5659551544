"""Sampled captions, their rewards, and that rewards rise."""

from __future__ import annotations

import pytest
import torch

from latentcap.config import FusionConfig
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.example import Example
from latentcap.metrics.cider import CiderScorer, cider_d
from latentcap.training.rewards import weighed
from latentcap.training.self_critical import SelfCritical, _drawn
from tests.helpers import tiny_captioner

TEXTS = (
    ("a red circle", "the red circle"),
    ("two blue stars", "two stars"),
    ("a large square on the left", "a square"),
)
EXAMPLES = [Example(str(index), (), captions=texts) for index, texts in enumerate(TEXTS)]


def test_single_scores_average_to_the_corpus_score() -> None:
    references = [list(texts) for texts in TEXTS]
    hypotheses = ["a red circle", "two green stars", "square"]
    scorer = CiderScorer(references)
    mean = sum(scorer.score(text, index) for index, text in enumerate(hypotheses)) / 3
    assert mean == pytest.approx(cider_d(hypotheses, references))
    assert scorer.score("a red circle", 0) > scorer.score("a red circle", 1)


def test_samples_end_and_are_padded() -> None:
    captioner = tiny_captioner()
    critic = SelfCritical(EXAMPLES, captioner.tokenizer, samples=4, max_length=6)
    decoder = captioner.model.decoder.train()
    memory = captioner.model.encode(regions=torch.randn(3, 4, captioner.model.backbone.num_channels))
    tokens = critic.sample(decoder, memory)
    assert decoder.training
    assert tokens.shape[:2] == (3, 4)
    assert tokens.shape[2] <= 8
    for caption in tokens.flatten(0, 1).tolist():
        assert caption[0] == captioner.tokenizer.bos_id
        assert caption.count(captioner.tokenizer.eos_id) == 1
        end = caption.index(captioner.tokenizer.eos_id)
        assert set(caption[end + 1 :]) <= {captioner.tokenizer.pad_id}
        assert not {0, 1, 3} & set(caption[1:end])


def test_words_are_drawn_as_often_as_they_are_likely() -> None:
    torch.manual_seed(0)
    likely = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    shares = _drawn(likely.expand(3, 4000, 6)).flatten().bincount(minlength=6) / 12000
    torch.testing.assert_close(shares, likely, atol=0.02, rtol=0)
    assert not shares[likely == 0].any()


def test_breaking_off_earns_less() -> None:
    captioner = tiny_captioner()
    critic = SelfCritical(EXAMPLES, captioner.tokenizer, samples=2, max_length=8)
    tokenizer = captioner.tokenizer
    whole, cut = (
        tokenizer.encode_caption(text, 10) for text in ("a large square on the left", "a large square on the")
    )
    tokens = torch.zeros(1, 2, 8, dtype=torch.long)
    tokens[0, 0, : len(whole)], tokens[0, 1, : len(cut)] = torch.tensor(whole), torch.tensor(cut)
    rewards = critic.reward(tokens, torch.tensor([2]))
    assert rewards[0, 0] > rewards[0, 1] > 0


def test_rewards_are_weighed_and_cider_counts_in_full() -> None:
    """A sentence that fits everywhere must not earn what one about the image does."""
    captioner = tiny_captioner()
    tokenizer, index = captioner.tokenizer, torch.tensor([2])
    tokens = torch.zeros(1, 2, 9, dtype=torch.long)
    for row, text in enumerate(("a large square on the left", "a square")):
        ids = tokenizer.encode_caption(text, 10)
        tokens[0, row, : len(ids)] = torch.tensor(ids)

    def reward(**settings: dict[str, float]) -> torch.Tensor:
        return SelfCritical(EXAMPLES, tokenizer, samples=2, max_length=8, **settings).reward(tokens, index)

    cider, rouge, meteor = (reward(rewards={name: 1.0}) for name in ("CIDEr-D", "ROUGE-L", "METEOR"))
    assert cider.max() > 1  # of 10
    assert max(rouge.max(), meteor.max()) <= 1
    mixed = reward(rewards={"CIDEr-D": 1.0, "ROUGE-L": 0.5, "METEOR": 2.0})
    torch.testing.assert_close(mixed, cider + 0.5 * rouge + 2 * meteor)
    torch.testing.assert_close(reward(), cider + 2 * meteor)


def test_training_raises_the_reward() -> None:
    captioner = tiny_captioner()
    model = captioner.model
    critic = SelfCritical(EXAMPLES, captioner.tokenizer, samples=16, max_length=7)
    regions, index = torch.randn(3, 4, model.backbone.num_channels), torch.arange(3)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 5e-3)
    rewards = []
    for _ in range(60):
        loss, reward = critic.loss(model.decoder, model.encode(regions=regions), index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rewards.append(float(reward))
    assert sum(rewards[-5:]) > 2 * sum(rewards[:5])


def test_the_balance_loss_of_head_routers_is_added() -> None:
    """With equal rewards for all samples nothing but the balance is left to learn, and it reaches the routers."""
    captioner = tiny_captioner(fusion=FusionConfig(4, 4, routed_top_k=1, balance="loss"))
    model = captioner.model.train()
    critic = SelfCritical(EXAMPLES, captioner.tokenizer, samples=2, max_length=6)
    critic.reward = lambda tokens, index: torch.ones(tokens.shape[:2])  # type: ignore[method-assign]
    memory = model.encode(regions=torch.randn(3, 4, model.backbone.num_channels))
    loss, _ = critic.loss(model.decoder, memory, torch.arange(3))
    assert loss > 0
    loss.backward()
    router = model.decoder.fusion.visual_router
    assert router is not None
    assert router.score.weight.grad is not None
    assert router.score.weight.grad.abs().sum() > 0


def test_findings_are_rewarded_and_rare_ones_more() -> None:
    texts = ("no pneumothorax . the lungs are clear .", "small left effusion .", "cardiomegaly .", "lungs are clear .")
    tokenizer = CaptionTokenizer.train(texts, min_frequency=1, sentences=True)
    examples = [Example(str(index), (), captions=(text,)) for index, text in enumerate((*texts, "heart enlarged ."))]
    score = weighed({"CheXpert": 1.0}, examples, tokenizer)
    effusion, heart, clear = (tokenizer.encode(texts[place]) for place in (1, 2, 3))
    assert score(clear, 0) == 1.0, "nothing is found in either, in other words"
    assert score(effusion, 1) == 1.0
    assert score(clear, 1) == score(heart, 1) == 0.0
    both = [*effusion, *heart]
    assert 0 < score(both, 2) < score(both, 1) < 1, "the rarer finding is missed the most"
