"""What the readers of radiology sets share."""

from __future__ import annotations

from latentcap.data.example import ImageRef
from latentcap.data.readers.medical.study import context_of, known, one_of_each_view, report_of


def test_the_report_that_was_asked_for_and_no_other() -> None:
    sections = {"findings": "Clear.", "impression": " Normal. "}
    assert report_of(sections, "findings") == ("Clear.",)
    assert report_of(sections, "both") == report_of(sections, "case") == ("Clear. Normal.",)
    assert report_of({"findings": None, "impression": "Normal."}, "both") == ("Normal.",)
    assert report_of({"findings": "XXXX.", "impression": "Normal."}, "findings") == ()


def test_context_names_its_parts_and_leaves_out_what_says_nothing() -> None:
    assert (
        context_of(indication=" Chest  pain", exam="N/A", prior="1. Clear") == "indication: Chest pain. prior: Clear."
    )
    assert context_of(indication="None.", exam=None, history="XXXX, XXXX") is None
    assert [known(text) for text in ("N/A", "none available.", "___", "", None)] == [None] * 5


def test_one_image_of_each_view_in_a_fixed_order() -> None:
    refs = {name: ImageRef(name) for name in "abcd"}
    images, views = one_of_each_view(
        [("lateral", refs["a"]), ("ap", refs["b"]), ("pa", refs["c"]), ("pa", refs["d"]), ("other", refs["d"])]
    )
    assert views == ("pa", "lateral", "other")
    assert images == (refs["c"], refs["a"], refs["d"])
