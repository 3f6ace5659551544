"""How people put a scene into words: five captions of the whole, or five answers to what a context text asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from latentcap.data.scenes.world import COLOURS, SHAPES, UNSEEN, Group, Scene

PEOPLE = 5
NUMBERS = ("no", "one", "two", "three", "four")
_AT = {
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "centre": ("in the centre", "in the middle"),
}
_RELATIONS = {
    "beside": (
        "{a} on the left and {b} on the right",
        "{a} on the left and {b} on the right",
        "{a} to the left of {b}",
        "{b} to the right of {a}",
    ),
    "above": ("{a} above {b}", "{a} above {b}", "{b} below {a}", "{a} at the top and {b} at the bottom"),
    "front": ("{a} in front of {b}", "{a} in front of {b}", "{b} behind {a}", "{a} partly covering {b}"),
}


def describe(scene: Scene, random: Random) -> list[str]:
    """Five captions of the whole scene by five people, in random order.

    One is brief, two say where things are, one adds the background, and one tells every detail.
    """

    def relation(*, detail: float) -> str:
        names = [name(group, random, size=_size_matters(scene), detail=detail) for group in scene.groups]
        if scene.layout == "alone":
            return f"{names[0]} {random.choice(_AT[scene.place])}" if scene.place else names[0]
        return random.choice(_RELATIONS[scene.layout]).format(a=names[0], b=names[1])

    def listing(*, detail: float) -> str:
        return " and ".join(name(group, random, size=_size_matters(scene), detail=detail) for group in scene.groups)

    captions = [
        listing(detail=0.0),
        relation(detail=0.4),
        relation(detail=0.8),
        f"{listing(detail=0.4)} {random.choice(('on', 'on', 'against'))} a {scene.background} background",
        _opened(relation(detail=1.0), random),
    ]
    random.shuffle(captions)
    return captions


def ask(scene: Scene, random: Random) -> tuple[str, list[str]]:
    """A context text about the scene and five answers to it."""
    questions: list[Callable[[Scene, Random], tuple[str, list[str]]]] = [_ask_colour, _ask_count]
    if scene.layout in ("beside", "above"):
        questions += [_ask_side] * 3
    if scene.layout == "front":
        questions += [_ask_depth] * 3
    if scene.sizes_differ and any(group.count == 1 for group in scene.groups):
        questions += [_ask_extreme] * 3
    return random.choice(questions)(scene, random)


def name(group: Group, random: Random, *, size: bool, detail: float) -> str:
    """The group as a noun phrase, with its size (where ``size`` allows) and texture each at probability ``detail``."""
    words = [NUMBERS[group.count]] if group.count > 1 else []
    if size and random.random() < detail:
        words.append(group.size)
    textured = group.texture != "plain" and random.random() < detail
    if textured:
        words.append(group.texture)
    words += [group.colour, plural(group.shape, group.count)]
    if group.count == 1:
        words.insert(0, "an" if words[0] == "orange" else "a")
    return " ".join(words)


def plural(shape: str, count: int) -> str:
    """The shape's name in the number that goes with ``count``."""
    if count == 1:
        return shape
    return shape + ("es" if shape.endswith("s") else "s")


def _size_matters(scene: Scene) -> bool:
    """Size is worth a word where sizes differ, for one object alone, and for a group of small ones."""
    return scene.sizes_differ or (len(scene.groups) == 1 and (bool(scene.place) or scene.groups[0].size == "small"))


def _opened(text: str, random: Random) -> str:
    """The text as a sentence that begins as people begin them."""
    verb = "is" if text.startswith(("a ", "an ")) else "are"
    return random.choice((f"there {verb} ", f"there {verb} ", "the picture shows ")) + text


def _answers(random: Random, templates: Sequence[str], names: Callable[[], str]) -> list[str]:
    """Five answers from a shuffled list of templates, each with its own wording of {it}."""
    chosen = random.sample(list(templates), PEOPLE)
    return [template.format(it=names()) for template in chosen]


def _about(scene: Scene, group: Group, random: Random) -> Callable[[], str]:
    return lambda: name(group, random, size=scene.sizes_differ, detail=0.5)


