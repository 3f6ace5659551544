"""The radiology recipes: they train on small trees of their formats, and none moves what left and right mean."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from latentcap.captioner import Captioner
from latentcap.cli.train import main as train
from latentcap.config import ModelConfig
from latentcap.data.errors import UserError
from latentcap.data.readers import read_examples
from latentcap.search.config import SearchConfig
from latentcap.training.optim import OptimConfig
from tests.helpers import real_data
from tests.test_medpix import CASE, description, write
from tests.test_mimic import REPORT

CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = [CONFIGS / f"{name}.yaml" for name in ("medpix", "iu_xray", "mimic_cxr")]
FINDINGS = ("The heart is normal in size. The lungs are clear.", "Small left effusion. The heart is large.")
SMALLER = (  # the recipe, on a network and a schedule for tests
    "--trainer.max_epochs=1 --trainer.check_val_every_n_epoch=1 --trainer.enable_progress_bar=false "
    "--trainer.accelerator=cpu --trainer.precision=32-true --model.model.backbone.name=test_efficientnet "
    "--model.model.backbone.weights=random --model.model.backbone.image_size=64 --model.model.decoder.embed_dim=32 "
    "--model.model.decoder.hidden_dim=32 --model.search.max_length=6 --model.search.min_length=1 --data.batch_size=4 "
    "--data.tokenizer.min_frequency=1 --data.workers=1"
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_moves_a_side(path: Path) -> None:
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    model = ModelConfig.from_dict(recipe["model"]["model"])
    OptimConfig(**recipe["model"]["optim"])
    search = SearchConfig(**recipe["model"]["search"])
    assert search.max_length == model.decoder.max_length >= 60
    data = recipe["data"]
    assert data["crop_mode"] in ("pad", "resize")
    change = data.get("augmentation", {})
    assert not change.get("horizontal_flip")
    assert not change.get("rotate90")
    assert list(change.get("scale", (1, 1))) == [1, 1]
    assert recipe["model_folder"]["notice"]


def fit(recipes: str, source: Path, folder: Path, *more: str) -> Captioner:
    """Train a few steps with a recipe, or with several on top of each other, and load what that leaves."""
    configs = [part for name in recipes.split() for part in ("--config", str(CONFIGS / f"{name}.yaml"))]
    given = [f"--data.train={source}", f"--data.cache_dir={folder / 'cache'}", f"--trainer.default_root_dir={folder}"]
    assert train(["fit", *configs, *SMALLER.split(), *given, *more]) == 0
    return Captioner.from_pretrained(folder / "model")


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 40), dtype=np.uint8)).save(path)


def annotation(root: Path) -> Path:
    """R2Gen's form: two views a study, and one study with a single view."""
    content: dict[str, list[dict[str, object]]] = {"train": [], "val": []}
    for place in range(14):
        names = [f"CXR{place}_IM-1/{view}.png" for view in range(1 if place == 3 else 2)]
        for view, name in enumerate(names):
            picture(root / "images" / name, 2 * place + view)
        row = {"id": f"CXR{place}_IM-1", "report": FINDINGS[place % 2], "image_path": names}
        content["train" if place < 12 else "val"].append(row)
    (root / "annotation.json").write_text(json.dumps(content))
    return root / "annotation.json"


def mimic(root: Path) -> Path:
    """MIMIC-CXR's folder: a frontal and a lateral view of each study, reports with sections."""
    splits, metadata = ["dicom_id,study_id,subject_id,split"], ["dicom_id,subject_id,study_id,ViewPosition"]
    for place in range(8):
        subject, study = 10000000 + place, 50000000 + place
        folder = root / f"files/p10/p{subject}/s{study}"
        for view in ("PA", "LATERAL"):
            picture(folder / f"{view}{place}.jpg", place)
            splits.append(f"{view}{place},{study},{subject},{'train' if place < 6 else 'validate'}")
            metadata.append(f"{view}{place},{subject},{study},{view}")
        folder.with_suffix(".txt").write_text(REPORT.format("60 year old man.", FINDINGS[place % 2], "Fine."))
    for name, lines in (("split", splits), ("metadata", metadata)):
        (root / f"mimic-cxr-2.0.0-{name}.csv").write_text("\n".join(lines) + "\n")
    return root


