"""Views by name: a lateral image is never read as a frontal one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from latentcap.batch.inputs import Inputs
from latentcap.captioner import Captioner
from latentcap.config import BackboneConfig
from latentcap.data.batches.views import ViewSlots, in_slots
from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers import read_examples
from latentcap.model.fusion import Attention
from latentcap.training.cached_regions import cached_regions
from latentcap.training.losses import doubly_stochastic
from tests.helpers import picture, tiny_captioner


def study(*views: str, images: int = 0) -> Example:
    return Example("s", tuple(ImageRef(f"{n}.png") for n in range(images or len(views))), views=views)


def test_names_have_slots_frontal_first() -> None:
    studies = [study("lateral"), study("pa", "lateral"), study("ap"), study("other"), study("oblique"), study("other")]
    assert ViewSlots.of(studies, 3) == ViewSlots(3, ("frontal", "lateral", "other"))
    assert ViewSlots.of(studies, 2, known=("other",)).names == ("other", "frontal")
    assert ViewSlots.of([study(images=2)], 2).names == ()


@pytest.mark.parametrize(
    ("views", "slots"),
    [
        (("lateral",), [1]),
        (("PA",), [0]),
        (("lateral", "ap"), [1, 0]),
        (("oblique",), [2]),  # a slot of no name
        (("oblique", "other", "frontal"), [2, 1, 0]),
        (("lateral", "lateral"), [1, 2]),
    ],
)
def test_an_image_is_put_where_its_name_belongs(views: tuple[str, ...], slots: list[int]) -> None:
    assert ViewSlots(3, ("frontal", "lateral")).place(len(views), views) == slots


def test_images_without_names_keep_their_order() -> None:
    assert ViewSlots(3, ("frontal", "lateral")).place(2) == [0, 1]
    assert ViewSlots(3).place(3, ("b", "a", "c")) == [0, 1, 2]


def test_too_many_images_and_too_few_names_are_said() -> None:
    with pytest.raises(UserError, match=r"3 views.*at most 2.*max_views 3"):
        ViewSlots(2).place(3)
    with pytest.raises(UserError, match=r"1 names of views \(pa\) for 2 images"):
        ViewSlots(2).place(2, ("pa",))


def test_values_of_missing_views_are_zero_and_masked() -> None:
    values = torch.arange(1.0, 9.0).reshape(4, 2)
    placed, mask = in_slots(values, [[1], [1, 0], [0]])
    assert mask.tolist() == [[False, True], [True, True], [True, False]]
    assert placed.tolist() == [[[0, 0], [1, 2]], [[5, 6], [3, 4]], [[7, 8], [0, 0]]]
    placed, mask = in_slots(values, [[0, 1], [0, 1]])
    assert torch.equal(placed.flatten(0, 1), values)
    assert mask.all()


def test_a_table_names_its_views(tmp_path: Path) -> None:
    """To train on, and to caption; what is no name for each image is left aside."""
    rows = [
        {"image": "a.png", "views": ["lateral"]},
        {"image": ["b.png", "c.png"], "views": "pa, lateral"},
        {"image": "d.png", "views": 1532},
    ]
    lines = [json.dumps({**row, "caption": "clear", "context": str(place)}) for place, row in enumerate(rows)]
    (tmp_path / "table.jsonl").write_text("\n".join(lines))
    expected = [("lateral",), ("pa", "lateral"), ()]
    assert [example.views for example in read_examples(tmp_path / "table.jsonl")] == expected
    assert [item.views for item in Inputs([str(tmp_path / "table.jsonl")])] == expected


def test_a_lateral_image_alone_is_encoded_as_lateral(tmp_path: Path) -> None:
    """Also after the model folder was saved and read again; without its name it is the first view, as ever."""
    captioner = tiny_captioner(max_views=2)
    captioner.slots = ViewSlots(2, ("frontal", "lateral"))
    captioner.save(tmp_path / "model", half=False)
    captioner = Captioner.from_pretrained(tmp_path / "model", dtype=torch.float32)
    torch.nn.init.normal_(captioner.model.decoder.fusion.view)
    images = [captioner.transform(picture(64, 64))]
    named = captioner.encode([images, images], None, named=[("lateral",), ("pa",)])
    assert named.visual_mask is not None
    cells = named.visual.shape[1] // 2
    assert named.visual_mask[:, ::cells].tolist() == [[False, True], [True, False]]
    assert not torch.allclose(named.visual[0, cells:], named.visual[1, :cells], atol=0.1)
    unnamed = captioner.encode([images], None)
    torch.testing.assert_close(unnamed.visual[0], named.visual[1, :cells])
    by_name = captioner.caption([picture(64, 64)] * 2, views=[("lateral",), ("frontal",)], beam_size=1)
    assert by_name[0].score != pytest.approx(by_name[1].score, abs=1e-4)
    assert by_name[1].score == pytest.approx(captioner.caption([picture(64, 64)], beam_size=1)[0].score, abs=1e-5)


def test_regions_from_the_cache_are_put_in_the_same_slots(tmp_path: Path) -> None:
    captioner = tiny_captioner(max_views=2)
    captioner.slots = ViewSlots(2, ("frontal", "lateral"))
    picture(64, 64).save(tmp_path / "0.png")
    lateral = Example("s", (ImageRef(str(tmp_path / "0.png")),), views=("lateral",))
    regions = cached_regions(captioner, [lateral], tmp_path / "cache")
    _, tensors = regions.load([lateral], [0])
    assert tensors["view_mask"].tolist() == [[False, True]]
    frontal, side = tensors["regions"][0].chunk(2)
    assert not frontal.any()
    assert side.any()


def test_batch_statistics_are_of_the_images_that_exist() -> None:
    tiny = BackboneConfig(name="test_efficientnet", weights="random", image_size=64, trainable="all")
    images = torch.randn(3, 2, 3, 64, 64)
    mask = torch.tensor([[False, True], [True, False], [True, True]])
    images[~mask] = 0
    means = []
    for given, exist in ((images, mask), (images[mask].unsqueeze(1), None)):
        captioner = tiny_captioner(max_views=2, backbone=tiny)
        captioner.model.train().encode(images=given, view_mask=exist)
        means.append(captioner.model.backbone.net.get_buffer("bn1.running_mean"))
    torch.testing.assert_close(means[0], means[1])


def test_a_view_that_does_not_exist_is_not_expected_to_be_looked_at() -> None:
    even = Attention(torch.tensor([0.25, 0.25, 0.25, 0.25, 0, 0, 0, 0]).expand(1, 1, 3, 2, 8), None)
    words, regions = torch.ones(1, 1, 3, dtype=torch.bool), torch.tensor([[True] * 4 + [False] * 4])
    assert doubly_stochastic(even, words, regions).item() == pytest.approx(0, abs=1e-6)
    assert doubly_stochastic(even, words).item() == pytest.approx(1)
    first = Attention(torch.tensor([1.0, 0, 0, 0]).expand(1, 1, 3, 2, 4), None)
    padded = Attention(torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]).expand(1, 1, 3, 2, 8), None)
    assert doubly_stochastic(padded, words, regions).item() == pytest.approx(doubly_stochastic(first, words).item())
