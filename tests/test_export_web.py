"""The exported page in a browser: the caption that Python gives, from a static server, and nothing asked of others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from latentcap.captioner import Captioner
from latentcap.cli.export import main
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.errors import UserError
from tests.helpers import picture, seeing_captioner, tiny_captioner

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from latentcap.export.run import Model


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def runtime() -> Path:
    package = Path(os.environ.get("ONNXRUNTIME_WEB", "node_modules/onnxruntime-web"))
    if not package.is_dir():
        pytest.skip("no onnxruntime-web: npm install onnxruntime-web, or name its folder in ONNXRUNTIME_WEB")
    return package


@pytest.mark.slow
@pytest.mark.parametrize(("make", "bits"), [(tiny_captioner, 32), (tiny_captioner, 8), (seeing_captioner, 32)])
def test_the_page_captions_as_python_does(
    make: Callable[[], Captioner], bits: int, browser: Any, runtime: Path, tmp_path: Path
) -> None:
    make().save(tmp_path / "model")
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{number}.png" for number in range(10)]
    for number, path in enumerate(paths):
        picture(70 + 13 * number, 120 - 8 * number, seed=number).save(path)
    how = ["--int8", str(tmp_path / "images")] if bits == 8 else []
    assert main(["web", str(tmp_path / "model"), str(tmp_path / "out"), "--runtime", str(runtime), *how]) == 0
    assert main(["onnx", str(tmp_path / "model"), str(tmp_path / "graphs"), *how]) == 0
    model = Model(tmp_path / "graphs")
    expected = [model.caption([[path]])[0]["caption"] for path in paths]  # one by one, as the page does
    if bits == 32:
        captioner = Captioner.from_pretrained(tmp_path / "model", dtype=torch.float32)
        assert expected == [caption.text for caption in captioner.caption([*map(str, paths)])]
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "out")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.set_default_timeout(120_000)
    faults: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(address)
        for path, caption in zip(paths, expected, strict=True):
            page.set_input_files("#file", str(path))
            page.wait_for_selector("#caption:not([hidden])")
            assert page.inner_text("#caption") == caption
            if path is paths[0]:
                assert "first caption" in page.inner_text("#seconds")
        (tmp_path / "broken.png").write_text("no image")
        page.set_input_files("#file", str(tmp_path / "broken.png"))
        page.wait_for_selector("#status.bad")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert not [fault for fault in faults if "blob:" not in fault]
        assert all(url.startswith((address, "blob:", "data:")) for url in asked)
    finally:
        page.close()
        server.shutdown()
        server.server_close()


def test_what_the_page_cannot_do_is_refused(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    captioner.save(tmp_path / "model")
    (tmp_path / "runtime").mkdir()
    command = ["web", str(tmp_path / "model"), str(tmp_path / "out"), "--runtime", str(tmp_path / "runtime")]
    with pytest.raises(UserError, match=r"does not hold onnxruntime-web.*npm install"):
        main(command)
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / "runtime" / name).write_text("")
    captioner.image = ImageConfig(size=(64, 64), interpolation="lanczos")
    captioner.save(tmp_path / "model")
    with pytest.raises(UserError, match="resizes its images by 'lanczos'"):
        main(command)
    assert not (tmp_path / "out").exists()
