"""The gallery page: complete, escaped, readable by a browser, and never half written."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentcap.pages.gallery import write_gallery


class Page(HTMLParser):
    """Start tags with their attributes, the text outside scripts and styles, and the records that cards are made of."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside = ""
        self.records: list[dict[str, Any]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = "records" if ("type", "application/json") in attrs else tag

    def handle_data(self, data: str) -> None:
        if self.inside == "records" and data.strip():
            self.records += json.loads(data)
        elif self.inside not in ("script", "style"):
            self.text += data + "\n"

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


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
    (entry,) = page.records
    assert entry.pop("image")
    assert entry == record
    assert "My run" in page.text


def test_thumbnails_are_embedded_small_jpegs_and_the_given_image_is_untouched(tmp_path: Path, picture: Path) -> None:
    given = Image.new("RGBA", (300, 400), (200, 0, 0, 128))
    records: list[dict[str, Any]] = [
        {"file": str(picture), "caption": "opened"},
        {"file": "nowhere.png", "caption": "given", "image": given},
        {"file": str(picture), "caption": "absent", "image": None},
    ]
    page = Page(write_gallery(tmp_path / "g.html", records, title="t", thumbnails=100))
    sizes = []
    for entry in page.records:
        image = Image.open(io.BytesIO(base64.b64decode(entry["image"])))
        assert image.format == "JPEG"
        sizes.append(image.size)
    assert sizes == [(100, 50), (75, 100), (100, 50)]
    assert given.size == (300, 400)
    assert given.mode == "RGBA"


def test_the_page_needs_no_network(tmp_path: Path, picture: Path) -> None:
    path = write_gallery(tmp_path / "g.html", [{"file": str(picture), "caption": "c"}], title="t")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("field", ["caption", "file", "error", "context", "references", "title"])
def test_no_text_becomes_markup(tmp_path: Path, field: str) -> None:
    hostile = "\"'><script>alert(1)</script><!--<script><img src=x onerror=alert(1)>&amp;]"
    record: dict[str, Any] = {"file": "f", "caption": "c", "image": Image.new("L", (8, 8))}
    if field != "title":
        record[field] = [hostile] if field == "references" else hostile
    path = write_gallery(tmp_path / "g.html", [record], title=hostile if field == "title" else "t")
    page = Page(path)
    assert len(page.all("script")) == 2
    assert page.all("img") == []
    assert "<script>alert" not in path.read_text(encoding="utf-8")
    assert "innerHTML" not in path.read_text(encoding="utf-8")
    assert page.text.count(hostile) == 2 if field == "title" else page.records[0][field] == record[field]


def test_names_that_are_not_utf8_survive_as_replacement(tmp_path: Path) -> None:
    record = {"file": "b\udcffroken \ud800.jpg", "caption": "ok \udc80", "image": Image.new("RGB", (8, 8))}
    page = Page(write_gallery(tmp_path / "g.html", [record], title="t"))
    assert page.records[0]["file"] == "b\ufffdroken \ufffd.jpg"
    assert page.records[0]["caption"] == "ok \ufffd"


def test_errors_and_images_that_cannot_be_opened_are_cards(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    records = [
        {"file": str(tmp_path / "gone.jpg"), "caption": ""},
        {"file": str(broken), "caption": ""},
        {"file": str(broken), "caption": "", "error": "truncated upload"},
    ]
    page = Page(write_gallery(tmp_path / "g.html", records, title="t"))
    assert ["image" in entry for entry in page.records] == [False] * 3
    for entry, said in zip(page.records, ("No such file", "not an image", "truncated upload"), strict=True):
        assert said in entry["error"]


def test_controls_have_labels_and_the_page_is_valid_when_empty(tmp_path: Path) -> None:
    page = Page(write_gallery(tmp_path / "new" / "g.html", [], title="t"))
    labelled = {label["for"] for label in page.all("label")}
    controls = {tag["id"] for name in ("input", "select") for tag in page.all(name)}
    assert controls == labelled
    assert page.records == []
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
    assert len(page.records) == 300
    assert written[150] > 100_000


@pytest.mark.slow
def test_a_browser_makes_cards_of_what_is_in_sight_alone(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium to open the page with")
    image = Image.new("RGB", (8, 8))
    records = ({"file": f"{n}.jpg", "caption": f"<b>{n}</b>", "image": image, "score": -n} for n in range(10_000))
    path = write_gallery(tmp_path / "g.html", records, title="t")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path}/p"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert "10,000 images" in done.stdout
    assert 4 <= done.stdout.count('class="card"') <= 200
    assert "&lt;b&gt;0&lt;/b&gt;" in done.stdout
