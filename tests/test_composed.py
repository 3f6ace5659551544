"""Reports put together from findings: typical sentences, and nothing that contradicts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentcap.captioner import Captioner
from latentcap.data.errors import UserError
from latentcap.data.readers.medical.chexpert import OBSERVATIONS, Status, label_report
from latentcap.data.readers.medical.composed import PLAIN, compose, finding_sentences, state
from latentcap.export.folder import check_exportable
from latentcap.model.caption_model import CaptionModel
from latentcap.saved_model import SavedModel
from tests.helpers import picture, tiny_captioner, tiny_config

REPORTS = [
    "Mild cardiomegaly. No effusion.",
    "Mild cardiomegaly. Small left pleural effusion.",
    "The heart is enlarged with effusion and edema. There is a small left pleural effusion seen.",
    "Small left pleural effusion. Possible pneumonia. A port is seen. Surgical clips.",
]
NORMAL = "The heart is normal in size. The lungs are clear. There is no pleural effusion."


def test_the_most_frequent_sentence_that_states_a_finding_and_no_other() -> None:
    assert finding_sentences(REPORTS) == {
        "Cardiomegaly": "Mild cardiomegaly.",
        "Pleural Effusion": "Small left pleural effusion.",
        "Support Devices": "Surgical clips.",
    }


def test_a_composed_report_says_its_findings_and_denies_none() -> None:
    sentences = finding_sentences(REPORTS)
    report = compose(NORMAL, ["Pleural Effusion", "Cardiomegaly", "Edema", "No Finding"], sentences)
    assert report == "Mild cardiomegaly. Small left pleural effusion. The lungs are clear."
    found = label_report(report)
    assert found["Cardiomegaly"] == found["Pleural Effusion"] == 3
    assert compose(NORMAL, [], sentences) == NORMAL


def test_reports_in_the_cleaning_of_r2gen_do_as_well() -> None:
    sentences = finding_sentences(["mild cardiomegaly . no effusion ."])
    assert sentences == {"Cardiomegaly": "mild cardiomegaly ."}
    assert compose("the heart is normal . the lungs are clear .", ["Cardiomegaly"], sentences) == (
        "mild cardiomegaly . the lungs are clear ."
    )


def test_the_plain_sentences_state_one_finding_each() -> None:
    assert {*PLAIN, "No Finding"} == set(OBSERVATIONS)
    for name, sentence in PLAIN.items():
        said = [found for found, status in label_report(sentence).items() if status >= Status.UNCERTAIN]
        assert [found for found in said if found != "No Finding"] == [name], sentence


def test_a_draft_states_what_the_label_head_finds() -> None:
    draft = "the heart is normal in size. there is atelectasis at the left base. no pleural effusion or pneumothorax."
    predicted = {"findings": "Atelectasis;Cardiomegaly", "problems": "spine"}
    assert state(draft, predicted) == (
        "the heart is enlarged. there is atelectasis at the left base. no pleural effusion or pneumothorax."
    )
    assert state(draft, {"findings": "No Finding"}) == draft


def test_a_model_folder_that_states_findings(tmp_path: Path) -> None:
    """In the text alone, which is what people read; the words are those that the decoder wrote."""
    plain = tiny_captioner()
    names = {"findings": ["Atelectasis", "Cardiomegaly"]}
    model = CaptionModel(
        tiny_config(), vocab_size=len(plain.tokenizer), labels=names, label_lists={"findings": [0.1, 0.9]}
    )
    model.load_state_dict(plain.model.state_dict(), strict=False)
    Captioner(model, tokenizer=plain.tokenizer, image=plain.image, state_findings=True).save(tmp_path)
    captioner = Captioner.from_pretrained(tmp_path, engine="torch")
    (caption,) = captioner.caption([picture()], num_captions=2)
    assert caption.labels == {"findings": "Cardiomegaly"}
    (written,) = plain.caption([picture()], num_captions=2)
    assert caption.text == "the heart is enlarged. " + written.text
    assert caption.alternatives[0].text == "the heart is enlarged. " + written.alternatives[0].text
    assert [word for word, _ in caption.words] == written.text.split()
    with pytest.raises(UserError, match="'state_findings' out of its config"):
        check_exportable(SavedModel.read(tmp_path), tmp_path)
