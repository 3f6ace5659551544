"""Recipes and models by their names, from any folder; what lies in that folder comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentcap.captioner import Captioner
from latentcap.cli.caption_options import parse
from latentcap.cli.train.lightning_cli import train, with_recipes
from latentcap.data.errors import UserError
from latentcap.heads.sweep_grid import embed_dim
from latentcap.in_the_box import DEFAULT_MODEL, find_model, find_recipe, model_names, recipe_names
from latentcap.training.module import CaptionModule
from tests.helpers import tiny_captioner

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_recipe_and_model_has_a_name() -> None:
    assert {find_recipe(name) for name in recipe_names()} == set((ROOT / "configs").glob("*.yaml"))
    assert {find_model(name) for name in model_names()} == {path.parent for path in ROOT.glob("models/*/config.json")}
    assert "scenes" in recipe_names()
    assert DEFAULT_MODEL in model_names()


def test_what_lies_here_comes_first() -> None:
    Path("scenes").write_text("data: {}")
    Path(DEFAULT_MODEL).mkdir()
    assert find_model(DEFAULT_MODEL) == ROOT / "models" / DEFAULT_MODEL  # a folder of images, say
    Path(DEFAULT_MODEL, "config.json").touch()
    assert find_recipe("scenes") == Path("scenes")
    assert find_model(DEFAULT_MODEL) == Path(DEFAULT_MODEL)


@pytest.mark.parametrize("name", ["scense", "configs/scenes.yaml", ""])
def test_an_unknown_recipe_lists_what_there_is(name: str) -> None:
    with pytest.raises(UserError, match=r"does not exist.*iu_xray.*scenes"):
        find_recipe(name)


def test_an_unknown_model_lists_what_there_is() -> None:
    with pytest.raises(UserError, match=f"'nowhere' does not exist.*{DEFAULT_MODEL}"):
        Captioner.from_pretrained("nowhere")


def test_training_takes_names_in_each_way_of_writing() -> None:
    scenes = str(ROOT / "configs" / "scenes.yaml")
    assert with_recipes(["fit", "--config", "scenes", "-c", scenes]) == ["fit", "--config", scenes, "-c", scenes]
    assert with_recipes(["fit", "--config=scenes", "--data.train=scenes"])[1:] == [
        f"--config={scenes}",
        "--data.train=scenes",
    ]
    later = with_recipes(["fit", "--data.train", "x", "--config", "scenes", "--data.seed=1"])
    assert later == ["fit", "--config", scenes, "--data.train", "x", "--data.seed=1"]  # settings change recipes
    assert embed_dim(["--config", "scenes"]) == 256
    with pytest.raises(UserError, match="recipe 'scense'"):
        with_recipes(["fit", "--config", "scense"])


def test_the_help_of_training_names_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"in the box ({', '.join(recipe_names())})" in text
    assert text.startswith("usage: latentcap train [options] fit")


def test_models_are_taken_by_name() -> None:
    assert parse(["photos"]).model == ROOT / "models" / DEFAULT_MODEL
    assert parse(["photos", "--model", "elsewhere"]).model == Path("elsewhere")
    boxed = CaptionModule(start_from=DEFAULT_MODEL)
    tiny_captioner().save(DEFAULT_MODEL)
    here = CaptionModule(start_from=DEFAULT_MODEL)
    assert Captioner.from_pretrained(DEFAULT_MODEL).model.config == here.config != boxed.config
