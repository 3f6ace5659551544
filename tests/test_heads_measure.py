"""From a model and captions to a report: gradients, what is read, and what is said about it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from latentcap.captioner import Captioner
from latentcap.config import ContextConfig, FusionConfig
from latentcap.data.batches.context import ContextFields
from latentcap.heads.findings import describe
from latentcap.heads.importance import gate_gradients
from latentcap.heads.lexicon import Lexicon, word_kind
from latentcap.heads.measure import HeadMeter
from latentcap.heads.page import page
from latentcap.heads.report import HeadReport, HeadSummary, Share, summarise
from latentcap.heads.statistics import CONTENT, PUNCTUATION, SPECIAL, STOP
from latentcap.heads.table import write_csv
from latentcap.model.context import GIVEN_CONTEXT, NO_CONTEXT, START
from latentcap.model.fusion import Memory
from latentcap.pages.explain import context_names
from tests.helpers import tiny_captioner, tiny_tokenizer

CONTEXTS = ["the large red circle", None]
FIELDS = ContextFields(numbers={"age": (50.0, 10.0)}, categories={"sex": ["f", "m"]})


def given(captioner: Captioner) -> tuple[Memory, Tensor, object]:
    context = captioner.collate_context(CONTEXTS if captioner.model.context else [None, None])
    captioner.model.eval()
    with torch.no_grad():
        memory = captioner.model.encode(images=torch.randn(2, 1, 3, 64, 64), context=context)
    texts = (("a red circle", "a square on the left"), ("two small stars", "the green square"))
    rows = [[captioner.tokenizer.encode_caption(text, 10) for text in pair] for pair in texts]
    tokens = torch.zeros(2, 2, 7, dtype=torch.long)
    for b, pair in enumerate(rows):
        for g, ids in enumerate(pair):
            tokens[b, g, : len(ids)] = torch.tensor(ids)
    return memory, tokens, context


def measured(**changes: object) -> tuple[HeadMeter, HeadReport]:
    captioner = tiny_captioner(**changes)  # type: ignore[arg-type]
    meter = HeadMeter(captioner.model, tokenizer=captioner.tokenizer)
    meter.update(*given(captioner))  # type: ignore[arg-type]
    return meter, summarise(meter)


def test_a_heads_gate_is_the_mean_of_what_queries_set_times_the_one_gate() -> None:
    captioner = tiny_captioner()
    fusion = captioner.model.decoder.fusion
    fusion.head_gate[1] = 0.5
    memory, tokens, context = given(captioner)
    meter = HeadMeter(captioner.model, tokenizer=captioner.tokenizer)
    meter.update(memory, tokens, context)  # type: ignore[arg-type]
    with torch.no_grad():
        _, attention = captioner.model.decoder(tokens[..., :-1], memory)
    assert attention.query_gate is not None
    expected = fusion.head_gate * attention.query_gate[tokens[..., 1:] != 0].mean(0)
    torch.testing.assert_close(torch.tensor([head.gate for head in summarise(meter).heads]), expected)
    _, plain = measured(fusion=FusionConfig(2, 2, gates="output"))
    assert [head.gate for head in plain.heads] == [1.0] * 4


def test_gate_gradients_are_those_of_each_example_alone() -> None:
    captioner = tiny_captioner()
    memory, tokens, _ = given(captioner)
    gradients, attention = gate_gradients(captioner.model, memory, tokens)
    assert attention.visual is not None

    def loss(example: int, gate: Tensor) -> Tensor:
        rows = torch.tensor([example])
        own = tokens[rows]
        hidden, _ = captioner.model.decoder(own[..., :-1], memory.select(rows), gate=gate)
        mask = own[..., 1:] != 0
        return nn.functional.cross_entropy(captioner.model.decoder.logits(hidden[mask]), own[..., 1:][mask])

    step = 1e-2
    for example in range(2):
        for head in range(4):
            sides = []
            for sign in (1, -1):
                gate = torch.ones(4)
                gate[head] += sign * step
                with torch.no_grad():
                    sides.append(float(loss(example, gate)))
            assert float(gradients[example, head]) == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=2e-4)


def test_report_of_a_model() -> None:
    meter, report = measured(fields=FIELDS)
    assert [head.name for head in report.heads] == ["visual head 1", "visual head 2", "text head 1", "text head 2"]
    assert report.examples == 2
    assert report.queries == 4 + 6 + 4 + 4  # "stars" is <unk>, and every caption has its end
    assert sum(head.relative_importance for head in report.heads) == pytest.approx(4)
    gradients, _ = gate_gradients(meter.model, *given(tiny_captioner(fields=FIELDS))[:2])
    for head in report.of("text"):
        assert head.stop is not None
        assert head.context is not None
        assert 0 < head.context.value < 1
        assert head.use == 1
        assert sum(value for _, value in head.top_words) <= 1 + 1e-6
    for head in report.of("visual"):
        assert sum(value for view in head.map for row in view for value in row) == pytest.approx(1)
        assert head.variation is not None
        assert head.variation > -1e-6
        assert sum(head.histogram) == pytest.approx(1)
    assert len(gradients) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": FusionConfig(visual_heads=4, text_heads=0)},
        {"fusion": FusionConfig(visual_heads=0, text_heads=4)},
        {"fusion": FusionConfig(visual_heads=1, text_heads=1)},
        {"context": ContextConfig(encoder="none")},
    ],
)
def test_any_mixture_of_heads_has_a_page(changes: dict[str, object]) -> None:
    _, report = measured(**changes)
    text = page(report, title="<b>heads</b>")
    assert "&lt;b&gt;heads" in text
    assert text.count("<article>") == len(report.heads)


def test_a_head_that_is_switched_off_is_named() -> None:
    captioner = tiny_captioner()
    captioner.model.decoder.fusion.head_gate[1] = 0
    meter = HeadMeter(captioner.model, tokenizer=captioner.tokenizer)
    meter.update(*given(captioner))  # type: ignore[arg-type]
    head = summarise(meter).heads[1]
    assert head.use == head.gate == 0
    assert describe(head) == ["is switched off"]


def test_findings_name_what_is_seen() -> None:
    text = HeadSummary("text", 2, 1.0, 0.5, 0.5, importance=1, relative_importance=1, gate=1, use=1)
    reads = replace(text, stop=Share(0.83, 0.4), top_words=[("the", 0.4)])
    assert describe(reads) == ["reads only stop words (0.83)"]
    assert describe(replace(text, stop=Share(0.83, 0.8))) == []
    assert describe(replace(text, context=Share(0.6, 0.3))) == ["reads mostly the context (0.60)"]
    assert describe(replace(text, top_words=[("red", 0.9)])) == ["reads only 'red' (0.90)"]
    assert describe(replace(text, relative_importance=0.001)) == ["is dead (importance 0.001, the mean is 1)"]
    visual = replace(text, kind="visual", number=1, twin=3, twin_similarity=0.97, variation=0.4)
    assert describe(visual) == ["is a twin of 3 (0.97)"]
    assert describe(replace(visual, twin=None, normalised_entropy=0.99))[0].startswith("looks everywhere")
    assert describe(replace(visual, twin=None, peak=0.9, variation=0.01)) == [
        "looks at a single place (peak 0.90)",
        "looks at the same places whatever the image and word (variation 0.01)",
    ]


def test_lexicon_names_every_position() -> None:
    captioner = tiny_captioner(fields=FIELDS)
    lexicon = Lexicon(captioner.tokenizer, fields=FIELDS)
    words = torch.tensor([[captioner.tokenizer.encode_caption("a red circle", 10)[:-1]]] * 2)
    entries = lexicon.entries(captioner.collate_context(CONTEXTS), words)
    names = [[lexicon.names[index] for index in row[0]] for row in entries.tolist()]
    assert names[0] == [GIVEN_CONTEXT, "age", "sex", "the", "large", "red", "circle", START, "a", "red", "circle"]
    assert names[1][:3] == [NO_CONTEXT, "age", "sex"]


def test_every_name_is_that_of_the_position_the_model_reads() -> None:
    """Numbers, categories and text together: a changed value moves the one token whose name it has, everywhere."""
    captioner = tiny_captioner(fields=FIELDS)
    encoder, lexicon = captioner.model.context, Lexicon(captioner.tokenizer, fields=FIELDS)
    assert encoder is not None

    def read(context: str, age: float, sex: str) -> tuple[Tensor, list[str]]:
        batch = captioner.collate_context([context], numbers=[{"age": age}], categories=[{"sex": sex}])
        return encoder(batch)[0][0], [lexicon.names[entry] for entry in lexicon.context_entries(batch)[0].tolist()]

    tokens, names = read("red circle", 50.0, "f")
    assert names == context_names(captioner, "red circle") == [GIVEN_CONTEXT, "age", "sex", "red", "circle"]
    for changed, name in ((("red circle", 90.0, "f"), "age"), (("red circle", 50.0, "m"), "sex")):
        moved = (read(*changed)[0] != tokens).any(-1)
        assert [names[place] for place in moved.nonzero().flatten().tolist()] == [name]
    moved = (read("blue circle", 50.0, "f")[0] != tokens).any(-1)
    assert moved.nonzero().flatten().tolist() == [names.index("red")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("the", STOP), ("Ġthe", STOP), ("##on", STOP), (",", PUNCTUATION), ("...", PUNCTUATION), ("<unk>", SPECIAL)]
    + [("[SEP]", SPECIAL), (START, SPECIAL), ("left", CONTENT), ("two", CONTENT), ("no", CONTENT)],
)
def test_kinds_of_words(name: str, kind: int) -> None:
    assert word_kind(name) == kind


def test_csv_has_a_row_for_each_head(tmp_path: Path) -> None:
    _, report = measured()
    write_csv(tmp_path / "heads.csv", report)
    with open(tmp_path / "heads.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["number"]) for row in rows] == [(head.kind, str(head.number)) for head in report.heads]
    assert float(rows[0]["entropy"]) == report.heads[0].entropy
    assert rows[0]["stop"] == ""
    assert len(Lexicon(tiny_tokenizer())) > 4
