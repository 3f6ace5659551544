"""The radiology recipes: they parse, and none turns or cuts an image, which would change what left and right mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.config import ModelConfig
from pipeline.optim import OptimConfig
from pipeline.search_config import SearchConfig

RECIPES = [Path(__file__).parent.parent / "configs" / f"{name}.yaml" for name in ("medpix", "iu_xray", "mimic_cxr")]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_moves_a_side(path: Path) -> None:
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    model = ModelConfig.from_dict(recipe["model"]["model"])
    OptimConfig(**recipe["model"]["optim"])
    search = SearchConfig(**recipe["model"]["search"])
    assert search.max_length == model.decoder.max_length >= 80
    data = recipe["data"]
    assert data["crop_mode"] in ("pad", "resize")
    change = data.get("augmentation", {})
    assert not change.get("horizontal_flip")
    assert not change.get("rotate90")
    assert list(change.get("scale", (1, 1))) == [1, 1]
    assert recipe["model_folder"]["notice"]
