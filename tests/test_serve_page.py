"""The server's page in a browser: an image in, a caption out, fewer heads, history, a phone's width, a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny_captioner
from tests.test_serve import Server, png

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("playwright.sync_api")


@pytest.mark.slow
def test_the_page_captions(browser: Any, tmp_path: Path) -> None:
    tiny_captioner().save(tmp_path / "tiny")
    pictures = []
    for colour in ("red", "navy"):
        pictures.append(tmp_path / f"{colour}.png")
        pictures[-1].write_bytes(png(colour))
    server = Server(tmp_path, "--model", "tiny", "--api-key", "secret")
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    faults: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(server.url)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.set_input_files("#file", str(pictures[0]))
        page.wait_for_selector("#status.bad")
        assert "key is missing" in page.inner_text("#status")
        page.fill("#key", "secret")
        page.click("#again")
        page.wait_for_selector("#caption:not([hidden])")
        expected = server.client.post(
            "/caption", files=[("image", ("a.png", png(), "image/png"))], headers={"Authorization": "Bearer secret"}
        ).json()
        assert page.inner_text("#caption") == expected["caption"]
        assert page.locator("#others li").count() == 2
        page.evaluate("document.getElementById('heads').value = 2; headsSaid()")
        assert page.inner_text("#headsaid") == "1 visual + 1 text"
        page.set_input_files("#file", str(pictures[1]))
        page.locator("#history li").nth(1).wait_for()
        page.locator("#history button").nth(1).focus()
        page.keyboard.press("Enter")
        assert page.inner_text("#caption") == expected["caption"]
        page.click("#look")
        page.frame_locator("#frame").locator("#words .chip").first.wait_for()
        assert not faults
        assert all(url.startswith((server.url, "blob:", "data:", "about:")) for url in asked)
    finally:
        page.close()
        server.close()
