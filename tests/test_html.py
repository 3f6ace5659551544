"""What all pages share."""

from __future__ import annotations

import json

import pytest

from latentcap.pages.html import embedded, escape, page_around_content, page_head


def test_texts_cannot_leave_their_place() -> None:
    assert escape("<b>&\udcff") == "&lt;b&gt;&amp;\ufffd"
    value = {"a": "</script><!--\u2028", "b": ["é\udcff", 1.5]}
    text = embedded(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028", "b": ["é\ufffd", 1.5]}


def test_pages_load_nothing() -> None:
    plain, scripted = page_head("A & B", "p {}", script=False), page_head("A & B", "p {}", script=True)
    for page in (plain, scripted):
        assert "default-src 'none'" in page
        assert "<title>A &amp; B</title>" in page
    assert "script-src" not in plain
    assert "script-src 'unsafe-inline'" in scripted


@pytest.mark.parametrize(("folder", "scripted"), [("gallery", True), ("heads", False)])
def test_a_page_is_whole_whatever_its_title_says(folder: str, scripted: bool) -> None:
    before, after = page_around_content(folder, title="{content}\n{script} <b>", style="main { color: red }")
    assert before.startswith("<!doctype html>")
    assert before.count("{content}\n{script} &lt;b&gt;") == 2  # in the tab and as the heading
    assert before.index("main { color: red }") < before.index("box-sizing")
    assert after.endswith("</body>\n</html>\n")
    assert ("<script>" in after) == ("script-src" in before) == scripted
