"""What is installed: the packages that pyproject.toml lists are the folders on disk, data files included."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
FOLDERS = {name: ROOT / folder for name, folder in SETTINGS["package-dir"].items()}


def packages() -> dict[str, Path]:
    """Every folder with Python files, and those of data alone, by the name that it is imported by."""
    found = {}
    for name, top in FOLDERS.items():
        for folder in (top, *(path for path in top.rglob("*") if path.is_dir())):
            if any(folder.glob("*.py")) or folder == top:
                found[".".join((name, *folder.relative_to(top).parts))] = folder
    return found


def test_every_folder_is_listed() -> None:
    assert sorted(SETTINGS["packages"]) == sorted(packages())


def test_every_file_beside_the_code_is_installed() -> None:
    places = packages()
    carried = {
        path
        for name, patterns in SETTINGS["package-data"].items()
        for pattern in patterns
        for path in places[name].glob(pattern)
    }
    beside = [path for name in ("latentcap", "latentcap.data") for path in FOLDERS[name].rglob("*.*")]
    recipes = FOLDERS["latentcap.configs"].glob("*.yaml")
    assert {path for path in (*beside, *recipes) if path.suffix not in (".py", ".pyc")} <= carried


def test_the_models_are_small_enough_to_be_carried() -> None:
    carried = [
        path for pattern in SETTINGS["package-data"]["latentcap.models"] for path in ROOT.glob(f"models/{pattern}")
    ]
    assert any(path.name == "model.safetensors" for path in carried)
    assert sum(path.stat().st_size for path in carried) < 30e6
