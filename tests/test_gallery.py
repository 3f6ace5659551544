"""The gallery page: complete, escaped, readable by a browser, and never half written."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.gallery import write_gallery


class Page(HTMLParser):
    """Start tags with their attributes, and all text outside scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text += data + "\n"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def cards(self) -> list[dict[str, str | None]]:
        return [attributes for attributes in self.all("li") if "data-file" in attributes]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "wide.png"
    Image.new("RGB", (640, 320), "teal").save(path)
    return path


def test_a_card_shows_all_that_is_known(tmp_path: Path, picture: Path) -> None:
    record = {
        "file": str(picture),
        "caption": "a teal field",
        "score": 1.25,
        "references": ["teal", "all teal"],
        "context": "what colour?",
    }
    page = Page(write_gallery(tmp_path / "g.html", [record], title="My run"))
    assert [card["data-score"] for card in page.cards()] == ["1.25"]
    for text in ("My run", "a teal field", "1.250", "2 references", "all teal", "what colour?", str(picture)):
        assert text in page.text
    assert page.all("img")[0]["alt"] == "a teal field"


def test_thumbnails_are_embedded_small_jpegs_and_the_given_image_is_untouched(tmp_path: Path, picture: Path) -> None:
    given = Image.new("RGBA", (300, 400), (200, 0, 0, 128))
    records: list[dict[str, Any]] = [
        {"file": str(picture), "caption": "opened"},
        {"file": "nowhere.png", "caption": "given", "image": given},
        {"file": str(picture), "caption": "absent", "image": None},
    ]
    page = Page(write_gallery(tmp_path / "g.html", records, title="t", thumbnails=100))
    sizes = []
    for tag in page.all("img"):
        kind, _, data = str(tag["src"]).partition(",")
        assert kind == "data:image/jpeg;base64"
        sizes.append(Image.open(io.BytesIO(base64.b64decode(data))).size)
    assert sizes == [(100, 50), (75, 100), (100, 50)]
    assert given.size == (300, 400)
    assert given.mode == "RGBA"


def test_the_page_needs_no_network(tmp_path: Path, picture: Path) -> None:
    path = write_gallery(tmp_path / "g.html", [{"file": str(picture), "caption": "c"}], title="t")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("field", ["caption", "file", "error", "context", "references", "title"])
def test_no_text_becomes_markup(tmp_path: Path, field: str) -> None:
    hostile = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;"
    record: dict[str, Any] = {"file": "f", "caption": "c", "image": Image.new("L", (8, 8))}
    if field != "title":
        record[field] = [hostile] if field == "references" else hostile
    page = Page(write_gallery(tmp_path / "g.html", [record], title=hostile if field == "title" else "t"))
    assert len(page.all("script")) == 1
    assert len(page.all("img")) == 1
    assert "onerror" not in page.all("img")[0]
    assert hostile in page.text


def test_names_that_are_not_utf8_survive_as_replacement(tmp_path: Path) -> None:
    record = {"file": "b\udcffroken \ud800.jpg", "caption": "ok \udc80", "image": Image.new("RGB", (8, 8))}
    page = Page(write_gallery(tmp_path / "g.html", [record], title="t"))
    assert "b\ufffdroken \ufffd.jpg" in page.text
    assert page.all("img")[0]["alt"] == "ok \ufffd"


def test_errors_and_images_that_cannot_be_opened_are_cards(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    records = [
        {"file": str(tmp_path / "gone.jpg"), "caption": ""},
        {"file": str(broken), "caption": ""},
        {"file": str(broken), "caption": "", "error": "truncated upload"},
    ]
    page = Page(write_gallery(tmp_path / "g.html", records, title="t"))
    assert [card["class"] for card in page.cards()] == ["card failed"] * 3
    assert "No such file" in page.text
    assert "cannot identify" in page.text
    assert "truncated upload" in page.text


def test_controls_have_labels_and_the_page_is_valid_when_empty(tmp_path: Path) -> None:
    page = Page(write_gallery(tmp_path / "new" / "g.html", [], title="t"))
    labelled = {label["for"] for label in page.all("label")}
    controls = {tag["id"] for name in ("input", "select") for tag in page.all(name)}
    assert controls == labelled
    assert page.cards() == []
    assert page.all("html")[0]["lang"] == "en"


def test_an_interrupted_run_leaves_the_old_page_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "g.html"
    path.write_text("old")

    def records() -> Iterator[dict[str, Any]]:
        yield {"file": "a", "caption": "a", "image": Image.new("RGB", (8, 8))}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gallery(path, records(), title="t")
    assert [file.name for file in tmp_path.iterdir()] == ["g.html"]
    assert path.read_text() == "old"


def test_records_are_written_as_they_come(tmp_path: Path) -> None:
    image, written = Image.new("RGB", (8, 8)), []

    def records() -> Iterator[dict[str, Any]]:
        for number in range(300):
            yield {"file": str(number), "caption": "x" * 1000, "image": image}
            written.append(sum(file.stat().st_size for file in tmp_path.iterdir()))

    page = Page(write_gallery(tmp_path / "g.html", records(), title="t"))
    assert len(page.cards()) == 300
    assert written[150] > 100_000
