"""What a vocabulary and a longest length leave out is said before training."""

from __future__ import annotations

from latentcap.data.batches.coverage import Coverage


def test_cut_captions_and_unknown_words_are_shares_with_the_setting_to_change() -> None:
    coverage = Coverage(max_length=4, unknown_id=3)
    for ids in ([9, 3], [8, 8, 8, 3], [7] * 6, [5] * 8):
        coverage.add(ids)
    said = coverage.describe(unit="words", why_unknown="rarer than data.tokenizer.min_frequency 2")
    assert said == (
        "4 training captions of up to 8 words: 50.0% are cut at model.model.decoder.max_length 4 (set it to 8 to keep "
        "all); 10.0% of their words are unknown (rarer than data.tokenizer.min_frequency 2)"
    )


def test_nothing_lost_is_said_too() -> None:
    coverage = Coverage(max_length=4, unknown_id=3)
    coverage.add([5, 6])
    assert coverage.describe(unit="words", why_unknown="") == (
        "1 training captions of up to 2 words: none is cut; all words are known"
    )