def _ask_side(scene: Scene, random: Random) -> tuple[str, list[str]]:
    index = random.randrange(2)
    side = (("left", "right") if scene.layout == "beside" else ("top", "bottom"))[index]
    group, where = scene.groups[index], _AT[side][0]
    verb = "is" if group.count == 1 else "are"
    context = random.choice(
        (
            f"focus: {side} side" if scene.layout == "beside" else f"focus: {side}",
            f"what is {where}?",
            f"what do you see {where}?",
            f"describe the {side} only",
            f"only the {side}",
        )
    )
    templates = (
        "{it}",
        "{it}",
        f"{{it}} {where}",
        f"{{it}} {where}",
        f"there {verb} {{it}} {where}",
        f"{where} {verb} {{it}}",
    )
    return context, _answers(random, templates, _about(scene, group, random))


def _ask_depth(scene: Scene, random: Random) -> tuple[str, list[str]]:
    index = random.randrange(2)
    where = ("in front", "behind")[index]
    other = ("front", "back")[index]
    context = random.choice(
        (f"what is {where}?", f"focus: {other}", f"describe the object {where}", f"only the object {where}")
    )
    templates = ("{it}", "{it}", f"{{it}} {where}", f"{{it}} is {where}", f"{{it}} {where}", f"there is {{it}} {where}")
    return context, _answers(random, templates, _about(scene, scene.groups[index], random))


def _ask_extreme(scene: Scene, random: Random) -> tuple[str, list[str]]:
    group = random.choice([group for group in scene.groups if group.count == 1])
    most = random.choice(("largest", "biggest") if group.size == "large" else ("smallest",))
    context = random.choice(
        (
            f"what is the {most} object?",
            f"describe the {most} object",
            f"focus: {most} object",
            f"only the {most} object",
        )
    )
    templates = ("{it}", "{it}", "it is {it}", "there is {it}", f"the {most} object is {{it}}", f"the {most} is {{it}}")
    return context, _answers(random, templates, lambda: name(group, random, size=False, detail=0.5))


def _ask_colour(scene: Scene, random: Random) -> tuple[str, list[str]]:
    """Mostly a colour of the scene; where one group is all there is, as often one that is not there."""
    present = [group.colour for group in scene.groups]
    absent = [colour for colour in COLOURS if colour not in present and (colour, scene.background) not in UNSEEN]
    colour = random.choice(absent if random.random() < (0.6 if len(present) == 1 else 0.25) else present)
    context = random.choice(
        (
            f"only {colour} things",
            f"what is {colour}?",
            f"focus: {colour}",
            f"describe what is {colour}",
            f"is anything {colour}?",
        )
    )
    if colour in absent:
        templates: tuple[str, ...] = (
            f"there is nothing {colour}",
            f"there is nothing {colour}",
            f"nothing is {colour}",
            f"nothing {colour}",
            f"there is nothing {colour} in the picture",
        )
        return context, _answers(random, templates, str)
    group = scene.groups[present.index(colour)]
    verb = "is" if group.count == 1 else "are"
    templates = ("{it}", "{it}", "{it}", f"there {verb} {{it}}", "only {it}", f"there {verb} {{it}} in the picture")
    return context, _answers(random, templates, _about(scene, group, random))


def _ask_count(scene: Scene, random: Random) -> tuple[str, list[str]]:
    """Mostly a shape of the scene, sometimes one that is not there."""
    present = [group.shape for group in scene.groups]
    absent = [shape for shape in SHAPES if shape not in present]
    shape = random.choice(absent if random.random() < (0.4 if len(present) == 1 else 0.25) else present)
    total = sum(group.count for group in scene.groups if group.shape == shape)
    shapes = plural(shape, 2)
    context = random.choice(
        (f"count the {shapes}", f"how many {shapes} are there?", f"how many {shapes}?", f"number of {shapes}")
    )
    it = f"{NUMBERS[total]} {plural(shape, total)}"
    verb = "is" if total == 1 else "are"
    templates = (it, it, f"there {verb} {it}", f"there {verb} {it}", f"{it} in the picture", f"i see {it}")
    return context, _answers(random, templates, str)
