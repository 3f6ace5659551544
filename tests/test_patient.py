"""Ages and sexes as records write them."""

from __future__ import annotations

import pytest

from latentcap.data.readers.medical.patient import age_in_text, sex_in_text, to_sex, to_years


@pytest.mark.parametrize(
    ("text", "years"),
    [
        *((58, 58), ("58", 58), (" 58 ", 58), ("0.5", 0.5), ("89+", 89), ("> 89", 89), ("60s", 65), ("late 60's", 65)),
        *(("3 weeks", 0.0575), ("18 months", 1.5), ("2 years 6 months", 2.5), ("5 days", 0.0137), ("6 mo", 0.5)),
        *(("58 y/o", 58), ("58-year-old", 58), ("58 yrs", 58), ("045Y", 45), ("003W", 0.0575), ("newborn", 0)),
        *(("N/A", None), (None, None), ("", None), ("unknown", None), ("999", None), ("-3", None), ("58 cm", None)),
    ],
)
def test_ages_in_years(text: object, years: float | None) -> None:
    assert to_years(text) == (years if years is None else pytest.approx(years, abs=1e-3))


def test_sexes() -> None:
    assert [to_sex(value) for value in ("Male", " F", "woman", "N/A", None)] == ["male", "female", "female", None, None]


def test_what_a_sentence_says_of_the_patient() -> None:
    assert age_in_text("58-year-old man with neck pain") == 58
    assert age_in_text("A 3 week old girl.") == pytest.approx(3 * 7 / 365.25)
    assert age_in_text("73yo with cough") == 73
    assert age_in_text("cough for 3 weeks") is None
    assert age_in_text(None) is None
    assert sex_in_text("58-year-old Woman, her husband is a man") == "female"
    assert sex_in_text("managed by mandible surgery") is None
