"""The search against an exhaustive one, and its promises."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from latentcap.search.config import SearchConfig
from latentcap.search.constraints import NoPhrase, Required, Spelling
from tests.search_oracle import BOS, EOS, Scores, exhaustive, run


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.5])
@pytest.mark.parametrize("min_length", [0, 2])
def test_a_wide_beam_finds_what_an_exhaustive_search_finds(length_penalty: float, min_length: int) -> None:
    scores = Scores(3)
    config = SearchConfig(
        beam_size=200, max_length=4, min_length=min_length, length_penalty=length_penalty, num_captions=5
    )
    for example, found in enumerate(run(scores, config)):
        expected = exhaustive(scores, example, config)[:5]
        assert [tuple(hypothesis.tokens) for hypothesis in found] == [words for _, words in expected]
        for hypothesis, (score, _) in zip(found, expected, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-4)
            assert sum(hypothesis.token_scores) == pytest.approx(
                scores.total(example, (*hypothesis.tokens, EOS)), abs=1e-4
            )


def test_greedy_takes_the_best_word_each_time() -> None:
    scores = Scores(4, seed=1)
    found = run(scores, SearchConfig(beam_size=1, max_length=6, min_length=0))
    for example, (hypothesis,) in enumerate(found):
        prefix: tuple[int, ...] = (BOS,)
        while len(prefix) <= 6:
            logits = scores.logits(example, prefix)
            logits[BOS] = -torch.inf
            token = int(logits.argmax())
            if token == EOS:
                break
            prefix += (token,)
        assert tuple(hypothesis.tokens) == prefix[1:]


@pytest.mark.parametrize("beam_size", [2, 3, 5])
def test_batched_equals_one_by_one(beam_size: int) -> None:
    """Examples that finish early leave the batch and change nothing for the others."""
    scores = Scores(6, seed=2, sharpness=3.0)
    config = SearchConfig(beam_size=beam_size, max_length=12, num_captions=beam_size)
    together = run(scores, config)
    assert min(scores.calls) < 6  # finished examples left the batch
    for example in range(6):

        class One(Scores):
            def logits(self, _: int, prefix: tuple[int, ...], example: int = example) -> Tensor:
                return scores.logits(example, prefix)

        alone = run(One(1), config)[0]
        assert [h.tokens for h in alone] == [h.tokens for h in together[example]]


def test_a_search_that_never_ends_yields_its_best_partial() -> None:
    class Endless(Scores):
        def logits(self, example: int, prefix: tuple[int, ...]) -> Tensor:
            logits = super().logits(example, prefix)
            logits[EOS] = -torch.inf
            return logits

    found = run(Endless(2), SearchConfig(beam_size=3, max_length=5, num_captions=2))
    for hypotheses in found:
        assert [len(hypothesis.tokens) for hypothesis in hypotheses] == [5, 5]
        assert not hypotheses[0].ended
        assert hypotheses[0].score >= hypotheses[1].score


def test_extras_follow_the_path_of_each_caption() -> None:
    scores = Scores(4, seed=5)
    config = SearchConfig(beam_size=3, max_length=6, num_captions=3)
    for hypotheses in run(scores, config, keep_attention=True):
        for hypothesis in hypotheses:
            assert len(hypothesis.attention) == len(hypothesis.token_scores)
            for step, prefix in enumerate(hypothesis.attention):
                assert prefix.tolist() == [BOS, *hypothesis.tokens[:step]]


def contains(words: tuple[int, ...], phrase: tuple[int, ...]) -> bool:
    return any(words[start : start + len(phrase)] == phrase for start in range(len(words)))


def check(found: list[list], scores: Scores, config: SearchConfig, allowed) -> None:  # type: ignore[no-untyped-def, type-arg]
    for example, hypotheses in enumerate(found):
        expected = exhaustive(scores, example, config, allowed)[: config.num_captions]
        assert [tuple(hypothesis.tokens) for hypothesis in hypotheses] == [words for _, words in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-4)


WIDE = SearchConfig(beam_size=150, max_length=4, num_captions=6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_repeated_ngram_is_exhaustive_search_without_them(size: int) -> None:
    config = WIDE.changed(no_repeat_ngram=size, max_length=5 if size == 3 else 4, beam_size=250)
    scores = Scores(2, seed=6)

    def allowed(words: tuple[int, ...]) -> bool:
        runs = [words[start : start + size] for start in range(len(words) - size + 1)]
        return len(set(runs)) == len(runs)

    check(run(scores, config), scores, config, allowed)


def test_forbidden_phrases_are_exhaustive_search_without_them() -> None:
    scores = Scores(3, seed=7)
    rules = [NoPhrase([2, 3]), NoPhrase([4, 4, 2]), NoPhrase([3, 3])]

    def allowed(words: tuple[int, ...]) -> bool:
        return not any(contains(words, phrase) for phrase in ((2, 3), (4, 4, 2), (3, 3)))

    check(run(scores, WIDE, rules=rules), scores, WIDE, allowed)


@pytest.mark.parametrize("phrases", [[(2,)], [(2,), (3, 4)], [(3, 3), (4,)], [(2, 3, 2)]])
def test_required_phrases_are_exhaustive_search_with_them(phrases: list[tuple[int, ...]]) -> None:
    scores = Scores(3, seed=8)
    required = Required([[Spelling(phrase)] for phrase in phrases], EOS)
    found = run(scores, WIDE, required=required)
    check(found, scores, WIDE, lambda words: all(contains(words, phrase) for phrase in phrases))


@pytest.mark.parametrize("beam_size", [2, 3, 5])
def test_required_phrases_are_met_by_few_beams_too(beam_size: int) -> None:
    scores = Scores(8, seed=9, sharpness=4.0)
    phrases = [(2, 2), (3,), (4, 3)]
    required = Required([[Spelling(phrase)] for phrase in phrases], EOS)
    config = SearchConfig(beam_size=beam_size, max_length=6, num_captions=2)
    together = run(scores, config, required=required)
    for hypotheses in together:
        for hypothesis in hypotheses:
            assert all(contains(tuple(hypothesis.tokens), phrase) for phrase in phrases)
        assert len({tuple(hypothesis.tokens) for hypothesis in hypotheses}) == len(hypotheses)


def test_a_caption_that_is_cut_off_ends_where_a_rule_lets_it() -> None:
    """Scores that never end by themselves, but may."""

    class Long(Scores):
        def logits(self, example: int, prefix: tuple[int, ...]) -> Tensor:
            logits = super().logits(example, prefix)
            logits[EOS] = -50.0
            return logits

    def bad(log_probs: Tensor, prefix: Tensor) -> None:
        log_probs[..., EOS].masked_fill_(prefix[..., -1] != 3, -torch.inf)

    config = SearchConfig(beam_size=1, max_length=9)
    scores = Long(6, seed=1)
    whole = [hypotheses[0].tokens for hypotheses in run(scores, config)]
    cut = [hypotheses[0] for hypotheses in run(scores, config, rules=[bad])]
    assert any(len(hypothesis.tokens) < 9 for hypothesis in cut)
    for hypothesis, tokens in zip(cut, whole, strict=True):
        assert hypothesis.tokens == tokens[: len(hypothesis.tokens)]
        assert hypothesis.tokens[-1] == 3 or 3 not in tokens
        assert len(hypothesis.token_scores) == len(hypothesis.tokens) + hypothesis.ended


def test_nothing_to_say_is_an_empty_caption() -> None:
    def nothing(log_probs: Tensor, prefix: Tensor) -> None:
        log_probs.fill_(-torch.inf)

    for config in (SearchConfig(), SearchConfig(sample=True), SearchConfig(beam_size=4, beam_groups=2)):
        for hypotheses in run(Scores(2), config, rules=[nothing]):
            assert hypotheses[0].tokens == []


def diverse(scores: Scores, example: int, config: SearchConfig) -> list[list[tuple[int, ...]]]:
    """The unfinished beams of each group after ``max_length`` steps, by the letter of the paper."""
    groups = [[(0.0, (0,))] for _ in range(config.beam_groups)]
    size = config.beam_size // config.beam_groups
    for _ in range(config.max_length):
        taken: Counter[int] = Counter()
        for index, beams in enumerate(groups):
            candidates = []
            for total, prefix in beams:
                log_probs = scores.logits(example, prefix).log_softmax(-1)
                for token in range(2, 5):
                    score = total + float(log_probs[token])
                    candidates.append((score - config.diversity_penalty * taken[token], score, (*prefix, token)))
            groups[index] = [(score, words) for _, score, words in sorted(candidates, reverse=True)[:size]]
            taken.update(words[-1] for _, words in groups[index])
    return [[words[1:] for _, words in sorted(beams, reverse=True)] for beams in groups]


@pytest.mark.parametrize(("beams", "groups", "penalty"), [(4, 2, 0.3), (6, 3, 1.5), (3, 3, 8.0)])
def test_diverse_beams_are_those_of_the_paper(beams: int, groups: int, penalty: float) -> None:
    class Endless(Scores):
        def logits(self, example: int, prefix: tuple[int, ...]) -> Tensor:
            logits = super().logits(example, prefix)
            logits[EOS] = -torch.inf
            return logits

    scores = Endless(3, seed=3)
    config = SearchConfig(
        beam_size=beams, beam_groups=groups, diversity_penalty=penalty, max_length=5, num_captions=beams
    )
    for example, hypotheses in enumerate(run(scores, config)):
        expected = {words for group in diverse(scores, example, config) for words in group}
        assert {tuple(hypothesis.tokens) for hypothesis in hypotheses} == expected
        for hypothesis in hypotheses:  # the penalty chooses words and is no part of the score
            assert sum(hypothesis.token_scores) == pytest.approx(
                scores.total(example, tuple(hypothesis.tokens)), abs=1e-4
            )


def test_diverse_captions_differ_and_a_penalty_of_nothing_is_the_beam_search_of_a_group() -> None:
    scores = Scores(5, seed=11)
    settings = SearchConfig(beam_size=6, beam_groups=3, num_captions=6, max_length=6)
    for hypotheses in run(scores, settings):
        captions = [tuple(hypothesis.tokens) for hypothesis in hypotheses]
        distinct = len(set(captions))
        assert len(captions) == 6
        assert len(set(captions[:distinct])) == distinct  # repetitions come last
    strict = SearchConfig(beam_size=3, beam_groups=3, diversity_penalty=99.0, num_captions=3, max_length=6)
    for hypotheses in run(scores, strict):
        assert len({hypothesis.tokens[0] for hypothesis in hypotheses}) == 3
    plain = run(scores, SearchConfig(beam_size=2, max_length=6))
    free = run(scores, settings.changed(diversity_penalty=0.0, num_captions=1))
    assert [found[0].tokens for found in plain] == [found[0].tokens for found in free]


def test_samples_are_distributed_as_the_model_says() -> None:
    scores = Scores(1, seed=4, sharpness=1.0)
    config = SearchConfig(sample=True, num_captions=4000, max_length=2, min_length=0, seed=3)
    drawn = Counter(tuple(hypothesis.tokens) for hypothesis in run(scores, config)[0])
    assert sum(drawn.values()) == 4000

    def chance(prefix: tuple[int, ...], token: int) -> float:
        logits = scores.logits(0, (0, *prefix))
        logits[0] = -torch.inf  # <bos> is never generated
        return float(logits.softmax(-1)[token])

    for words in [(), (2,), (3,), (4,), *((a, b) for a in (2, 3, 4) for b in (2, 3, 4))]:
        expected = chance((), words[0]) if words else chance((), EOS)
        if len(words) == 1:
            expected *= chance(words, EOS)
        elif words:
            expected *= chance(words[:1], words[1])
        spread = (expected * (1 - expected) / 4000) ** 0.5
        assert drawn[words] / 4000 == pytest.approx(expected, abs=4 * spread + 1e-4), words


def test_samples_depend_on_their_seed_and_not_on_the_batch() -> None:
    scores = Scores(6, seed=2)
    config = SearchConfig(sample=True, temperature=1.3, top_p=0.95, num_captions=3, max_length=8, seed=5)
    seeds = [11, 12, 13, 14, 15, 16]
    together = run(scores, config, seeds=seeds)
    for example in range(6):

        class One(Scores):
            def logits(self, _: int, prefix: tuple[int, ...], example: int = example) -> Tensor:
                return scores.logits(example, prefix)

        alone = run(One(1), config, seeds=seeds[example : example + 1])[0]
        assert [h.tokens for h in alone] == [h.tokens for h in together[example]]
        for hypothesis in alone:
            full = (*hypothesis.tokens, *([EOS] if hypothesis.ended else []))
            assert sum(hypothesis.token_scores) == pytest.approx(scores.total(example, full), abs=1e-4)
    again = run(scores, config.changed(seed=6), seeds=seeds)
    assert [h.tokens for h in again[0]] != [h.tokens for h in together[0]]


def test_samples_that_have_ended_leave_the_search() -> None:
    scores = Scores(4, seed=2, sharpness=1.0)
    run(scores, SearchConfig(sample=True, num_captions=8, max_length=12))
    widths = [beams for _, beams in scores.shapes]
    assert widths[0] == 8
    assert all(later <= earlier for earlier, later in pairwise(widths))
    assert widths[-1] < 8


def test_attention_of_samples_and_groups_follows_their_paths() -> None:
    for config in (
        SearchConfig(sample=True, num_captions=4, max_length=6),
        SearchConfig(beam_size=4, beam_groups=2, num_captions=4, max_length=6),
    ):
        for hypotheses in run(Scores(3, seed=5), config, keep_attention=True):
            for hypothesis in hypotheses:
                assert len(hypothesis.attention) == len(hypothesis.token_scores)
                for step, prefix in enumerate(hypothesis.attention):
                    assert prefix.tolist() == [0, *hypothesis.tokens[:step]]
