"""What a model takes over from a model folder: by name, never by shape alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from latentcap.captioner import Captioner
from latentcap.config import BackboneConfig, DecoderConfig, FusionConfig
from latentcap.data.batches.context import ContextFields
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.errors import UserError
from latentcap.model.caption_model import CaptionModel
from latentcap.training.fine_tuning import start_model
from latentcap.training.module import CaptionModule
from latentcap.training.optim import OptimConfig
from tests.helpers import tiny_config, tiny_tokenizer

OLD_FIELDS = ContextFields(
    numbers={"dose": (0.0, 1.0), "age": (50.0, 10.0)}, categories={"site": ["a", "b"], "sex": ["f", "m"]}
)
OLD_LABELS = {"plane": ["axial", "coronal"], "normal": ["no", "yes"]}


def model_of(
    *,
    words: CaptionTokenizer | None = None,
    fields: ContextFields = OLD_FIELDS,
    labels: dict[str, list[str]] | None = None,
    **changes: object,
) -> CaptionModel:
    return CaptionModel(
        tiny_config(**changes), vocab_size=len(words or tiny_tokenizer()), fields=fields, labels=labels or OLD_LABELS
    )


@pytest.fixture
def old(tmp_path: Path) -> tuple[Path, CaptionModel]:
    torch.manual_seed(1)
    model = model_of(reads_labels=True, max_views=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    image = ImageConfig(size=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
    Captioner(model, tokenizer=tiny_tokenizer(), image=image).save(tmp_path / "old", half=False)
    return tmp_path / "old", model


def same(found: Tensor, expected: Tensor) -> bool:
    return torch.equal(found.detach(), expected.detach())


def test_words_are_found_by_name(old: tuple[Path, CaptionModel]) -> None:
    folder, before = old
    new_words, old_words = CaptionTokenizer.train(["zebra circle red a"]), tiny_tokenizer()
    model = model_of(words=new_words)
    told = start_model(model, folder, new_words)
    for word in ("circle", "red", "<eos>"):
        mine, theirs = new_words.vocab.index(word), old_words.vocab.index(word)
        assert same(model.decoder.embedding.weight[mine], before.decoder.embedding.weight[theirs])
        assert same(model.decoder.bias[mine], before.decoder.bias[theirs])
    assert f"words: 7 kept, 1 new, {len(old_words) - 7} dropped" in told


def test_fields_and_their_values_are_found_by_name(old: tuple[Path, CaptionModel]) -> None:
    folder, before = old
    fields = ContextFields(
        numbers={"age": (50.0, 10.0), "weight": (70.0, 9.0)}, categories={"sex": ["m", "x"], "organ": ["a", "b"]}
    )
    model = model_of(fields=fields)
    organ = model.context.categories[1].weight.clone()
    told = start_model(model, folder, tiny_tokenizer())
    mine, theirs = model.context, before.context
    assert same(mine.number_value[0], theirs.number_value[1])
    assert not same(mine.number_value[1], theirs.number_value[0])
    assert same(mine.categories[0].weight[0], theirs.categories[1].weight[1])  # m
    assert same(mine.categories[0].weight[2], theirs.categories[1].weight[2])  # missing
    assert same(mine.categories[1].weight, organ)  # another category with as many values
    assert "numbers: 1 kept, 1 new, 1 dropped" in told
    assert "categories: 1 kept, 3 new, 3 dropped" in told


def test_a_number_means_what_it_meant(old: tuple[Path, CaptionModel]) -> None:
    """Though the new data has another mean and deviation: 60 years are the same tokens as before."""
    folder, before = old
    model = model_of(fields=ContextFields(numbers={"age": (40.0, 20.0)}))
    start_model(model, folder, tiny_tokenizer())
    mine, theirs = model.context, before.context
    torch.testing.assert_close(
        mine.number_name[0] + mine.number_value[0] * (60 - 40) / 20,
        theirs.number_name[1] + theirs.number_value[1] * (60 - 50) / 10,
    )
    torch.testing.assert_close(
        mine.number_name[0] + mine.number_missing[0], theirs.number_name[1] + theirs.number_missing[1]
    )


def test_labels_and_their_classes_are_found_by_name(old: tuple[Path, CaptionModel]) -> None:
    folder, before = old
    model = model_of(labels={"normal": ["yes", "no"], "kind": ["ct", "mr"]}, reads_labels=True)
    kind = model.labels.heads[1].weight.clone()
    told = start_model(model, folder, tiny_tokenizer())
    assert same(model.labels.heads[0].weight, before.labels.heads[1].weight.flip(0))
    assert same(model.labels.heads[1].weight, kind)
    assert same(model.summarise_labels.weight[:, 0], before.summarise_labels.weight[:, 3])
    assert "labels: 2 kept, 2 new, 2 dropped" in told


def test_heads_and_views_are_found_by_their_place(old: tuple[Path, CaptionModel]) -> None:
    folder, before = old
    fusion = FusionConfig(visual_heads=3, text_heads=1, head_dim=8, latent_dim=16)
    model = model_of(fusion=fusion, max_views=3)
    start_model(model, folder, tiny_tokenizer())
    mine, theirs = model.decoder.fusion, before.decoder.fusion
    assert same(mine.visual.up_key[:2], theirs.visual.up_key)
    assert same(mine.visual.query.weight[:16], theirs.visual.query.weight)
    assert same(mine.output.weight[:, :16], theirs.output.weight[:, :16])
    assert same(mine.output.weight[:, 24:], theirs.output.weight[:, 16:24])  # the first text head
    assert not same(mine.output.weight[:, 16:24], theirs.output.weight[:, 16:24])
    assert same(mine.query_gate.weight[[0, 1, 3]], theirs.query_gate.weight[[0, 1, 2]])
    assert same(mine.view[:2], theirs.view)


def test_what_the_folder_has_alone_is_told(old: tuple[Path, CaptionModel]) -> None:
    told = start_model(model_of(fusion=FusionConfig(2, 2, gates="output")), old[0], tiny_tokenizer())
    assert "new: decoder.fusion.modulate" in told
    assert "dropped: decoder.fusion.query_gate" in told


def test_another_cnn_keeps_its_own_weights(old: tuple[Path, CaptionModel], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = old
    loaded = []
    monkeypatch.setattr("latentcap.model.backbone.load_weights_into", lambda net, config: loaded.append(config.name))
    model = model_of(backbone=BackboneConfig(name="test_resnet", image_size=64))
    loaded.clear()
    told = start_model(model, folder, tiny_tokenizer())
    assert loaded == ["test_resnet"]
    assert "new: " in told
    assert "backbone" in told.partition("new: ")[2]


def test_other_sizes_are_refused_with_the_settings_that_fit(old: tuple[Path, CaptionModel]) -> None:
    config = tiny_config(decoder=DecoderConfig(embed_dim=64, hidden_dim=32))
    with pytest.raises(UserError, match=r"has embed_dim 32, this run 64.*--model\.model\.decoder\.embed_dim 32"):
        CaptionModule(config, start_from=str(old[0]))


def test_all_of_the_same_model_is_copied(old: tuple[Path, CaptionModel]) -> None:
    folder, before = old
    model = model_of(reads_labels=True, max_views=2)
    told = start_model(model, folder, tiny_tokenizer())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before.state_dict()[name], msg=name)
    assert "new: " not in told.replace("0 new", "")


def test_other_places_of_positions_are_said(old: tuple[Path, CaptionModel]) -> None:
    told = start_model(model_of(fusion=FusionConfig(2, 2, position="latents")), old[0], tiny_tokenizer())
    assert "positions are in latents, there in keys" in told
    assert "positions are in" not in start_model(model_of(), old[0], tiny_tokenizer())


def test_a_label_head_that_reads_something_else_starts_anew(old: tuple[Path, CaptionModel]) -> None:
    folder, before = old
    model = model_of(label_pooling="regions", reads_labels=True, max_views=2)
    told = start_model(model, folder, tiny_tokenizer())
    assert "the label head starts anew: it reads regions, there mean" in told
    assert model.labels is not None
    assert before.labels is not None
    assert not torch.equal(model.labels.heads[0].weight, before.labels.heads[0].weight)
    torch.testing.assert_close(model.decoder.state_dict(), before.decoder.state_dict())
    assert "anew" not in start_model(model_of(), folder, tiny_tokenizer())
    frozen = OptimConfig(frozen=["labels"])
    with pytest.raises(
        UserError, match=r"reads mean, this run's would read regions.*--model\.model\.label_pooling mean"
    ):
        CaptionModule(tiny_config(label_pooling="regions"), optim=frozen, start_from=str(folder))
    CaptionModule(tiny_config(), optim=frozen, start_from=str(folder))
