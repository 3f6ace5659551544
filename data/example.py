"""What every reader yields and everything else consumes: an :class:`Example` with references to its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from latentcap.data.image import ImageRef

__all__ = ["SEVERAL", "Example", "ImageRef"]

BLOCK = 1024  # of very many, as many as are made, read or written at once
SEVERAL = ";"  # between the values of a label that may have several


@dataclass(slots=True)  # frozen, it would take three times as long to make, and there may be millions
class Example:
    """One item: its image views, what is known besides them, and what people wrote about it. Never changed.

    ``captions`` are the references that scores are computed against. ``paraphrases`` are further texts that may be
    trained on and are never references. A context field that is absent or None is missing, which the model knows.
    ``labels`` are classes that a label head may learn and balanced sampling may count (modality, plane, normal); never
    inputs. One that may have several values has them joined by :data:`SEVERAL` (findings). ``views`` names the images,
    one each (``frontal``, ``lateral``), or is empty where nobody knows. ``group`` is the patient or case: the examples
    of one belong to one split. ``aliases`` are further ids, such as COCO's ``image_id``, that a file of predictions may
    call the example by.
    """

    id: str
    images: tuple[ImageRef, ...]
    captions: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    context: str | None = None
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    categories: Mapping[str, str | None] = field(default_factory=dict)
    split: str = "train"
    labels: Mapping[str, str] = field(default_factory=dict)
    views: tuple[str, ...] = ()
    group: str | None = None
    aliases: tuple[str, ...] = ()
