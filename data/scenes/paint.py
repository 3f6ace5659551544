"""A scene as an image: shapes drawn with Pillow at twice the size, reduced, then lit and grained with numpy."""

from __future__ import annotations

import math
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from latentcap.data.scenes.world import BACKGROUNDS, COLOURS, Group, Scene

Point = tuple[float, float]

_DIAMETER = {"small": (0.21, 0.24), "large": (0.38, 0.42)}  # of the image's width
_CENTRES = {"left": (0.26, 0.5), "right": (0.74, 0.5), "top": (0.5, 0.26), "bottom": (0.5, 0.74), "centre": (0.5, 0.5)}
_LINES = {1: (0.5,), 2: (0.26, 0.74), 3: (0.18, 0.5, 0.82)}  # where the objects of one side stand along that side


def paint_scene(scene: Scene, random: Random, *, size: int = 128) -> Image.Image:
    """Draw ``scene`` as an RGB image of ``size`` by ``size`` pixels. The same ``random`` gives the same pixels."""
    canvas = Image.new("RGB", (2 * size, 2 * size), BACKGROUNDS[scene.background])
    for group, centre, diameter in _arrange(scene, random):
        _paint_object(canvas, group, centre, diameter, angle=random.uniform(-9, 9))
    return _light(canvas.reduce(2), random)


def _arrange(scene: Scene, random: Random) -> list[tuple[Group, Point, float]]:
    """Every object's group, centre and diameter in units of the width, the objects at the back first."""

    def jittered(centre: Point) -> Point:
        return centre[0] + random.uniform(-0.03, 0.03), centre[1] + random.uniform(-0.03, 0.03)

    if scene.layout == "front":
        front, back = scene.groups
        angle = random.uniform(0, 2 * math.pi)
        x, y = 0.095 * math.cos(angle), 0.095 * math.sin(angle)
        return [(back, jittered((0.5 - x, 0.5 - y)), 0.52), (front, jittered((0.5 + x, 0.5 + y)), 0.36)]
    centres: list[tuple[Group, Point]] = []
    for index, group in enumerate(scene.groups):
        side = (0.26, 0.74)[index]
        if scene.place:
            centres.append((group, _CENTRES[scene.place]))
        elif scene.layout == "alone":
            corners = random.sample([(x, y) for x in (0.26, 0.74) for y in (0.26, 0.74)], group.count)
            centres += [(group, corner) for corner in corners]
        else:
            points = [(side, line) for line in _LINES[group.count]]
            centres += [(group, point if scene.layout == "beside" else point[::-1]) for point in points]
    diameters = {group: random.uniform(*_DIAMETER[group.size]) for group in scene.groups}
    return [(group, jittered(centre), diameters[group]) for group, centre in centres]


def _paint_object(canvas: Image.Image, group: Group, centre: Point, diameter: float, *, angle: float) -> None:
    """Paste one object: its colour and pattern through the mask of its shape."""
    radius = diameter * canvas.width / 2
    side = math.ceil(2.4 * radius)
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    middle, turn = side / 2, math.radians(angle)
    for outline, level in _outlines(group.shape):
        points = [
            (x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)) for x, y in outline
        ]
        draw.polygon([(middle + radius * x, middle + radius * y) for x, y in points], fill=level)
    corner = (round(centre[0] * canvas.width - middle), round(centre[1] * canvas.height - middle))
    canvas.paste(_pattern(group, side, radius), corner, mask)


def _outlines(shape: str) -> list[tuple[list[Point], int]]:
    """Polygons in units of the radius, y downwards, each with its level in the mask: 255 to draw, 0 to cut out."""

    def ring(radii: tuple[float, ...], corners: int) -> list[Point]:
        angles = [2 * math.pi * corner / corners for corner in range(corners)]
        return [
            (radii[k % len(radii)] * math.sin(angle), -radii[k % len(radii)] * math.cos(angle))
            for k, angle in enumerate(angles)
        ]

    if shape == "circle":
        return [(ring((1.0,), 48), 255)]
    if shape == "ring":
        return [(ring((1.0,), 48), 255), (ring((0.52,), 48), 0)]
    if shape == "square":
        return [([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)], 255)]
    if shape == "triangle":
        return [([(0.0, -1.0), (1.05, 0.85), (-1.05, 0.85)], 255)]
    if shape == "diamond":
        return [(ring((1.12, 0.8), 4), 255)]
    if shape == "star":
        return [(ring((1.12, 0.46), 10), 255)]
    if shape == "cross":
        arm = 0.34
        upright = [(-arm, -1.0), (arm, -1.0), (arm, 1.0), (-arm, 1.0)]
        return [(upright, 255), ([(y, x) for x, y in upright], 255)]
    angles = [2 * math.pi * step / 48 for step in range(48)]  # what is left is the heart, as its well-known curve
    waves = [(13, 1), (-5, 2), (-2, 3), (-1, 4)]
    return [
        ([(math.sin(a) ** 3, -sum(weight * math.cos(k * a) for weight, k in waves) / 16 - 0.1) for a in angles], 255)
    ]


def _pattern(group: Group, side: int, radius: float) -> Image.Image:
    """A square of the group's colour, with its texture in a darker shade (in a lighter one where it is black)."""
    colour = COLOURS[group.colour]
    shade = (92, 92, 96) if group.colour == "black" else tuple(int(0.42 * channel) for channel in colour)
    image = Image.new("RGB", (side, side), colour)
    draw = ImageDraw.Draw(image)
    step = radius / 2.2
    cells = range(math.ceil(side / step))
    if group.texture == "striped":
        for row in cells:
            draw.rectangle((0, (row + 0.3) * step, side, (row + 0.7) * step), fill=shade)
    elif group.texture == "dotted":
        for x, y in ((x, y) for x in cells for y in cells):
            left, top = (x + 0.24) * step, (y + 0.24) * step
            draw.ellipse((left, top, left + 0.52 * step, top + 0.52 * step), fill=shade)
    elif group.texture == "checked":
        for x, y in ((x, y) for x in cells for y in cells if (x + y) % 2):
            draw.rectangle((x * step, y * step, (x + 1) * step, (y + 1) * step), fill=shade)
    return image


def _light(image: Image.Image, random: Random) -> Image.Image:
    """A lighting gradient from a random side, a little brightness and grain."""
    pixels = np.asarray(image, dtype=np.float32)
    height, width = pixels.shape[:2]
    angle, strength = random.uniform(0, 2 * math.pi), random.uniform(0.0, 0.16)
    across = np.linspace(-strength, strength, width, dtype=np.float32) * math.cos(angle)
    down = np.linspace(-strength, strength, height, dtype=np.float32) * math.sin(angle)
    light = random.uniform(0.92, 1.05) + across[None, :] + down[:, None]
    grain = np.random.default_rng(random.getrandbits(64)).standard_normal((height, width), dtype=np.float32)
    lit = pixels * light[..., None] + random.uniform(2.0, 7.0) * grain[..., None]
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))
