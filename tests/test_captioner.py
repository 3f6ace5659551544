"""The predictor and its model folder."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from latentcap.batch.inputs import Input
from latentcap.batch.settings import WorkerSettings
from latentcap.batch.worker import Worker
from latentcap.captioner import Caption, Captioner
from latentcap.config import ContextConfig, FusionConfig
from latentcap.data.batches.context import ContextFields
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.errors import UserError
from latentcap.data.image import ImageRef
from latentcap.model.caption_model import CaptionModel
from tests.helpers import WORDS, tiny_captioner, tiny_config


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (70 + 9 * index, 50), (40 * index, 90, 255 - 40 * index)) for index in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_captioner().save(tmp_path / "model", half=False)
    return tmp_path / "model"


def test_saved_and_loaded_captions_are_the_same(folder: Path) -> None:
    before = tiny_captioner().caption(pictures(5), beam_size=3)
    after = Captioner.from_pretrained(folder, dtype=torch.float32).caption(pictures(5), beam_size=3)
    assert [caption.text for caption in before] == [caption.text for caption in after]
    assert [caption.score for caption in before] == pytest.approx([caption.score for caption in after], abs=1e-5)


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    captioner.save(tmp_path / "half")
    captioner.save(tmp_path / "full", half=False)
    half, full = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full"))
    assert half < 0.6 * full
    Captioner.from_pretrained(tmp_path / "half").caption(pictures(1))


def test_statistics_beyond_half_precision_are_kept(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    variance = captioner.model.backbone.net.get_buffer("bn1.running_var")
    variance[0] = 1e6
    captioner.save(tmp_path / "half")
    loaded = Captioner.from_pretrained(tmp_path / "half").model.backbone.net
    torch.testing.assert_close(loaded.get_buffer("bn1.running_var"), variance)
    assert loaded.get_parameter("conv_stem.weight").equal(
        captioner.model.backbone.net.get_parameter("conv_stem.weight").half().float()
    )


def test_captions_follow_weights_and_statistics_that_change() -> None:
    captioner = tiny_captioner()
    image, net = pictures(1), captioner.model.backbone.net
    for change in (net.get_parameter("conv_stem.weight"), net.get_buffer("bn1.running_mean")):
        before = captioner.caption(image)[0].score
        with torch.no_grad():
            change.add_(torch.randn(change.shape))
        after = captioner.caption(image)[0].score
        fresh = Captioner(captioner.model, tokenizer=captioner.tokenizer, image=captioner.image)
        assert after != before
        assert after == fresh.caption(image)[0].score


def test_a_captioner_may_be_made_for_inference_only(folder: Path) -> None:
    image = pictures(1)
    expected = Captioner.from_pretrained(folder, dtype=torch.float32).caption(image)[0].score
    with torch.inference_mode():
        captioner = Captioner.from_pretrained(folder, dtype=torch.float32)
        assert captioner.caption(image)[0].score == expected
    assert captioner.caption(image)[0].score == expected


def test_paths_images_and_batches_agree(folder: Path, tmp_path: Path) -> None:
    captioner = Captioner.from_pretrained(folder, dtype=torch.float32)
    paths = []
    for index, picture in enumerate(pictures(5)):
        paths.append(tmp_path / f"{index}.png")
        picture.save(paths[-1])
    one = captioner.caption(pictures(5), batch_size=1)
    assert [c.text for c in captioner.caption(paths, batch_size=2)] == [c.text for c in one]
    assert [c.text for c in captioner.caption([str(path) for path in paths])] == [c.text for c in one]


def test_a_large_photograph_is_decoded_as_small_as_the_program_does(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    Image.effect_noise((1600, 1200), 90).convert("RGB").save(path)
    captioner = Captioner.from_pretrained(folder)
    asked, transform = [], captioner.transform

    def watch(image: Image.Image) -> torch.Tensor:
        asked.append(image.size)
        return transform(image)

    captioner.transform = watch  # type: ignore[assignment]
    caption = captioner.caption([path])[0]
    assert asked == [(200, 150)]
    record = Worker(captioner, WorkerSettings(str(folder)))([Input("large.jpg", (ImageRef(str(path)),))])[0]
    assert (record["caption"], record["score"]) == (caption.text, round(caption.score, 4))


def test_a_caption_says_what_it_is_made_of(folder: Path) -> None:
    captioner = Captioner.from_pretrained(folder)
    caption = captioner.caption(pictures(2), beam_size=4, num_captions=3, return_attention=True)[0]
    assert caption.text == " ".join(caption.tokens)
    assert len(caption.alternatives) == 2
    assert caption.score >= caption.alternatives[0].score >= caption.alternatives[1].score
    words = len(caption.token_scores)
    assert words in (len(caption.tokens), len(caption.tokens) + 1)
    height, width = captioner.model.backbone.grid
    assert caption.visual_attention is not None
    assert caption.visual_attention.shape == (words, 2, 1, height, width)
    torch.testing.assert_close(caption.visual_attention.sum((2, 3, 4)), torch.ones(words, 2))
    assert caption.text_attention is not None
    assert [entry.shape for entry in caption.text_attention] == [(2, 1 + step + 1) for step in range(words)]
    with_text = captioner.caption(pictures(1), context="red circle", return_attention=True)[0]
    assert with_text.text_attention is not None
    assert with_text.text_attention[0].shape == (2, 1 + 2 + 1)  # state token, two words of context, <bos>


def test_each_word_has_its_probability(folder: Path) -> None:
    caption = Captioner.from_pretrained(folder).caption(pictures(1))[0]
    assert [word for word, _ in caption.words] == caption.tokens
    chances = [chance for _, chance in caption.words]
    assert chances == pytest.approx([math.exp(score) for score in caption.token_scores[: len(caption.tokens)]])
    assert caption.confidence == pytest.approx(
        math.prod(map(math.exp, caption.token_scores)) ** (1 / len(caption.token_scores))
    )
    assert all(0 < chance <= 1 for chance in chances)


def test_samples_of_an_image_do_not_depend_on_what_else_is_captioned(folder: Path) -> None:
    captioner = Captioner.from_pretrained(folder, dtype=torch.float32)
    images = pictures(5)
    settings = {"sample": True, "num_captions": 3, "seed": 4}
    together = captioner.caption(images, batch_size=5, **settings)
    backwards = captioner.caption(images[::-1], batch_size=2, **settings)[::-1]

    def texts(caption: Caption) -> list[str]:
        return [caption.text, *(other.text for other in caption.alternatives)]

    assert [texts(caption) for caption in together] == [texts(caption) for caption in backwards]
    assert len({text for caption in together for text in texts(caption)}) > 5
    other = captioner.caption(images, **{**settings, "seed": 5})
    assert [texts(caption) for caption in together] != [texts(caption) for caption in other]


def test_words_are_required_forbidden_and_never_last(tmp_path: Path) -> None:
    # Random weights that do not only say "two two two", which has no other ending.
    tiny_captioner(fusion=FusionConfig(2, 2, latent_dim=8, gates="output")).save(tmp_path)
    captioner = Captioner.from_pretrained(tmp_path)
    images = pictures(4)
    required = captioner.caption(images, required_words="star, the left", beam_size=4)
    assert all("star" in caption.tokens and "the left" in caption.text for caption in required)
    free = captioner.caption(images, beam_size=3)
    often = max({word for caption in free for word in caption.tokens}, key=lambda w: sum(w in c.tokens for c in free))
    forbidden = captioner.caption(images, forbidden_words=[often])
    assert any(often in caption.tokens for caption in free)
    assert not any(often in caption.tokens for caption in forbidden)
    last = {caption.tokens[-1] for caption in free}
    assert not last & {c.tokens[-1] for c in captioner.caption(images, bad_endings=sorted(last)) if c.tokens}
    repeats = captioner.caption(images, no_repeat_ngram=1, min_length=6)
    assert all(len(set(caption.tokens)) == len(caption.tokens) >= 6 for caption in repeats)
    diverse = captioner.caption(images, beam_size=6, beam_groups=3, num_captions=3)
    assert all(len({c.text, *(other.text for other in c.alternatives)}) == 3 for c in diverse)


@pytest.mark.parametrize("sample", [False, True])
def test_words_are_forbidden_to_any_number_of_pieces(sample: bool) -> None:
    """Scores come for a multiple of 16 of them."""
    tokenizer = CaptionTokenizer.train([WORDS] * 5, kind="bpe", vocab_size=290)
    assert len(tokenizer) % 16
    model = CaptionModel(tiny_config(), vocab_size=len(tokenizer))
    often = next(piece for piece in range(len(tokenizer)) if tokenizer.tokens([piece]) == [" re"])
    model.decoder.bias.data[often] = 20.0
    captioner = Captioner(model, tokenizer=tokenizer, image=tiny_captioner().image)
    assert "re" in captioner.caption(pictures(1), sample=sample)[0].text.split()
    assert "re" not in captioner.caption(pictures(1), sample=sample, forbidden_words="re")[0].text.split()


def test_settings_of_the_search_are_saved_with_the_model(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    captioner.search = captioner.search_config(forbidden_words="star", bad_endings="english", beam_size=4)
    captioner.save(tmp_path / "model")
    assert Captioner.from_pretrained(tmp_path / "model").search == captioner.search


def test_context_and_its_order_reach_the_model(folder: Path) -> None:
    captioner = Captioner.from_pretrained(folder, dtype=torch.float32)
    images = pictures(1) * 3
    contexts = ["red red circle", None, "blue square"]
    together = captioner.caption(images, contexts, beam_size=1)
    alone = [captioner.caption(images[:1], [context], beam_size=1)[0] for context in contexts]
    assert [c.score for c in together] == pytest.approx([c.score for c in alone], abs=1e-5)
    assert len({round(c.score, 5) for c in together}) == 3


def test_several_views(tmp_path: Path) -> None:
    captioner = tiny_captioner(max_views=2)
    a, b = pictures(2)
    mixed = captioner.caption([[a, b], a], beam_size=1)
    alone = [captioner.caption([[a, b]], beam_size=1)[0], captioner.caption([[a]], beam_size=1)[0]]
    assert [c.score for c in mixed] == pytest.approx([c.score for c in alone], abs=1e-5)
    with pytest.raises(UserError, match="3 views"):
        captioner.caption([[a, b, a]])


def test_numbers_and_categories() -> None:
    fields = ContextFields(numbers={"age": (50.0, 10.0)}, categories={"sex": ["f", "m"]})
    captioner = tiny_captioner(fields=fields)
    images = pictures(1) * 4
    captions = captioner.caption(
        images,
        numbers=[{"age": 50}, {"age": 90}, {"age": None}, {}],
        categories=[{"sex": "f"}, {"sex": "f"}, {"sex": "x"}, {}],
        beam_size=1,
    )
    assert captions[0].score != captions[1].score
    assert captions[2].score == captions[3].score  # missing, unknown and absent are the same
    with pytest.raises(UserError, match=r"no number 'agee'.*Did you mean 'age'"):
        captioner.caption(images[:1], numbers=[{"agee": 3}])
    with pytest.raises(UserError, match="no category"):
        captioner.caption(images[:1], categories=[{"kind": "x"}])


def test_misuse_is_explained(folder: Path) -> None:
    captioner = Captioner.from_pretrained(folder)
    with pytest.raises(UserError, match="list of images"):
        captioner.caption(pictures(1)[0])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Did you mean 'beam_size'"):
        captioner.caption(pictures(1), beam_sizes=3)
    with pytest.raises(UserError, match="only sampling uses it"):
        captioner.caption(pictures(1), temperature=0.5)
    with pytest.raises(UserError, match=r"does not know 'stra'.*nearest words are 'star'"):
        captioner.caption(pictures(1), required_words="stra")
    with pytest.raises(UserError, match="2 entries for 1 images"):
        captioner.caption(pictures(1), ["a", "b"])
    with pytest.raises(UserError, match="reads no context"):
        tiny_captioner(context=ContextConfig(encoder="none")).caption(pictures(1), "what is left")


@pytest.mark.parametrize(
    "search",
    [
        {"beam_size": 5},
        {"beam_size": 6, "beam_groups": 2, "num_captions": 4},
        {"beam_size": 5, "required_words": "star"},
        {"sample": True, "num_captions": 5},
    ],
)
def test_more_beams_than_there_are_words(search: dict[str, object]) -> None:
    tokenizer = CaptionTokenizer.train(["star"])
    model = CaptionModel(tiny_config(), vocab_size=len(tokenizer))
    captioner = Captioner(model, tokenizer=tokenizer, image=tiny_captioner().image)
    for caption in captioner.caption(pictures(3), **search):
        assert set(caption.text.split()) <= {"star"}


def test_a_folder_of_version_1_captions_as_before(tmp_path: Path) -> None:
    """It names neither gates nor positions; words and scores are those of the program that wrote such folders."""
    captioner = tiny_captioner(fusion=FusionConfig(2, 2, latent_dim=8, gates="output", position="latents"))
    captioner.save(tmp_path, half=False)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"]["fusion"]["latent_dim"] = None  # was embed_dim / heads
    for name in ("gates", "position"):
        del config["model"]["fusion"][name]
    (tmp_path / "config.json").write_text(json.dumps({**config, "version": 1}))
    found = Captioner.from_pretrained(tmp_path, dtype=torch.float32).caption(pictures(3), beam_size=3)
    assert [caption.text for caption in found] == ["circle three circle three three on on three"] * 3
    assert [caption.score for caption in found] == pytest.approx([-3.03777, -3.04574, -3.05276], abs=1e-4)


def test_a_folder_with_weights_for_a_context_that_nothing_reads(tmp_path: Path) -> None:
    """As those without context had them once."""
    captioner = tiny_captioner(context=ContextConfig(encoder="none"))
    expected = captioner.caption(pictures(2), beam_size=3)
    captioner.save(tmp_path, half=False)
    state = load_file(tmp_path / "model.safetensors")
    state["summarise_context.weight"], state["summarise_context.bias"] = torch.zeros(32, 32), torch.zeros(32)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = Captioner.from_pretrained(tmp_path, dtype=torch.float32).caption(pictures(2), beam_size=3)
    assert [caption.text for caption in found] == [caption.text for caption in expected]


def test_a_folder_that_is_not_whole_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        Captioner.from_pretrained(tmp_path / "nowhere")
    config = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"version": 99}, "version 99"),
        ({"format": "other"}, "not of latentcap"),
        ({"model": {**config["model"], "decoder": {"embd_dim": 3}}}, "Did you mean 'embed_dim'"),
        ({"model": {**config["model"], "decoder": {"embed_dim": 64, "hidden_dim": 32}}}, "does not fit"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match=message):
            Captioner.from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        Captioner.from_pretrained(folder)
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (folder / name).unlink()
        with pytest.raises(UserError, match=name):
            Captioner.from_pretrained(folder)


def test_a_pickle_is_never_opened(folder: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('a pickle was executed')",)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="safetensors"):
        Captioner.from_pretrained(folder)
    torch.save({"x": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="safetensors"):
        Captioner.from_pretrained(folder)


def test_start_up_imports_what_captioning_needs_alone() -> None:
    code = "import sys; from latentcap import Captioner; print({UNUSED} & set(sys.modules))"
    unused = {"lightning", "transformers", "torchmetrics", "jsonargparse", "pyarrow", "rich"}
    done = subprocess.run(
        [sys.executable, "-c", code.replace("{UNUSED}", repr(unused))], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_what_is_no_image_is_said() -> None:
    captioner = tiny_captioner()
    for wrong in (numpy.zeros((8, 8, 3), numpy.uint8), b"\xff\xd8", 3):
        with pytest.raises(UserError, match=r"a path or a PIL image, not (ndarray|bytes|int)"):
            captioner.caption([wrong])  # type: ignore[list-item]


def test_a_device_that_is_not_there(folder: Path) -> None:
    for device in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match=f"device {device} cannot be used"):
            Captioner.from_pretrained(folder, device=device)
