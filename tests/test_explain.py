"""The page of where heads looked: what it holds, that nothing in it can run, and how it behaves in a browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentcap.captioner import Caption, Captioner
from latentcap.cli.explain import main
from latentcap.config import FusionConfig
from latentcap.data.batches.context import ContextFields
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.errors import UserError
from latentcap.pages.explain import bertviz_arguments, caption_record, context_names, write_page
from latentcap.pages.explain.record import as_seen, packed
from latentcap.pages.viridis import hex_colour
from tests.helpers import tiny_captioner

CONTEXT = "the large red circle"
NASTY = "</script><script>document.title='owned'</script> <!-- \u2028 & \"'"


def captioned(captioner: Captioner, context: str | None = CONTEXT, views: int = 1) -> Caption:
    images = [[Image.new("RGB", (80, 60), "red")] * views]
    return captioner.caption(images, context, return_attention=True)[0]


def unpacked(packed: dict[str, Any]) -> torch.Tensor:
    content = torch.tensor(list(base64.b64decode(packed["bytes"])), dtype=torch.float32)
    peaks = torch.tensor(packed["peaks"])
    return content.view(*peaks.shape, packed["size"]) / 255 * peaks.unsqueeze(-1)


def records(page: Path) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json" class="record">(.*?)</script>', page.read_text())
    return [json.loads(record) for record in found]


def test_a_record_holds_all_attention() -> None:
    captioner = tiny_captioner(max_views=2)
    caption = captioned(captioner, views=2)
    views = [Image.new("RGB", (900, 600), "red")] * 2
    record = caption_record(captioner, caption, file="x.png", views=views, context=CONTEXT)
    assert caption.visual_attention is not None
    assert caption.text_attention is not None
    assert record["grid"] == list(caption.visual_attention.shape[2:])
    visual, text = unpacked(record["visual"]), unpacked(record["text"])
    torch.testing.assert_close(visual, caption.visual_attention.flatten(2), atol=2e-3, rtol=0)
    for step, row in enumerate(caption.text_attention):
        torch.testing.assert_close(text[step, :, : row.shape[-1]], row, atol=2e-3, rtol=0)
        assert text[step, :, row.shape[-1] :].sum() == 0
    assert record["known"] == ["(context)", "the", "large", "red", "circle"]
    assert record["read"] == ["(start)", *record["words"]][: len(record["words"])]
    assert (record["views"][0]["width"], record["views"][0]["height"]) == (480, 320)


def test_nothing_from_outside_ends_a_script(tmp_path: Path) -> None:
    record = {"file": NASTY + "\udcff", "error": NASTY}
    page = write_page(tmp_path / "page.html", [record], title=NASTY)
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 3  # colours, the record, the page's own
    assert "<title>&lt;/script&gt;" in text
    assert records(page) == [{"file": NASTY + "\ufffd", "error": NASTY}]
    assert not list(tmp_path.glob("*.part"))
    assert not re.search(r"https?://", text)


def test_bertviz_arguments() -> None:
    fields = ContextFields(numbers={"age": (50.0, 10.0)}, categories={"sex": ["f", "m"]})
    captioner = tiny_captioner(fields=fields)
    caption = captioned(captioner)
    arguments = bertviz_arguments(captioner, caption, CONTEXT)
    (cross,), (decoder,) = arguments["cross_attention"], arguments["decoder_attention"]
    steps, regions = len(caption.token_scores), 4
    assert arguments["encoder_tokens"][:2] == ["1.1", "1.2"]
    assert arguments["encoder_tokens"][regions:] == ["(context)", "age", "sex", "the", "large", "red", "circle"]
    assert len(arguments["decoder_tokens"]) == steps
    assert cross.shape == (1, 4, steps, len(arguments["encoder_tokens"]))
    assert decoder.shape == (1, 4, steps, steps)
    torch.testing.assert_close(cross.sum(-1) + decoder.sum(-1), torch.ones(1, 4, steps))
    assert decoder.triu(1).sum() == 0
    assert cross[0, :2, :, regions:].sum() == 0
    with pytest.raises(ValueError, match="return_attention"):
        bertviz_arguments(captioner, captioner.caption([Image.new("RGB", (80, 60))])[0])


def test_bertviz_arguments_leave_padding_out() -> None:
    captioner = tiny_captioner()
    images = [Image.new("RGB", (80, 60), "red")] * 2
    alone = captioned(captioner)
    padded = captioner.caption(images, [CONTEXT, CONTEXT + " on the left"], return_attention=True)[0]
    expected, found = (bertviz_arguments(captioner, caption, CONTEXT) for caption in (alone, padded))
    assert found["encoder_tokens"] == expected["encoder_tokens"]
    assert found["decoder_tokens"] == expected["decoder_tokens"]
    torch.testing.assert_close(found["cross_attention"], expected["cross_attention"], atol=1e-4, rtol=1e-4)


def test_heads_of_one_kind() -> None:
    for heads in (FusionConfig(visual_heads=4, text_heads=0), FusionConfig(visual_heads=0, text_heads=4)):
        captioner = tiny_captioner(fusion=heads)
        caption = captioned(captioner)
        record = caption_record(captioner, caption, file="x", views=[Image.new("RGB", (8, 8))], context=CONTEXT)
        assert ("visual" in record) == bool(heads.visual_heads)
        assert record["text"]["heads"] == heads.text_heads
        (cross,) = bertviz_arguments(captioner, caption, CONTEXT)["cross_attention"]
        assert cross.shape[1] == 4
    assert context_names(captioner)[0] == "(no context)"
    assert packed(torch.zeros(3, 0, 3))["bytes"] == ""


def test_what_the_grid_covers() -> None:
    image = Image.new("RGB", (100, 50), "red")
    image.paste("blue", (0, 0, 25, 50))
    assert as_seen(image, ImageConfig(size=(64, 64))) is image
    seen = as_seen(image, ImageConfig(size=(64, 64), crop_mode="crop"))
    assert seen.size == (64, 64)
    assert seen.getpixel((5, 30))[0] > 200  # the centre is red throughout


def test_colours_run_from_dark_to_bright() -> None:
    assert (hex_colour(0), hex_colour(1)) == ("#440154", "#fde725")


# The program ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_captioner(max_views=2).save(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("a & b.png", "red"), ("c.png", "blue")):
        Image.new("RGB", (80, 60), colour).save(folder / name)
    (folder / "d.jpg").write_bytes(b"no image")
    return folder


def explain(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_a_folder_with_a_broken_file(model: Path, photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert explain(photos, "--model", model, "--output", page, "--context", CONTEXT) == 3
    found = records(page)
    assert [record["file"] for record in found] == ["a & b.png", "c.png", "d.jpg"]
    assert "error" in found[2]
    assert found[0]["known"][1] == "the"


def test_views_of_one_example(model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "d.jpg").unlink()
    page = tmp_path / "report.html"
    assert explain(photos, "--model", model, "--output", page, "--views") == 0
    (record,) = records(page)
    assert len(record["views"]) == record["grid"][0] == 2
    assert explain(photos, "--model", model, "--output", page, "--limit", "1") == 0
    assert len(records(page)) == 1


def test_numbers_and_categories_are_read(photos: Path, tmp_path: Path) -> None:
    fields = ContextFields(numbers={"age": (50.0, 10.0)}, categories={"sex": ["female", "male"]})
    tiny_captioner(fields=fields).save(tmp_path / "clinic")
    page, given = tmp_path / "report.html", ["--model", tmp_path / "clinic", "--output", tmp_path / "report.html"]
    weights = []
    for known in ([], ["--known", "age=90", "--known", "sex=male"]):
        assert explain(photos / "c.png", *given, "--context", CONTEXT, *known) == 0
        weights.append(records(page)[0]["text"]["bytes"])
    assert weights[0] != weights[1]
    for known, words in (
        ("agee=9", "Did you mean 'age'"),
        ("age=old", "is no number"),
        ("sex=mal", "Accepted: female, male"),
        ("age", "not NAME=VALUE"),
    ):
        with pytest.raises(UserError, match=words):
            explain(photos / "c.png", *given, "--known", known)


def test_mistakes_are_told(model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--limit 0"):
        explain(photos, "--model", model, "--output", tmp_path / "r.html", "--limit", "0")
    with pytest.raises(UserError, match="a folder"):
        explain(photos, "--model", model, "--output", tmp_path)
    assert explain(photos / "d.jpg", "--model", model, "--output", tmp_path / "r.html") == 1


# The page in a browser ------------------------------------------------------------------------------------------------

KEYS = """<script>
const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const seen = () => [state.image, state.word, state.head].join(" ");
const steps = KEYS.map(key => { press(key); return seen(); });
document.querySelector("#sheet td[data-head=t1]").click();
steps.push(seen());
document.querySelector("#words [data-word='0']").dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
steps.push(seen());
const canvas = document.querySelector("#views canvas");
press("a");
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
document.body.dataset.result = JSON.stringify({
  steps, painted: pixels.some(value => value > 0), selected: document.querySelectorAll("[aria-selected=true]").length,
  checked: document.querySelector("#heads :checked").value, said: document.getElementById("said").textContent,
  cells: document.querySelectorAll("#sheet canvas").length, title: document.title,
});
</script></body>"""


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium: install Debian's package 'chromium' to test the page in a browser")
    return found


def test_keys_and_pointer_move_through_words_heads_and_images(model: Path, photos: Path, tmp_path: Path) -> None:
    program = browser()
    page = tmp_path / "report.html"
    assert explain(photos, "--model", model, "--output", page, "--context", NASTY) == 3
    keys = ["ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp", "End", "Home", "PageDown", "ArrowRight"]
    page.write_text(page.read_text().replace("</body>", KEYS.replace("KEYS", json.dumps(keys))))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'user'}"]
    done = subprocess.run(
        [program, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    match = re.search(r'data-result="([^"]*)"', done.stdout)
    assert match, done.stderr[-2000:]
    result = json.loads(match[1].replace("&quot;", '"').replace("&amp;", "&"))
    first, second = records(page)[:2]
    last = len(first["words"]) - 1
    expected = ["0 1 all", "0 1 visual", "0 1 v0", "0 0 v0", "0 0 visual", f"0 {last} visual", "0 0 visual"]
    expected += ["1 0 visual", "1 1 visual", "1 0 t1", "1 0 t1"]
    assert result["steps"] == expected
    assert result["checked"] == "all"
    assert result["selected"] == 1
    assert result["painted"]
    assert result["cells"] == 4 * len(second["words"])
    assert second["words"][0] in result["said"]
    assert result["title"] == "Where each head looked"
