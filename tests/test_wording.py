"""How captions are worded around what the model says."""

from __future__ import annotations

import pytest

from latentcap.batch.wording import Wording
from latentcap.data.errors import UserError


@pytest.mark.parametrize(
    ("wording", "context", "expected"),
    [
        (Wording("<", ">"), None, "<A red Bridge>"),
        (Wording(lowercase=True), None, "a red bridge"),
        (Wording(template="a photo of {caption}, {context}"), "Venice", "a photo of A red Bridge, Venice"),
        (Wording(template="a photo of {caption}, {context}"), None, "a photo of A red Bridge"),
        (Wording(template="{caption} ({context})!"), "", "A red Bridge!"),
        (Wording(template="{context}: {caption}"), "Venice", "Venice: A red Bridge"),
        (Wording(template="{context}: {caption}"), None, "A red Bridge"),
        (Wording(template="({context}) {caption}"), None, "A red Bridge"),
        (Wording(template="{caption}; {context}"), "{caption}", "A red Bridge; {caption}"),
        (Wording(trigger="ohwx"), None, "ohwx, A red Bridge"),
        (Wording(trigger="Bridge"), None, "A red Bridge"),
        (Wording(trigger="Brid"), None, "Brid, A red Bridge"),
        (Wording("x ", " y", "[{caption}]", True, "ohwx"), None, "ohwx, x [a red bridge] y"),
    ],
)
def test_a_caption_is_worded(wording: Wording, context: str | None, expected: str) -> None:
    assert wording("A red Bridge", context) == expected


@pytest.mark.parametrize(("template", "wrong"), [("a photo", "{caption} is missing"), ("{caption} {x}", "{x} is not")])
def test_templates_that_cannot_be(template: str, wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        Wording(template=template)
