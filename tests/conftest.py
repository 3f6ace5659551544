"""Two threads and one seed for every test, and what several files of tests stand on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers import Program, tiny_captioner

torch.set_num_threads(2)
os.environ.setdefault("LATENTCAP_ENGINE", "torch")  # other engines compile for seconds, and have tests of their own

COLOURS = ("red", "green", "blue", "white", "black")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    folder = tmp_path_factory.mktemp("model")
    tiny_captioner().save(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with images in one colour each, some of them in a folder below."""
    for index, colour in enumerate(COLOURS):
        path = tmp_path / "photos" / ("deep" if index > 2 else "") / f"{colour}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 60), colour).save(path)
    return tmp_path / "photos"


@pytest.fixture
def caption(model: Path, tmp_path: Path) -> Program:
    """``latentcap caption`` with the tiny model."""
    return Program(model, tmp_path / "out" / "captions.jsonl")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium: install Debian's package 'chromium' to test the page in a browser")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=quiet)
        yield chromium
        chromium.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
