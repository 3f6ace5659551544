"""The search against transformers' ``generate`` and its logits processors, on the same scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from latentcap.search.config import SearchConfig
from latentcap.search.constraints import NoRepeat
from latentcap.search.generation import Hypothesis
from latentcap.search.selection import warp
from tests.search_oracle import BOS, EOS, VOCAB, Scores, run

transformers = pytest.importorskip("transformers")
from transformers.modeling_outputs import CausalLMOutput  # noqa: E402


class Reference(transformers.PreTrainedModel, transformers.GenerationMixin):  # type: ignore[misc, name-defined]
    """A language model of nothing but the scores of one example."""

    config_class = transformers.PretrainedConfig

    def __init__(self, scores: Scores, example: int) -> None:
        super().__init__(transformers.PretrainedConfig(vocab_size=VOCAB, num_hidden_layers=1))
        self.anything = torch.nn.Parameter(torch.zeros(1))
        self.scores, self.example = scores, example

    def forward(self, input_ids: Tensor, **settings: Any) -> CausalLMOutput:
        rows = [self.scores.logits(self.example, tuple(row)) for row in input_ids.tolist()]
        return CausalLMOutput(logits=torch.stack(rows).unsqueeze(1))

    def prepare_inputs_for_generation(self, input_ids: Tensor, **settings: Any) -> dict[str, Tensor]:
        return {"input_ids": input_ids}


def generate(scores: Scores, example: int, **settings: Any) -> list[tuple[list[int], float | None]]:
    """Captions without ``<bos>`` and what follows ``<eos>``, and their scores."""
    output = Reference(scores, example).generate(
        torch.tensor([[BOS]]),
        generation_config=transformers.GenerationConfig(
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=EOS,
            suppress_tokens=[BOS],
            use_cache=False,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        ),
    )
    captions = [row[1:] for row in output.sequences.tolist()]
    words = [row[: row.index(EOS)] if EOS in row else row for row in captions]
    scores_found = output.sequences_scores.tolist() if "sequences_scores" in output else [None] * len(words)
    return list(zip(words, scores_found, strict=True))


def tokens(hypotheses: list[Hypothesis]) -> list[list[int]]:
    return [hypothesis.tokens for hypothesis in hypotheses]


@pytest.mark.parametrize("ngram", [0, 2])
def test_greedy(ngram: int) -> None:
    scores = Scores(6, seed=1)
    config = SearchConfig(beam_size=1, max_length=9, min_length=2, no_repeat_ngram=ngram)
    for example, hypotheses in enumerate(run(scores, config)):
        settings = {"no_repeat_ngram_size": ngram} if ngram else {}
        [(words, _)] = generate(scores, example, max_new_tokens=9, min_new_tokens=2, do_sample=False, **settings)
        assert words == hypotheses[0].tokens


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(("beams", "ngram"), [(3, 0), (4, 2)])
def test_beam_search_with_length_penalty(penalty: float, beams: int, ngram: int) -> None:

    class Ending(Scores):
        """Captions end well before the longest: at the longest, transformers takes unfinished ones for finished."""

        def logits(self, example: int, prefix: tuple[int, ...]) -> Tensor:
            return super().logits(example, prefix) + torch.eye(VOCAB)[EOS] * len(prefix) * 0.5

    scores = Ending(6, seed=2, sharpness=2.5)
    config = SearchConfig(beam_size=beams, max_length=25, length_penalty=penalty, num_captions=2, no_repeat_ngram=ngram)
    for example, hypotheses in enumerate(run(scores, config)):
        found = generate(
            scores,
            example,
            max_new_tokens=26,  # <eos> is one
            min_new_tokens=1,
            num_beams=beams,
            num_return_sequences=2,
            length_penalty=penalty,
            early_stopping=False,
            do_sample=False,
            **({"no_repeat_ngram_size": ngram} if ngram else {}),
        )
        assert [words for words, _ in found] == tokens(hypotheses)
        assert [score for _, score in found] == pytest.approx([h.score for h in hypotheses], abs=1e-4)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(0.7, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.8), (1.5, 9, 0.6)]
)
def test_warping(temperature: float, top_k: int, top_p: float) -> None:
    from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    log_probs = (torch.randn(40, 25, generator=torch.Generator().manual_seed(0)) * 2).log_softmax(-1)
    expected = TemperatureLogitsWarper(temperature)(None, log_probs)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    found = warp(log_probs.unsqueeze(1), temperature, top_k, top_p).squeeze(1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_repeat_ngram(size: int) -> None:
    from transformers.generation import NoRepeatNGramLogitsProcessor

    generator = torch.Generator().manual_seed(0)
    for length in (1, 2, 3, 9):
        prefix = torch.cat((torch.zeros(30, 1).long(), torch.randint(2, VOCAB, (30, length), generator=generator)), 1)
        log_probs = torch.randn(30, VOCAB, generator=generator)
        expected = NoRepeatNGramLogitsProcessor(size)(prefix, log_probs.clone())
        NoRepeat(size)(log_probs.view(10, 3, VOCAB), prefix.view(10, 3, -1))
        torch.testing.assert_close(log_probs, expected)
