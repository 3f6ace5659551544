"""Clinical agreement: counted by hand, with each policy for doubt; and terms of CT and MR captions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from latentcap.metrics.bootstrap import draw, interval
from latentcap.metrics.clinical.imaging_terms import imaging_terms
from latentcap.metrics.clinical.scores import chexpert_agreement, imaging_agreement, named_agreement
from tests.helpers import real_data

GIVEN = ["Cardiomegaly. No effusion.", "The lungs are clear.", "Possible pneumonia."]
WANTED = [["Cardiomegaly and effusion."], ["Heart size normal."], ["Pneumonia."]]


def test_agreement_is_counted_by_hand() -> None:
    """Hits: cardiomegaly, no finding, pneumonia (doubt counts); missed: effusion."""
    agreement = chexpert_agreement(GIVEN, WANTED)
    scores = agreement.scores()
    assert scores["precision micro"] == 1
    assert scores["recall micro"] == pytest.approx(3 / 4)
    assert scores["F1 micro"] == pytest.approx(6 / 7)
    assert scores["F1 macro"] == pytest.approx((1 + 0 + 1 + 1) / 4)
    assert scores["F1 example"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert agreement.per_finding()["Pleural Effusion"] == {
        **{"precision": 0, "recall": 0, "F1": 0},
        **{"references": 1, "said": 0, "found": 0},
    }
    weights = draw(range(3), samples=20, seed=0)
    for name, counts in agreement.counts().items():
        assert interval(counts, weights).value == pytest.approx(scores[name])
    twice = np.array([[2.0, 1.0, 0.0]])  # the resample that holds the first example twice and not the third
    again = chexpert_agreement([GIVEN[0], *GIVEN[:2]], [WANTED[0], *WANTED[:2]])
    assert agreement.counts()["F1 macro"].resampled(twice) == pytest.approx([again.scores()["F1 macro"]])


def test_doubt_counts_as_one_is_told() -> None:
    given, wanted = ["Edema."], [["Possible edema."]]
    assert chexpert_agreement(given, wanted, uncertain="positive").scores()["F1 micro"] == 1
    assert chexpert_agreement(given, wanted, uncertain="negative").per_finding()["Edema"]["precision"] == 0
    assert "Edema" not in chexpert_agreement(given, wanted, uncertain="ignore").per_finding()


def test_image_terms() -> None:
    found = imaging_terms("Axial T2-weighted MR of the left frontal lobe; CT of both kidneys.")
    assert found["modality"] == {"MR", "CT"}
    assert found["plane"] == {"axial"}
    assert found["location"] == {"brain", "pelvis and urinary"}
    assert found["side"] == {"left", "both"}
    assert not any(imaging_terms("A mass is seen.").values())


def test_fields_that_the_reference_does_not_name_are_left_out() -> None:
    agreement = imaging_agreement(["Axial CT", "Coronal CT"], [["axial image"], ["a mass"]])
    assert agreement["plane"].scores()["F1 micro"] == 1
    assert agreement["plane"].scores()["F1 example"] == 1
    assert imaging_agreement(["Coronal CT", ""], [["axial"], ["a mass"]])["plane"].scores()["F1 example"] == 0
    assert agreement["modality"].hits.sum() + agreement["modality"].wrong.sum() == 0


def test_real_captions_name_the_modality_and_plane_of_their_records() -> None:
    lines = (real_data("medpix") / "descriptions_train.jsonl").read_text(encoding="utf-8").splitlines()
    right = named = 0
    for record in map(json.loads, lines):
        description = record["Description"]
        planes = imaging_terms(description["Caption"] or "")["plane"]
        if len(planes) == 1 and description["Plane"] in ("Axial", "Coronal", "Sagittal"):
            named += 1
            right += description["Plane"].lower() in planes
    assert named > 300
    assert right / named > 0.85


def test_what_a_label_head_names_is_measured_like_what_a_report_says() -> None:
    references = [["Large effusion."], ["Cardiomegaly. Possible edema."], ["Clear lungs."]]
    said = ["pleural effusion.", "the heart is enlarged.", "no acute disease."]
    named = [["Pleural Effusion"], ["Cardiomegaly"], ["No Finding"]]
    for uncertain in ("positive", "negative", "ignore"):
        settings = {"uncertain": uncertain}
        own, other = named_agreement(named, references, **settings), chexpert_agreement(said, references, **settings)  # type: ignore[arg-type]
        assert own.per_finding() == other.per_finding()
        assert own.scores() == other.scores()
