"""An exported model captions as the program does, without PyTorch; what is not exported is refused with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.cli.export import main
from latentcap.config import ContextConfig, DecoderConfig, FusionConfig, Gates, Position
from latentcap.data.batches.context import ContextFields
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.batches.transforms import fit_image
from latentcap.data.errors import UserError
from latentcap.model.caption_model import CaptionModel
from latentcap.model.prune import prune_heads
from tests.helpers import picture, seeing_captioner, tiny_captioner, tiny_config, tiny_tokenizer

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from latentcap.export.folder import export_onnx
from latentcap.export.run import Model, read_image

FIELDS = ContextFields({"age": (50.0, 10.0)}, {"sex": ["female", "male"]})


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        picture(90 + 7 * number, 70, seed=number).save(path)
    return paths


def exported(captioner: Captioner, folder: Path, **settings: Any) -> Model:
    captioner.save(folder / "model", half=False)
    export_onnx(folder / "model", folder / "out", **settings)
    return Model(folder / "out")


def with_labels() -> Captioner:
    model = CaptionModel(
        tiny_config(reads_labels=True),
        vocab_size=len(tiny_tokenizer()),
        labels={"plane": ["axial", "coronal", "sagittal"], "words": ["cat", "dog", "grass", "snow"]},
        label_lists={"words": [0.5] * 4},
    )
    torch.nn.init.normal_(model.decoder.embedding.weight)
    assert model.labels is not None
    torch.nn.init.normal_(model.labels.heads[1].weight)
    model.labels.thresholds[3:] = torch.tensor([0.1, 0.5, 0.9, 0.4])
    return Captioner(model, tokenizer=tiny_tokenizer(), image=ImageConfig(size=(64, 64)))


def pruned() -> Captioner:
    captioner = tiny_captioner()
    prune_heads(captioner.model, [1, 2])
    return captioner


def with_gates(gates: Gates, position: Position) -> Captioner:
    """Gates that say much, and codes of places that matter."""
    captioner = tiny_captioner(fusion=FusionConfig(visual_heads=2, text_heads=2, gates=gates, position=position))
    fusion = captioner.model.decoder.fusion
    torch.nn.init.normal_(fusion.kind)
    fusion.head_gate.copy_(torch.tensor([0.4, 1.0, 0.7, 0.2]))
    for gate in (fusion.query_gate, fusion.modulate):
        if gate is not None:
            torch.nn.init.normal_(gate.weight, std=0.5)
    return captioner


MODELS: dict[str, Callable[[], Captioner]] = {
    "plain": tiny_captioner,
    "no context": lambda: tiny_captioner(context=ContextConfig(encoder="none")),
    "visual heads alone": lambda: tiny_captioner(fusion=FusionConfig(visual_heads=4, text_heads=0)),
    "text heads alone": lambda: tiny_captioner(fusion=FusionConfig(visual_heads=0, text_heads=4)),
    "several views": lambda: tiny_captioner(max_views=3),
    "odd sizes": lambda: tiny_captioner(
        decoder=DecoderConfig(embed_dim=36, hidden_dim=20, max_length=7),
        fusion=FusionConfig(visual_heads=2, text_heads=1, head_dim=5, latent_dim=12),
    ),
    "labels": with_labels,
    "guided": seeing_captioner,
    "guided, several views": lambda: seeing_captioner(max_views=2),
    "pruned": pruned,
    "gates of heads": lambda: with_gates("heads", "latents"),
    "a gate of the output, position in keys": lambda: with_gates("output", "keys"),
    "both gates, position in keys": lambda: with_gates("both", "keys"),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_captions_in_any_batch(name: str, tmp_path: Path) -> None:
    captioner = MODELS[name]()
    model = exported(captioner, tmp_path)
    paths = pictures(tmp_path, 16)
    for batch, beams in ((1, 3), (3, 1), (16, 4)):
        model.config["search"]["beam_size"] = beams
        expected = captioner.caption([str(path) for path in paths[:batch]], beam_size=beams)
        found = model.caption([[path] for path in paths[:batch]])
        assert [entry["caption"] for entry in found] == [caption.text for caption in expected]
        assert [entry["score"] for entry in found] == pytest.approx([caption.score for caption in expected], abs=1e-4)
        assert [entry["labels"] for entry in found] == [caption.labels for caption in expected]
        if name == "labels":
            assert any(";" in entry["labels"]["words"] for entry in found)


@pytest.mark.parametrize("search", [
    {"length_penalty": 0.0}, {"min_length": 6}, {"max_length": 3}, {"max_length": 2, "min_length": 2, "beam_size": 1},
    {"beam_size": 16, "length_penalty": 2.0}, {"guidance": 0.0}, {"guidance": 3.0, "max_length": 1},
])  # fmt: skip
@pytest.mark.parametrize("make", [tiny_captioner, seeing_captioner])
def test_the_same_search(make: Callable[[], Captioner], search: dict[str, Any], tmp_path: Path) -> None:
    captioner = make()
    paths = pictures(tmp_path, 5)
    exported(captioner, tmp_path)
    expected = captioner.caption([str(path) for path in paths], **search)
    found = Model(tmp_path / "out", **search).caption([[path] for path in paths])
    assert [entry["caption"] for entry in found] == [caption.text for caption in expected]
    assert [entry["score"] for entry in found] == pytest.approx([caption.score for caption in expected], abs=1e-4)


def test_context_and_views(tmp_path: Path) -> None:
    captioner = tiny_captioner(fields=FIELDS, max_views=3)
    model = exported(captioner, tmp_path)
    paths = pictures(tmp_path, 4)
    for text, known in ((None, {}), ("a red circle", {"age": "58"}), ("square", {"sex": "male"})):
        fields: dict[str, Any] = {
            "numbers": [{"age": 58.0} if "age" in known else {}] * 2,
            "categories": [{"sex": "male"} if "sex" in known else {}] * 2,
        }
        expected = captioner.caption(
            [[str(path) for path in views] for views in (paths[:2], paths[2:])], text, **fields
        )
        found = model.caption([paths[:2], paths[2:]], text, known)
        assert [entry["score"] for entry in found] == pytest.approx([caption.score for caption in expected], abs=1e-4)
    with pytest.raises(ValueError, match="at most 3"):
        model.caption([paths])
    with pytest.raises(ValueError, match="knows no 'weight'; it reads age, sex"):
        model.caption([paths[:1]], known={"weight": "3"})


def test_nested_heads(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    model = exported(captioner, tmp_path, heads="1+1")
    paths = pictures(tmp_path, 3)
    expected = Captioner.from_pretrained(tmp_path / "model", dtype=torch.float32, heads="1+1").caption(
        [*map(str, paths)]
    )
    assert [entry["caption"] for entry in model.caption([[path] for path in paths])] == [c.text for c in expected]


def test_pieces(tmp_path: Path) -> None:
    tokenizer = CaptionTokenizer.train(["Ein grünes Feld.", "Zwei Häuser am Fluß"], kind="bpe", vocab_size=280)
    model = CaptionModel(tiny_config(), vocab_size=len(tokenizer))
    torch.nn.init.normal_(model.decoder.embedding.weight)
    captioner = Captioner(model, tokenizer=tokenizer, image=ImageConfig(size=(64, 64)))
    paths = pictures(tmp_path, 4)
    found = exported(captioner, tmp_path).caption([[path] for path in paths])
    assert [entry["caption"] for entry in found] == [caption.text for caption in captioner.caption([*map(str, paths)])]


def test_half_precision_halves_the_graphs(tmp_path: Path) -> None:
    captioner = tiny_captioner(decoder=DecoderConfig(embed_dim=64, hidden_dim=128, max_length=8))
    captioner.save(tmp_path / "model")
    paths = pictures(tmp_path, 3)
    found = {}
    for half in (False, True):
        export_onnx(tmp_path / "model", tmp_path / str(half), half=half)
        scores = [entry["score"] for entry in Model(tmp_path / str(half)).caption([[path] for path in paths])]
        found[half] = scores, (tmp_path / str(half) / "encode.onnx").stat().st_size
    assert found[True][0] == pytest.approx(found[False][0], rel=0.01)
    assert found[True][1] < 0.65 * found[False][1]


def test_eight_bits_are_a_quarter_and_nearly_the_same(tmp_path: Path) -> None:
    import onnx

    captioner = tiny_captioner(
        decoder=DecoderConfig(embed_dim=128, hidden_dim=256, max_length=8), fields=FIELDS, max_views=2
    )
    captioner.save(tmp_path / "model")
    (tmp_path / "images" / "more").mkdir(parents=True)
    paths = pictures(tmp_path / "images", 6)
    picture(50, 40, seed=9).save(tmp_path / "images" / "more" / "a.png")
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found, sizes, kinds = {}, {}, {}
    for name, options in (("float", []), ("int8", ["--int8", str(tmp_path / "images")])):
        assert main(["onnx", str(tmp_path / "model"), str(tmp_path / name), *options]) == 0
        model = Model(tmp_path / name)
        known = {"age": "58", "sex": "male"}
        found[name] = [entry["score"] for entry in model.caption([[path] for path in paths], "a red circle", known)]
        graphs = [onnx.load(tmp_path / name / f"{graph}.onnx").graph for graph in ("encode", "step")]
        kinds[name] = [{node.op_type for node in graph.node} for graph in graphs]
        sizes[name] = sum(graph.ByteSize() for graph in graphs)
    assert found["int8"] == pytest.approx(found["float"], rel=0.1)
    assert found["int8"] != found["float"]
    assert sizes["int8"] < 0.4 * sizes["float"]  # what is not weights is a third
    assert {"DequantizeLinear", "MatMulInteger"} <= kinds["int8"][0]
    assert "MatMulInteger" in kinds["int8"][1]


def test_eight_bits_need_images(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "model")
    (tmp_path / "images").mkdir()
    command = ["onnx", str(tmp_path / "model"), str(tmp_path / "out"), "--int8", str(tmp_path / "images")]
    with pytest.raises(UserError, match="no images in"):
        main(command)
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match="not one of the 1 images"):
        main(command)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("image", [
    ImageConfig(size=(30, 41)), ImageConfig(size=(50, 50), interpolation="bilinear", crop_mode="pad"),
    ImageConfig(size=(33, 20), crop_mode="crop", crop_pct=0.87), ImageConfig(size=(24, 24), interpolation="lanczos"),
    ImageConfig(size=(25, 31), mean=(0.4,), std=(0.2,), crop_mode="pad"),
])  # fmt: skip
def test_images_are_read_to_the_last_bit_as_the_program_does(image: ImageConfig, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (83, 61, 3), dtype=np.uint8))
    for picture_of in (noise, noise.resize((20, 15)), noise.convert("L"), picture(200, 120)):
        picture_of.save(tmp_path / "a.png")
        expected = fit_image(picture_of.convert("RGB"), image).numpy()
        assert np.array_equal(read_image(tmp_path / "a.png", image.to_dict()), expected)


def test_transparency_is_white_and_deep_colour_refused(tmp_path: Path) -> None:
    settings = ImageConfig(size=(8, 8)).to_dict()
    Image.new("RGBA", (9, 9), (200, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", settings) == 255).all()
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(OSError, match="more than 8 bits"):
        read_image(tmp_path / "deep.png", settings)


def test_the_program_runs_alone(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    captioner.save(tmp_path / "model")
    assert main(["onnx", str(tmp_path / "model"), str(tmp_path / "out")]) == 0
    assert main(["onnx", str(tmp_path / "model"), str(tmp_path / "out")]) == 0  # again into its own folder
    paths = pictures(tmp_path, 2)
    (tmp_path / "broken.png").write_text("no image")
    no_torch = "import sys; sys.modules['torch'] = sys.modules['latentcap'] = None; import runpy; "
    command = [sys.executable, "-c", no_torch + "runpy.run_path(sys.argv.pop(1), run_name='__main__')"]
    program = [str(tmp_path / "out" / "run.py"), *map(str, paths), str(tmp_path / "broken.png")]
    done = subprocess.run([*command, *program, "--json"], capture_output=True, text=True, check=False)
    expected = Captioner.from_pretrained(tmp_path / "model", dtype=torch.float32).caption([*map(str, paths)])
    assert [json.loads(line)["caption"] for line in done.stdout.splitlines()] == [caption.text for caption in expected]
    assert done.returncode == 1
    assert "cannot read" in done.stderr
    done = subprocess.run([*command, *program[:2], "--beam-size", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"holds other things \('thesis.tex'\)"):
        main(["onnx", str(tmp_path / "model"), str(tmp_path / "full")])
    with pytest.raises(UserError, match="is a file"):
        main(["onnx", str(tmp_path / "model"), str(tmp_path / "full" / "thesis.tex")])
    routed = tiny_captioner(fusion=FusionConfig(visual_heads=3, text_heads=3, routed_top_k=1, head_dim=8, latent_dim=8))
    routed.save(tmp_path / "routed")
    with pytest.raises(UserError, match="routes its heads"):
        main(["onnx", str(tmp_path / "routed"), str(tmp_path / "out")])
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["search"]["bad_endings"] = ["the"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"searches with bad_endings.*Take it out"):
        main(["onnx", str(tmp_path / "model"), str(tmp_path / "out")])
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"lacks tokenizer\.json"):
        main(["onnx", str(tmp_path / "model"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
