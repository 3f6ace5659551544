"""Words that the label head sees guide the search: what is found is what an exhaustive search of the same finds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from latentcap.captioner import Captioner
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.errors import UserError
from latentcap.model_folder import read_config
from latentcap.search.config import SearchConfig
from latentcap.search.guidance import Guidance, words_of
from tests.helpers import WORDS, picture, seeing_captioner, tiny_captioner
from tests.search_oracle import Scores, exhaustive, run

IDS, RARITY = [4, 2], [1.3, 2.1]  # words of the oracle's vocabulary; 3 is not known


def guidance(weight: float, batch: int) -> Guidance:
    seen = torch.rand(batch, 2, generator=torch.Generator().manual_seed(1))
    return Guidance(seen, torch.tensor(RARITY), torch.tensor(IDS), weight)


def gained(seen: list[float], words: tuple[int, ...], weight: float) -> tuple[float, float]:
    """What a caption gains on its way, and at the end."""
    worth = dict(zip(IDS, (weight * (p - 0.2) * rare for p, rare in zip(seen, RARITY, strict=True)), strict=True))
    said = [words.count(word) * rare for word, rare in zip(IDS, RARITY, strict=True)]
    true = [p * rare for p, rare in zip(seen, RARITY, strict=True)]
    cosine = sum(a * b for a, b in zip(said, true, strict=True)) / (math.hypot(*said) * math.hypot(*true) or 1)
    return sum(worth[word] for word in {*words} & {*IDS}), 6 * weight * cosine


@pytest.mark.parametrize("weight", [0.5, 4.0])
@pytest.mark.parametrize("length_penalty", [0.0, 0.7])
def test_guided_beams_find_what_an_exhaustive_search_finds(weight: float, length_penalty: float) -> None:
    scores = Scores(4, seed=3)
    config = SearchConfig(beam_size=200, max_length=4, length_penalty=length_penalty)
    guide = guidance(weight, 4)
    found = run(scores, config, gain=guide.gain)
    changed = 0
    for example, (on_the_way, at_the_end) in enumerate(zip(found, guide.ranked(found), strict=True)):
        seen = [(guide.worth / weight / torch.tensor(RARITY) + 0.2)[example, place].item() for place in range(2)]
        plain = exhaustive(scores, example, config)
        gains = [gained(seen, words, weight) for _, words in plain]
        lengths = [(len(words) + 1) ** length_penalty for _, words in plain]
        ways = [score + way / length for (score, _), (way, _), length in zip(plain, gains, lengths, strict=True)]
        ends = [score + end for (score, _), (_, end) in zip(plain, gains, strict=True)]
        for ranks, hypotheses in ((ways, on_the_way), (ends, at_the_end)):
            expected = [words for _, words in sorted(zip(ranks, (words for _, words in plain), strict=True))[:-6:-1]]
            assert [tuple(hypothesis.tokens) for hypothesis in hypotheses[:5]] == expected
            changed += expected[0] != plain[0][1]
        own = {words: score for score, words in plain}
        assert all(
            hypothesis.score == pytest.approx(own[tuple(hypothesis.tokens)], abs=1e-5) for hypothesis in at_the_end
        )
    assert changed  # the guidance says something


def test_scores_are_log_probabilities_with_and_without() -> None:
    captioner = seeing_captioner()
    images = [picture(80 + seed, 70, seed=seed) for seed in range(9)]
    plain, guided = (captioner.caption(images, guidance=weight, num_captions=3) for weight in (0, 2))
    assert [caption.text for caption in plain] != [caption.text for caption in guided]
    for caption in (*plain, *guided):
        assert len(caption.alternatives) == 2
        for each in (caption, *caption.alternatives):
            length = len(each.token_scores) ** captioner.search.length_penalty
            assert each.score == pytest.approx(sum(each.token_scores) / length, abs=1e-5)
            assert max(each.token_scores) <= 0
    assert all(
        [caption.score] + [each.score for each in caption.alternatives]
        == sorted([caption.score] + [each.score for each in caption.alternatives], reverse=True)
        for caption in plain
    )
    alone = [captioner.caption([image], guidance=2, num_captions=3)[0] for image in images]
    assert [caption.text for caption in alone] == [caption.text for caption in guided]


def test_more_of_what_is_seen_is_said() -> None:
    captioner = seeing_captioner()
    images = [picture(80, 70, seed=seed) for seed in range(20)]

    def agreement(weight: float) -> float:
        captions = captioner.caption(images, guidance=weight, beam_size=4, max_length=5)
        head = captioner.model.labels
        assert head is not None
        total = 0.0
        for image, caption in zip(images, captions, strict=True):
            with torch.inference_mode():
                memory = captioner.encode([[captioner.transform(image)]], captioner.collate_context([None]))
                assert memory.labels is not None
                chances = head.probabilities(memory.labels)[0, head.span("words")]
            total += sum(float(chances[head.classes["words"].index(word)]) - 0.2
                         for word in {*caption.tokens} & {*head.classes["words"]})  # fmt: skip
        return total

    assert agreement(0) < agreement(4) <= agreement(20)


def test_models_without_such_words_are_not_guided() -> None:
    images = [picture(seed=seed) for seed in range(3)]
    for captioner in (tiny_captioner(), seeing_captioner()):
        if captioner.model.labels is not None:
            captioner.model.labels.lists = {}  # no label of several values
        plain, guided = (captioner.caption(images, guidance=weight) for weight in (0, 3))
        assert plain == guided
    head = seeing_captioner().model.labels
    assert words_of(head, CaptionTokenizer.train([WORDS], kind="bpe", vocab_size=300)) == {}
    assert len(words_of(head, CaptionTokenizer.train([WORDS]))) == 5  # no kangaroo


@pytest.mark.parametrize("search", [{"sample": True, "seed": 3}, {"beam_size": 4, "beam_groups": 2, "num_captions": 4},
                                    {"required_words": "star", "max_length": 6}, {"beam_size": 1}])  # fmt: skip
def test_with_every_kind_of_search(search: dict[str, object]) -> None:
    captioner = seeing_captioner()
    images = [picture(seed=seed) for seed in range(5)]
    if "sample" in search:
        assert captioner.caption(images, **search) == captioner.caption(images, **search, guidance=0.0)
        with pytest.raises(UserError, match="guidance"):
            captioner.caption(images, **search, guidance=2.0)
        return
    guided = captioner.caption(images, **search, guidance=2.0)
    assert guided != captioner.caption(images, **search, guidance=0.0)
    if "required_words" in search:
        assert all("star" in caption.tokens for caption in guided)
    if "beam_groups" in search:
        assert all(len(caption.alternatives) == 3 for caption in guided)


def test_older_folders_are_not_guided_and_newer_ones_are(tmp_path: Path) -> None:
    captioner = seeing_captioner()
    captioner.save(tmp_path / "new")
    assert read_config(tmp_path / "new")["search"]["guidance"] == 0.5
    assert Captioner.from_pretrained(tmp_path / "new").search == captioner.search
    old = captioner.search.to_dict()
    del old["guidance"]
    assert SearchConfig.from_dict(old).guidance == 0
    with pytest.raises(UserError, match="guidance is -1"):
        SearchConfig(guidance=-1)
