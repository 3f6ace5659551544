"""Reports under headings: every sentence once, as it is, where it belongs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from latentcap.batch.journal import Record
from latentcap.batch.outputs import make_output
from latentcap.cli.caption import main as caption
from latentcap.data.errors import UserError
from latentcap.data.readers.medical.headings import HEADINGS, OTHER, under_headings
from latentcap.data.sentences import split_sentences
from tests.helpers import picture, real_data, tiny_captioner

REPORT = (
    "The heart is normal in size. No pleural effusion or pneumothorax. Lungs are clear. Degenerative changes of the "
    "spine. A right PICC ends in the SVC. The mediastinum is widened. Aortic calcification. The patient is rotated. "
    "No rib fracture. No pneumothorax."
)


def test_each_sentence_is_where_it_belongs() -> None:
    assert under_headings(REPORT) == {
        "lungs": ["Lungs are clear."],
        "pleura": ["No pleural effusion or pneumothorax.", "No pneumothorax."],
        "heart": ["The heart is normal in size."],
        "mediastinum": ["The mediastinum is widened.", "Aortic calcification."],
        "bones": ["Degenerative changes of the spine.", "No rib fracture."],
        "devices": ["A right PICC ends in the SVC."],
        OTHER: ["The patient is rotated."],
    }
    assert under_headings("Interval removal of the PICC. Calcified granulomatous disease.") == {
        "lungs": ["Calcified granulomatous disease."],
        "devices": ["Interval removal of the PICC."],
    }
    assert under_headings("") == {}
    assert under_headings("the heart is normal . the lungs are clear .") == {
        "lungs": ["the lungs are clear ."],
        "heart": ["the heart is normal ."],
    }


def test_nothing_is_invented_or_lost_in_real_reports() -> None:
    studies = json.loads((real_data("iu_xray") / "annotation.json").read_text(encoding="utf-8"))["val"]
    placed: Counter[str] = Counter()
    for study in studies:
        found = under_headings(study["report"])
        assert Counter(s for part in found.values() for s in part) == Counter(split_sentences(study["report"]))
        assert list(found) == [heading for heading in HEADINGS if heading in found]
        placed.update({heading: len(part) for heading, part in found.items()})
    assert placed[OTHER] / sum(placed.values()) < 0.15


def test_drafts_under_headings(tmp_path: Path) -> None:
    record: Record = {"file": "a.png", "caption": REPORT, "sections": under_headings(REPORT)}
    record["_images"] = [[str(tmp_path / "a.png"), None, None, "", None]]
    for kind in ("txt", "fhir"):
        output = make_output(tmp_path / kind, tmp_path / f"{kind}.run", kind)
        with output.journal:
            output.append([dict(record)])
        output.finish(quiet=True)
    text = (tmp_path / "txt" / "a.txt").read_text()
    lungs, pleura, *_ = text.splitlines()
    assert lungs == "Lungs: Lungs are clear."
    assert pleura == "Pleura: No pleural effusion or pneumothorax. No pneumothorax."
    content = json.loads((tmp_path / "fhir" / "a.png.json").read_text())
    assert content["conclusion"] == text.strip()
    assert "<p><b>Lungs</b> Lungs are clear.</p>" in content["text"]["div"]


def test_the_option(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    tiny_captioner().save(tmp_path / "model")
    settings = ["--model", str(tmp_path / "model"), "--dtype", "float32", "--quiet", "--sections", "--output"]
    assert caption([str(tmp_path / "a.png"), *settings, str(tmp_path / "x.jsonl")]) == 0
    record = json.loads((tmp_path / "x.jsonl").read_text())
    assert record["sections"] == under_headings(record["caption"])
    with pytest.raises(UserError, match="--sections: is for --format jsonl"):
        caption([str(tmp_path / "a.png"), *settings, str(tmp_path / "x"), "--format", "xmp"])
