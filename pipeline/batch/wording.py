"""How a caption is worded once it is known: lower case, a template, what stands around it, a trigger word."""

from __future__ import annotations

import re
from dataclasses import dataclass

from latentcap.data.errors import UserError

_FIELD = re.compile(r"\{([^{}]*)\}")
_EMPTY_CONTEXT = re.compile(r"^[(\[]?\{context\}[\s,.;:)\]-]*|[\s,;:(\[-]*\{context\}[)\]]?")
FIELDS = ("caption", "context")


@dataclass(frozen=True)
class Wording:
    """``template`` has ``{caption}``, and ``{context}``, which goes with the punctuation before it, or after it at the
    beginning, where there is no context. ``trigger`` is put first, with a comma, unless the caption has it as a word
    already.

    Raises UserError for a template without ``{caption}`` or with another name in braces.
    """

    prefix: str = ""
    suffix: str = ""
    template: str = ""
    lowercase: bool = False
    trigger: str = ""

    def __post_init__(self) -> None:
        names = _FIELD.findall(self.template)
        unknown = next((name for name in names if name not in FIELDS), None)
        if unknown is not None or (self.template and "caption" not in names):
            wrong = "{caption} is missing" if unknown is None else f"{{{unknown}}} is not known"
            raise UserError(f"--template '{self.template}': {wrong}. It has {{caption}} and may have {{context}}.")

    def __call__(self, caption: str, context: str | None) -> str:
        text = caption.lower() if self.lowercase else caption
        if self.template:
            values = {"caption": text, "context": context or ""}
            template = self.template if context else _EMPTY_CONTEXT.sub("", self.template)
            text = _FIELD.sub(lambda match: values[match[1]], template)
        text = f"{self.prefix}{text}{self.suffix}"
        if self.trigger and not re.search(rf"(?<!\w){re.escape(self.trigger)}(?!\w)", text):
            text = f"{self.trigger}, {text}"
        return text