def test_iu_xray_learns_findings_and_then_to_write_on_two_views(tmp_path: Path) -> None:
    source = annotation(tmp_path / "data")
    last = "--model.model.backbone.trainable=1"
    first = fit("iu_xray iu_xray_findings", source, tmp_path / "first", last)
    assert first.model.labels is not None
    assert first.model.labels.classes == {"findings": ["No Finding", "Pleural Effusion"]}
    start = (f"--model.start_from={tmp_path / 'first' / 'model'}", "--model.optim.frozen=[labels]")
    captioner = fit("iu_xray", source, tmp_path / "run", *start)
    assert captioner.model.config.max_views == 2
    assert captioner.model.config.reads_labels
    assert captioner.model.labels is not None
    assert torch.equal(captioner.model.labels.heads[0].weight, first.model.labels.heads[0].weight)
    val = [example for example in read_examples(source) if example.split == "val"]
    captions = captioner.caption([list(example.images) for example in val], max_length=6)
    assert all(caption.text for caption in captions)
    with pytest.raises(UserError, match=r"examples with up to 2 views.*--model\.model\.max_views 2"):
        fit("iu_xray", source, tmp_path / "one", "--model.model.max_views=1")


def test_mimic_cxr_trains_from_another_models_folder(tmp_path: Path) -> None:
    fit("iu_xray", annotation(tmp_path / "iu"), tmp_path / "first")
    start = f"--model.start_from={tmp_path / 'first' / 'model'}"
    captioner = fit("mimic_cxr", mimic(tmp_path / "data"), tmp_path / "run", start, "--trainer.max_epochs=3")
    assert captioner.model.config.backbone.trainable == "all"
    assert captioner.slots.names == ("frontal", "lateral")
    assert {"effusion", "indication"} <= set(captioner.tokenizer.vocab)


def test_medpix_learns_the_language_first(tmp_path: Path) -> None:
    kinds = ({"Type": "CT", "Location Category": "Head"}, {"Type": "MR", "Location Category": "Spine"})
    for split, count in (("train", 10), ("dev", 2)):
        names = [f"{split}{place}" for place in range(count)]
        planes = ("Axial", "Sagittal")
        rows = [description(name, name, Plane=planes[n % 2]) | kinds[n % 2] for n, name in enumerate(names)]
        cases = {name: CASE | {"Findings": f"An anechoic cyst is seen. It is {name}."} for name in names}
        write(tmp_path, split, rows, cases)
    first = fit("medpix medpix_text", tmp_path, tmp_path / "text")
    assert first.model.context is None
    assert "anechoic" in first.tokenizer.vocab
    assert "lesion" not in first.tokenizer.vocab
    second = fit("medpix", tmp_path, tmp_path / "run", f"--model.start_from={tmp_path / 'text' / 'model'}")
    assert second.model.context is not None
    assert {"anechoic", "lesion", "history"} <= set(second.tokenizer.vocab)


def test_real_indiana_reports_with_stand_in_images(tmp_path: Path) -> None:
    """The first studies of the real tables, with their real texts, splits and views."""
    folder = real_data("iu_xray")
    with open(folder / "indiana_projections.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = set(list(dict.fromkeys(row["uid"] for row in rows))[:24])
    data = tmp_path / "data"
    data.mkdir()
    for name in ("indiana_reports.csv", "indiana_projections.csv"):
        with open(folder / name, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            chosen = [row for row in reader if row["uid"] in kept]
        with open(data / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, reader.fieldnames or ())
            writer.writeheader()
            writer.writerows(chosen)
    for place, row in enumerate(row for row in rows if row["uid"] in kept):
        picture(data / "images" / row["filename"], place)
    captioner = fit("iu_xray", data, tmp_path / "run")
    assert {"lungs", "."} <= set(captioner.tokenizer.vocab)
    assert captioner.model.context is not None
