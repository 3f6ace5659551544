"""The model card."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.search.config import SearchConfig
from latentcap.training.card import as_typed, model_card
from tests.helpers import tiny_captioner


def card_of(captioner: Captioner) -> str:
    return model_card(
        captioner,
        command="latentcap train fit",
        data={"train": 3},
        source={"train": "captions.json"},
        scores={"val/cider": 1.0},
        settings={},
        epochs=1,
    )


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    captioner = tiny_captioner()
    card = card_of(captioner)
    captioner.save("FOLDER", card=card)
    Image.new("RGB", (70, 50), (200, 90, 30)).save("image.jpg")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    names: dict[str, object] = {}
    exec(code[1], names)
    assert capsys.readouterr().out
    for name in ("several", "samples"):
        (caption,) = names[name]  # type: ignore[misc, attr-defined]
        assert len(caption.alternatives) == 2


def test_every_setting_that_it_names_exists() -> None:
    text = re.search(r"settings of the search \((.*?), \.\.\.\)", card_of(tiny_captioner()))
    assert text
    assert {name.strip("` ") for name in text[1].split(",")} <= set(SearchConfig.__dataclass_fields__)


def test_the_command_is_one_that_can_be_typed() -> None:
    fit = ["fit", "--data.train", "my images"]
    for started in (["/v/bin/latentcap", "train"], ["scripts/train.py"], ["/x/latentcap/cli/main.py", "train"]):
        assert as_typed([*started, *fit]) == "latentcap train fit --data.train 'my images'"
    assert as_typed(["scripts/caption_ray.py", "photos"]) == "latentcap caption-ray photos"
    assert as_typed(["mine.py", "photos"]) == "python mine.py photos"
