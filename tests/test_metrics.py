"""Caption scores: equal to COCO's evaluation on the same words, on one process and on two."""

from __future__ import annotations

import contextlib
import io
import random
import time
from pathlib import Path

import pytest
import torch

from latentcap.data.errors import UserError
from latentcap.evaluation.constant import best_constant
from latentcap.metrics import (
    CaptionMetrics,
    Tokenizer,
    caption_scores,
    coco_scores,
    java,
    tokenize,
    tokenize_words,
)
from latentcap.metrics.cider import cider
from latentcap.metrics.rouge import common_subsequence

WORDS = ["a", "the", "many", "green", "trees", "buildings", "planes", "are", "is", "near", "in", "river", "road"]
needs_coco = pytest.mark.skipif(java.why_unavailable() is not None, reason="needs the coco extra")


def corpus(size: int, *, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Random captions with one to five references, some repeated, and captions that are empty, one word or right."""
    rng = random.Random(seed)
    sentence = lambda: " ".join(rng.choices(WORDS, k=rng.randint(1, 14)))  # noqa: E731
    references = [[sentence() for _ in range(rng.randint(1, 5))] for _ in range(size)]
    references = [group + [group[0]] * rng.randint(0, 2) for group in references]
    hypotheses = [rng.choice([group[0], sentence(), sentence(), "trees", ""]) for group in references]
    return hypotheses, references


def coco_evaluation(hypotheses: list[str], references: list[list[str]]) -> dict[str, float]:
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu", reason="needs the coco extra")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    wanted = dict(enumerate(references))
    given = {index: [text] for index, text in enumerate(hypotheses)}
    with contextlib.redirect_stdout(io.StringIO()):
        scores = bleu.Bleu(4).compute_score(wanted, given)[0]
    scores = [*scores, Rouge().compute_score(wanted, given)[0], Cider().compute_score(wanted, given)[0]]
    return dict(zip(("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"), scores, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_those_of_cocos_evaluation(seed: int) -> None:
    hypotheses, references = corpus(60, seed=seed)
    assert caption_scores(hypotheses, references) == pytest.approx(coco_evaluation(hypotheses, references), abs=1e-9)


@pytest.mark.parametrize(
    ("hypotheses", "references"),
    [
        (["", ""], [["a road"], ["a river", "a river"]]),
        (["", "a"], [[""], ["a"]]),
        (["road"], [["road", "a road"]]),
        (["a a a a a a", "b"], [["a b a", "a a"], ["c"]]),
        (["a road near a river"] * 3, [["a road near a river"] * 5] * 3),
        (["x y z", "x y"], [["p q", "p q r s"], ["t u v w"]]),
    ],
)
def test_edge_cases_equal_those_of_cocos_evaluation(hypotheses: list[str], references: list[list[str]]) -> None:
    assert caption_scores(hypotheses, references) == pytest.approx(coco_evaluation(hypotheses, references), abs=1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_cider_equals_cocos_without_what_makes_it_cider_d(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = pytest.importorskip("pycocoevalcap.cider.cider_scorer", reason="needs the coco extra")
    hypotheses, references = corpus(60, seed=seed)
    monkeypatch.setattr(scorer, "min", lambda guess, wanted: guess, raising=False)  # no clipping
    theirs = scorer.CiderScorer(sigma=1e9)  # no penalty on lengths
    for text, group in zip(hypotheses, references, strict=True):
        theirs += (text, group)
    assert cider(hypotheses, references) == pytest.approx(theirs.compute_score()[0], abs=1e-9)
    assert cider(hypotheses, references) > caption_scores(hypotheses, references)["CIDEr-D"]


def test_what_cannot_be_scored_is_an_error() -> None:
    with pytest.raises(ValueError, match="no captions"):
        caption_scores([], [])
    with pytest.raises(ValueError, match="without references"):
        caption_scores(["a"], [[]])
    with pytest.raises(ValueError, match="without references"):
        CaptionMetrics().update(["a"], [[]])


def test_a_corpus_the_size_of_rsicds_takes_seconds() -> None:
    hypotheses, references = corpus(1094)
    start = time.process_time()
    caption_scores(hypotheses, references)
    assert time.process_time() - start < 4  # about 0.5 s on one idle core


def test_common_subsequence_equals_the_table() -> None:
    rng = random.Random(0)
    for _ in range(100):
        first, second = (rng.choices("abc", k=rng.randint(0, 9)) for _ in range(2))
        table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
        for row, a in enumerate(first):
            for column, b in enumerate(second):
                best = max(table[row][column + 1], table[row + 1][column])
                table[row + 1][column + 1] = table[row][column] + 1 if a == b else best
        assert common_subsequence(first, second) == table[-1][-1]


# --- tokenisers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a T-junction (left).", "it 's a t-junction left"),
        ("Don't! We cannot see 1,000 planes; 3.5 m", "do n't we can not see 1,000 planes 3.5 m"),
        ("“Café” and/or  bars – here...", "café and/or bars here"),
        ("10 % of 5", "10 % of 5"),
        (" ?!\n", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    assert " ".join(tokenize_words(text)) == words


def test_the_protocol_of_published_chest_scores() -> None:
    texts = ["1. The heart is normal. 2. No effusion, XXXX", "the heart is normal. no effusion."]
    cleaned = tokenize(texts, "r2gen")
    assert cleaned == ["the heart is normal . no effusion xxxx .", "the heart is normal . no effusion ."]
    assert tokenize(cleaned, "r2gen") == cleaned  # so references may be read in that style
    assert tokenize(["the lungs are clear. " * 20], "r2gen")[0].split() == ["the", "lungs", "are", "clear", "."] * 12


def test_the_best_constant_is_the_most_typical_and_not_the_shortest() -> None:
    typical = "the heart is normal . the lungs are clear . no effusion"
    train = ["no effusion"] * 3 + [typical] * 2
    train += [f"{typical.replace('clear', word)} {word}" for word in ("dark", "white", "small", "large")]
    assert best_constant(train, tokenizer="words") == typical


def test_tokenisers_keep_one_line_per_text() -> None:
    texts = ["", "A road.", " . ", "", "a\nb\u2028c", "日本 é", ""]
    assert tokenize(texts, "words") == ["", "a road", "", "", "a b c", "日 本 é", ""]
    assert tokenize(texts, None)[1] == "A road."


def test_whitespace_leaves_the_text_as_it_is_but_for_full_stops() -> None:
    assert tokenize(["The Heart, 2.5 cm. clear . L4.", "一只 红色的 猫"], "whitespace") == [
        "The Heart, 2.5 cm . clear . L4 .",
        "一只 红色的 猫",  # words that somebody has separated stay
    ]


OTHER_SCRIPTS = [
    ("一只红色的iPhone，坐在桌子上。", "一 只 红 色 的 iphone 坐 在 桌 子 上"),
    ("ឆ្មាអង្គុយ", "ឆ្មា អ ង្គុ យ"),
    ("नमस्ते दुनिया।", "नमस्ते दुनिया"),
    ("Con me\u0300o isn't", "con m\u00e8o is n't"),
    ("می\u200cخواهم", "می\u200cخواهم"),
    ("❤\ufe0f $5 & 50%", "❤ $ 5 & 50 %"),
]


@pytest.mark.parametrize("tokenizer", ["words", pytest.param("ptb", marks=needs_coco)])
def test_marks_stay_and_scripts_without_spaces_are_scored_by_character(tokenizer: Tokenizer) -> None:
    texts, words = map(list, zip(*OTHER_SCRIPTS, strict=True))
    assert tokenize(texts, tokenizer) == words


@needs_coco
def test_ptb_equals_cocos_own_call() -> None:
    texts = ["", "A road.", " . ", "", "a\nb\u2028c", "日本 é", ""]
    assert tokenize(texts, "ptb") == ["", "a road", "", "", "a b c", "日 本 é", ""]
    assert tokenize(["It's (left) - don't, T-junction!"], "ptb") == ["it 's -lrb- left -rrb- do n't t-junction"]
    assert tokenize([], "ptb") == []


def test_missing_java_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"latentcap\[coco\]"):
        tokenize(["a"], "ptb")
    scores, reasons = coco_scores(["a"], [["a"]], metrics=("METEOR", "SPICE"))
    assert scores == {"METEOR": None, "SPICE": None}
    assert "Java" in reasons["METEOR"]


# --- METEOR and SPICE -------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_coco
def test_meteor_equals_pycocoevalcaps_without_a_word_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    references = [["a road is near the river", "some water"], ["some planes", "a plane is parked"]]
    scores, reasons = coco_scores(["a road near a river", "two planes parked"], references)
    assert scores["METEOR"] == pytest.approx(0.33990493875077993, abs=1e-9)  # as its own Meteor() gives
    assert not reasons
    assert capfd.readouterr() == ("", "")


@needs_coco
def test_a_program_that_takes_too_long_is_stopped() -> None:
    scores, reasons = coco_scores(["a"], [["b"]], timeout=0.01)
    assert scores == {"METEOR": None}
    assert "METEOR" in reasons


@needs_coco
def test_spice_says_why_it_is_missing() -> None:
    scores, reasons = coco_scores(["a"], [["b"]], metrics=("SPICE",))
    assert scores["SPICE"] is not None or "CoreNLP" in reasons["SPICE"]


# --- the metric -------------------------------------------------------------------------------------------------


def test_metric_in_batches_equals_the_whole_and_counts_an_id_once() -> None:
    hypotheses, references = corpus(20)
    metric = CaptionMetrics(tokenizer=None)
    for start in (0, 8, 12):  # 12 to 16 twice
        stop = min(start + 8, 20)
        metric.update(hypotheses[start:stop], references[start:stop], ids=range(start, stop))
    scores = {name: value.item() for name, value in metric.compute().items()}
    assert scores == pytest.approx(caption_scores(hypotheses, references), abs=1e-6)
    metric.reset()
    with pytest.warns(UserWarning, match="before the"), pytest.raises(ValueError, match="no captions"):
        metric.compute()


def test_metric_tokenises_and_counts_everything_without_ids() -> None:
    metric = CaptionMetrics()
    metric.update(["A road.", "A road."], [["a road"], ["a river"]])
    expected = caption_scores(["a road", "a road"], [["a road"], ["a river"]])
    assert metric.compute()["BLEU-1"].item() == pytest.approx(expected["BLEU-1"])
    forward = metric(["A road."], [["a road"]])
    assert forward["BLEU-1"].item() == pytest.approx(1.0)


def _process(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    hypotheses, references = corpus(21)
    metric = CaptionMetrics(tokenizer=None)
    mine = [index % 21 for index in range(rank, 22, world)]  # example 0 comes twice, as a distributed sampler pads
    for index in mine:
        metric.update([hypotheses[index]], [references[index]], ids=[index])
    everything = metric.compute()
    metric.reset()
    if rank == 0:  # and the other process sees nothing at all
        metric.update(hypotheses, references)
    alone = metric.compute()
    torch.save((everything, alone), Path(folder, f"scores-{rank}.pt"))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_metric_on_two_processes_equals_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_process, args=(2, str(tmp_path)), nprocs=2)
    expected = caption_scores(*corpus(21))
    for rank in (0, 1):
        for scores in torch.load(tmp_path / f"scores-{rank}.pt"):
            assert {name: value.item() for name, value in scores.items()} == pytest.approx(expected, abs=1e-6)
