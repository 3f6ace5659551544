"""What can be in a scene, and the choice of one: groups of alike objects and how the groups stand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

COLOURS = {
    "red": (214, 40, 40),
    "orange": (245, 122, 12),
    "yellow": (253, 222, 30),
    "green": (38, 150, 62),
    "blue": (36, 92, 220),
    "purple": (128, 52, 184),
    "black": (22, 22, 24),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "diamond")
TEXTURES = ("striped", "dotted", "checked")
BACKGROUNDS = {"white": (240, 240, 238), "grey": (150, 153, 158), "beige": (224, 207, 170), "dark": (62, 66, 78)}
UNSEEN = frozenset({("black", "dark"), ("white", "white"), ("white", "beige")})
"""Pairs of colour and background that are hard to tell apart: neither drawn nor asked about."""

PLACES = ("left", "right", "top", "bottom", "centre")

RESERVED = frozenset(
    {
        ("purple", "star"),
        ("red", "heart"),
        ("green", "circle"),
        ("blue", "triangle"),
        ("yellow", "ring"),
        ("orange", "square"),
        ("white", "diamond"),
        ("black", "cross"),
    }
)
"""Pairs of colour and shape that no training image shows: each colour and each shape is in exactly one of them."""


@dataclass(frozen=True, slots=True)
class Group:
    """``count`` objects that look the same. ``size`` is "small" or "large", ``texture`` is "plain" or a pattern."""

    count: int
    size: str
    texture: str
    colour: str
    shape: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two groups and their layout.

    "alone": one group, a single object at ``place``. "beside": the first group left of the second. "above": the first
    above the second. "front": the first, one object, partly covers the second, one object.
    """

    layout: str
    groups: tuple[Group, ...]
    background: str
    place: str = ""

    @property
    def held_out(self) -> bool:
        """Whether a reserved pair of colour and shape is in it."""
        return any((group.colour, group.shape) in RESERVED for group in self.groups)

    @property
    def sizes_differ(self) -> bool:
        return len({group.size for group in self.groups}) > 1


def sample_scene(random: Random, *, held_out: bool) -> Scene:
    """Draw a scene; with ``held_out`` one of its groups is a reserved pair, without it none is."""
    background = random.choice(tuple(BACKGROUNDS))
    layout = random.choices(("alone", "beside", "above", "front"), weights=(28, 30, 22, 20))[0]
    number = 1 if layout == "alone" else 2
    colours = random.sample([colour for colour in COLOURS if (colour, background) not in UNSEEN], number)
    special = random.randrange(number) if held_out else -1
    shapes = [_shape(random, colour, reserved=index == special) for index, colour in enumerate(colours)]
    groups = tuple(
        Group(count, *_size_and_texture(random, layout, count), colour, shape)
        for count, colour, shape in zip(_counts(random, layout), colours, shapes, strict=True)
    )
    place = random.choice(PLACES) if layout == "alone" and groups[0].count == 1 else ""
    return Scene(layout, groups, background, place)


def _shape(random: Random, colour: str, *, reserved: bool) -> str:
    return random.choice([shape for shape in SHAPES if ((colour, shape) in RESERVED) == reserved])


def _counts(random: Random, layout: str) -> tuple[int, ...]:
    if layout == "alone":
        return (random.choices((1, 2, 3, 4), weights=(40, 20, 20, 20))[0],)
    if layout == "front":
        return (1, 1)
    counts = random.choices(((1, 1), (2, 1), (3, 1), (2, 2)), weights=(50, 20, 20, 10))[0]
    return counts if random.random() < 0.5 else counts[::-1]


def _size_and_texture(random: Random, layout: str, count: int) -> tuple[str, str]:
    """Three objects on one side are small; small objects are plain, for their pattern could not be seen."""
    crowded = layout != "alone" and count > 2
    if crowded or (layout != "front" and random.random() < 0.4):
        return "small", "plain"
    return "large", random.choice(TEXTURES) if random.random() < 0.5 else "plain"
