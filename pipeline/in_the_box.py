"""What comes with latentcap and is found by its name from anywhere: recipes to train by, and trained models."""

from __future__ import annotations

from pathlib import Path

from latentcap.data.errors import UserError, did_you_mean
from latentcap.hub import fetch, is_repository

DEFAULT_MODEL = "photos"  # what captions where no model is named


def recipe_names() -> list[str]:
    return sorted(path.stem for path in _folder("configs").glob("*.yaml"))


def model_names() -> list[str]:
    return sorted(path.parent.name for path in _folder("models").glob("*/config.json"))


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe that is given by its path, or by its name in the box. A file that is there comes first.

    Raises UserError for one that does not exist.
    """
    if Path(name).is_file():
        return Path(name)
    if str(name) in recipe_names():
        return _folder("configs") / f"{name}.yaml"
    raise UserError(
        f"recipe '{name}' does not exist.{did_you_mean(str(name), recipe_names())} Give the path of a YAML file, or a "
        f"recipe in the box: {', '.join(recipe_names())}."
    )


def find_model(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a model that is given by its path, or by its name in the box. A model that is there comes first.

    A folder of images that has the name of a model is not taken for it. ``user/name`` that is nothing here is fetched
    from the hub, at a ``revision``. Another path of nothing is returned as it is.

    Raises UserError where the hub has it not.
    """
    boxed = str(name) in model_names() and not (Path(name) / "config.json").is_file()
    if not boxed and is_repository(name):
        return fetch(str(name), revision)
    return _folder("models") / name if boxed else Path(name)


def _folder(name: str) -> Path:
    """A folder of the box: inside the package where it is installed, beside the package in a checkout."""
    here = Path(__file__).parent
    return here / name if (here / name).is_dir() else here.parent / name
