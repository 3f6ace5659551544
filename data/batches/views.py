"""Views by name: each has a slot of its own in the model, and a view that is missing leaves its slot empty.

Dimension letters: B examples, V slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentcap.data.columns import each
from latentcap.data.errors import UserError
from latentcap.data.example import Example

FRONTAL, LATERAL = "frontal", "lateral"
SAME_SLOT = {"pa": FRONTAL, "ap": FRONTAL}  # a study has one of them, and shows the same thing from the same side


@dataclass(frozen=True)
class ViewSlots:
    """What the model keeps of each image's place: ``count`` slots, the first of which belong to ``names``.

    Without names (nobody knows what the images show) they take the slots in the order in which they are given.
    """

    count: int = 1
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, examples: Sequence[Example], count: int, *, known: Sequence[str] = ()) -> ViewSlots:
        """For the views of ``examples``: first those ``known`` already, then frontal, lateral, and by frequency."""
        names = Counter(_slot_name(view) for views in each(examples, "views") for view in views)
        order = sorted(names, key=lambda name: (name != FRONTAL, name != LATERAL, -names[name], name))
        return cls(count, tuple(dict.fromkeys((*known, *order)))[:count])

    def place(self, images: int, views: Sequence[str] = ()) -> list[int]:
        """The slot of each of an example's images, whose names are ``views``, or nothing where they have none.

        An image whose name has no slot, or whose slot is taken, goes into a slot without a name, or the first free one.

        Raises:
            UserError: more images than slots, or not one name for each image.
        """
        if images > self.count:
            raise UserError(
                f"an example has {images} views, and the model was made for at most {self.count}: give fewer, or train "
                f"one with model.model.max_views {images}."
            )
        if views and len(views) != images:
            raise UserError(f"{len(views)} names of views ({', '.join(views)}) for {images} images: give one for each.")
        slots: dict[int, int] = {}
        for image, view in enumerate(views):
            name = _slot_name(view)
            if name in self.names and self.names.index(name) not in slots.values():
                slots[image] = self.names.index(name)
        first, taken = len(self.names) if views else 0, set(slots.values())
        free = (slot for slot in (*range(first, self.count), *range(first)) if slot not in taken)
        return [slots[image] if image in slots else next(free) for image in range(images)]


def in_slots(values: Tensor, slots: Sequence[Sequence[int]], *, size: int | None = None) -> tuple[Tensor, Tensor]:
    """What is known of each image (sum of images, ...) by example and slot.

    Args:
        values: of the images of all examples, one example after the other.
        slots: the slot of each image of each example.
        size: V; None is one more than the last slot that is taken.

    Returns:
        The values (B, V, ...), 0 in empty slots, and a mask (B, V), True where there is an image.
    """
    size = size or 1 + max(slot for row in slots for slot in row)
    if all([*row] == [*range(size)] for row in slots):
        return values.unflatten(0, (len(slots), size)), values.new_ones(len(slots), size, dtype=torch.bool)
    rows = torch.tensor([number for number, row in enumerate(slots) for _ in row], device=values.device)
    columns = torch.tensor([slot for row in slots for slot in row], device=values.device)
    placed = values.new_zeros(len(slots), size, *values.shape[1:])
    mask = values.new_zeros(len(slots), size, dtype=torch.bool)
    placed[rows, columns] = values
    mask[rows, columns] = True
    return placed, mask


def _slot_name(view: str) -> str:
    name = view.strip().lower()
    return SAME_SLOT.get(name, name)
