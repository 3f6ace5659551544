"""Caption images with an exported model:  python run.py photos/*.jpg

Needs onnxruntime, numpy, pillow and tokenizers. Reads 8-bit images that Pillow reads. Greedy and beam search with a
length penalty, least and greatest length, guided by the words that a label head sees; no sampling, diverse beams,
forbidden or required words, attention maps.

Dimension letters: B examples, V views, G beams, Y words of the vocabulary.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import Tokenizer

FILTERS = {
    "bilinear": (1.0, lambda x: np.maximum(1 - x, 0)),
    "bicubic": (2.0, lambda x: np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)),
}

# Images ---------------------------------------------------------------------------------------------------------------


def read_image(path: str | Path, settings: Mapping[str, Any]) -> np.ndarray:
    """A file as bytes (C, H, W) at the size that the model sees. Raises OSError for what is no 8-bit image."""
    with Image.open(path) as file:
        side = 2 * max(settings["size"])
        file.draft(None, (side, side))  # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith(("I", "F")):
        raise OSError("an image of more than 8 bits a channel: convert it, or caption it with latentcap itself")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = fit(image.convert("RGB"), settings)
    if len(settings["mean"]) == 1:
        return np.asarray(Image.fromarray(pixels).convert("L"))[None]
    return pixels.transpose(2, 0, 1)


def fit(image: Image.Image, settings: Mapping[str, Any]) -> np.ndarray:
    """RGB bytes (H, W, 3): squashed, cropped to the centre or padded with the mean colour, as the model says."""
    height, width = settings["size"]
    mode, kind = settings["crop_mode"], settings["interpolation"]
    if mode == "resize":
        return resize(image, (width, height), kind)
    if mode == "crop":
        covered = math.floor(width / settings["crop_pct"]), math.floor(height / settings["crop_pct"])
        pixels = resize(image, keep_ratio(image.size, covered, cover=True), kind)
        upper, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
        return np.ascontiguousarray(pixels[upper : upper + height, left : left + width])
    pixels = resize(image, keep_ratio(image.size, (width, height), cover=False), kind)
    upper, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    ground = np.empty((height, width, 3), np.uint8)
    ground[:] = [round(255 * value) for value in settings["mean"]]
    ground[upper : upper + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return ground


def keep_ratio(size: tuple[int, int], target: tuple[int, int], *, cover: bool) -> tuple[int, int]:
    """The size (W, H) of ``size``'s proportions that just covers ``target``, or just fits into it."""
    if (target[0] * size[1] >= target[1] * size[0]) == cover:
        return target[0], max(1, target[0] * size[1] // size[0])
    return max(1, target[1] * size[0] // size[1]), target[1]


def resize(image: Image.Image, size: tuple[int, int], kind: str) -> np.ndarray:
    """RGB bytes (H, W, 3) at ``size`` (W, H), to the last bit as PyTorch resizes bytes with antialiasing."""
    if kind not in FILTERS:
        return np.asarray(image.resize(size, Image.Resampling[kind.upper()]))
    pixels = np.asarray(image).astype(np.int32)
    for axis, length in ((1, size[0]), (0, size[1])):
        places, weights, bits = resize_weights(pixels.shape[axis], length, kind)
        along = [length if axis == each else 1 for each in range(3)]
        sums = sum(
            pixels.take(place, axis) * weight.reshape(along) for place, weight in zip(places, weights, strict=True)
        )
        pixels = ((sums + (1 << (bits - 1))) >> bits).clip(0, 255)
    return pixels.astype(np.uint8)


@lru_cache(maxsize=16)
def resize_weights(before: int, after: int, kind: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Which old pixels each new one is made of, and what each gives, both (pixels, after): whole numbers of at most 16
    bits; and how many of the bits are behind the point."""
    reach, curve = FILTERS[kind]
    scale = before / after
    stretch = max(scale, 1.0)
    centre = scale * (np.arange(after) + 0.5)
    first = np.maximum((centre - reach * stretch + 0.5).astype(int), 0)
    end = np.minimum((centre + reach * stretch + 0.5).astype(int), before)
    place = first + np.arange((end - first).max())[:, None]
    distance = np.abs((place - centre + 0.5) / stretch)
    weights = np.where((place < end) & (distance < reach), curve(distance), 0.0)
    weights /= weights.sum(0)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * 2 ** (bits + 1)) < 2**15:
        bits += 1
    whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights)).astype(np.int32)
    return np.minimum(place, before - 1), whole, bits


# Search ---------------------------------------------------------------------------------------------------------------


class Guide:
    """What words and captions gain because the label head sees their words: chances (B, C) of all C of them."""

    def __init__(self, settings: Mapping[str, Any], chances: np.ndarray, weight: float) -> None:
        self.words, rarity = np.array(settings["words"]), np.array(settings["rarity"], np.float32)
        chances = chances[:, settings["classes"]]
        self.worth, self.rarity = weight * (chances - settings["unsure"]) * rarity, rarity
        self.seen, self.whole = _unit(chances * rarity), settings["whole"] * weight

    def gain(
        self, log_probs: np.ndarray, running: Sequence[int], written: Sequence[Sequence[Sequence[int]]]
    ) -> np.ndarray:
        """What beams are ranked by, (B, G, Y), of words that are not written yet."""
        new = np.array([[~np.isin(self.words, words) for words in beams] for beams in written])
        ranked = log_probs.copy()
        ranked[..., self.words] += self.worth[list(running), None] * new
        return ranked

    def agreement(self, example: int, words: Sequence[int]) -> float:
        counts = np.array([words.count(word) for word in self.words], np.float32)
        return self.whole * float(_unit(counts * self.rarity) @ self.seen[example])


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def search(
    step: Any, memory: Mapping[str, np.ndarray], config: Mapping[str, Any], guide: Guide | None = None
) -> list[tuple[list[int], float]]:
    """The best caption of each example: its words, and log-probability / length ** length_penalty.

    At every step each example keeps the ``beam_size`` best unfinished beams; one that ends while among the best
    ``beam_size`` candidates, twice as many where it is guided, is finished. An example is done when none of its beams
    could still be among the best.
    """
    size, eos, settings = config["search"]["beam_size"], config["eos"], config["search"]
    batch, ends = len(memory["summary"]), size if guide is None or size == 1 else 2 * size
    running, found = list(range(batch)), [[] for _ in range(batch)]  # type: ignore[var-annotated]
    written: list[list[list[int]]] = [[[]] for _ in running]
    totals = own = np.zeros((batch, 1), np.float32)  # own: log-probabilities, without what a guide adds
    word, parent = np.full((batch, 1), config["bos"], np.int64), np.zeros((batch, 1), np.int64)
    hidden = [np.zeros((batch, 1, config["hidden"]), np.float32) for _ in range(4)]
    states = [*hidden, np.zeros((batch, 1, 0, config["latent"]), np.float32)]

    def rank(total: float, length: int) -> float:
        return total / max(length, 1) ** settings["length_penalty"]

    for length in range(settings["max_length"] + 1):  # `length` words are written
        feeds = {**memory, "word": word, "parent": parent, **dict(zip(config["states"], states, strict=True))}
        log_probs, *states = step.run(None, feeds)
        if length < settings["min_length"]:
            log_probs[..., eos] = -np.inf
        ranked = log_probs if guide is None else guide.gain(log_probs, running, written)
        scores = (totals[..., None] + ranked).reshape(len(running), -1)
        count = min(2 * size, scores.shape[1])
        best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        going: list[list[tuple[float, int, int]]] = []  # of each example: total, beam, word
        stay = []
        for row, example in enumerate(running):
            choices = sorted(
                ((float(scores[row, i]), *divmod(int(i), log_probs.shape[-1])) for i in best[row]), reverse=True
            )
            choices = [choice for choice in choices if choice[0] > -np.inf]
            for total, beam, chosen in choices[:ends]:
                if chosen == eos:
                    score = rank(float(own[row, beam] + log_probs[row, beam, eos]), length + 1)
                    found[example].append((rank(total, length + 1), written[row][beam], score))
            found[example] = sorted(found[example], key=lambda entry: -entry[0])[:size]
            beams = [choice for choice in choices if choice[2] != eos][:size] if length < settings["max_length"] else []
            if not beams and not found[example]:
                beam = int(totals[row].argmax())
                score = rank(float(own[row, beam]), length)
                found[example].append((rank(float(totals[row, beam]), length), written[row][beam], score))
            full = len(found[example]) == size
            if any(not full or found[example][-1][0] < rank(total, length + 1) for total, _, _ in beams):
                stay.append(row)
                going.append(beams + [(-np.inf, 0, eos)] * (size - len(beams)))
        if not stay:
            break
        written = [[written[row][b] + [w] for _, b, w in beams] for row, beams in zip(stay, going, strict=True)]
        totals = np.array([[total for total, _, _ in beams] for beams in going], np.float32)
        own = np.array(
            [[own[row, b] + log_probs[row, b, w] for _, b, w in beams] for row, beams in zip(stay, going, strict=True)]
        )
        parent = np.array([[beam for _, beam, _ in beams] for beams in going])
        word = np.array([[chosen for _, _, chosen in beams] for beams in going])
        running = [running[row] for row in stay]
        memory = {name: value[stay] for name, value in memory.items()}
        states = [value[stay] for value in states]
    if guide is not None:
        for example, entries in enumerate(found):
            entries.sort(key=lambda entry: -entry[2] - guide.agreement(example, entry[1]))
    return [(words, score) for (_, words, score), *_ in found]


# Model ----------------------------------------------------------------------------------------------------------------


class Model:
    """An exported folder. ``search`` changes its search settings: beam_size, max_length, min_length, length_penalty,
    guidance."""

    def __init__(self, folder: str | Path, *, threads: int = 0, **search: float | None) -> None:
        folder = Path(folder)
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.config["search"].update({name: value for name, value in search.items() if value is not None})
        settings = self.config["search"]
        if settings["beam_size"] < 1 or not 0 <= settings["min_length"] <= settings["max_length"]:
            raise ValueError(f"these search settings cannot be: {settings}")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.encode, self.step = (
            onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
            for name in ("encode", "step")
        )

    def caption(
        self,
        examples: Sequence[Sequence[str | Path]],
        context: str | None = None,
        known: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Caption examples, each of as many views: their files. ``context`` and ``known`` are of all of them."""
        pixels = [[read_image(path, self.config["image"]) for path in views] for views in examples]
        return self.caption_pixels(np.array(pixels), context, known)

    def caption_pixels(
        self, pixels: np.ndarray, context: str | None = None, known: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """The same of bytes (B, V, C, H, W). Each caption has its ``caption``, ``score`` and ``labels``."""
        inputs = self._context(context, known or {}) | {"view_mask": np.ones((1, pixels.shape[1]), bool)}
        if pixels.shape[1] > self.config["views"]:
            raise ValueError(f"{pixels.shape[1]} views, and the model was made for at most {self.config['views']}")
        wanted = {entry.name for entry in self.encode.get_inputs()}
        feeds = {name: np.repeat(value, len(pixels), 0) for name, value in inputs.items() if name in wanted}
        names = [entry.name for entry in self.encode.get_outputs()]
        found = dict(zip(names, self.encode.run(None, {"pixels": pixels, **feeds}), strict=True))
        labels = [found.pop(f"label_{index}") for index in range(len(self.config["labels"]))]
        settings, weight = self.config["guide"], self.config["search"]["guidance"]
        guide = Guide(settings, labels[settings["label"]], weight) if settings and weight else None
        taken = {entry.name for entry in self.step.get_inputs()}
        captions = search(
            self.step, {name: value for name, value in found.items() if name in taken}, self.config, guide
        )
        return [
            {
                "caption": self.decode(words),
                "score": score,
                "labels": {
                    name: self.named(name, chances[row])
                    for name, chances in zip(self.config["labels"], labels, strict=True)
                },
            }
            for row, (words, score) in enumerate(captions)
        ]

    def named(self, label: str, chances: np.ndarray) -> str:
        """The likeliest class of a label; of one that may have several, all above their thresholds."""
        classes, thresholds = self.config["labels"][label], self.config["thresholds"].get(label)
        if thresholds is None:
            return str(classes[int(chances.argmax())])
        return ";".join(
            name for name, chance, least in zip(classes, chances, thresholds, strict=True) if chance > least
        )

    def decode(self, words: Sequence[int]) -> str:
        if self.config["tokenizer"] == "bpe":
            return str(self.tokenizer.decode([word for word in words if word > 3]))
        return " ".join(str(self.tokenizer.id_to_token(word)) for word in words if word > 3).replace(" .", ".")

    def _context(self, text: str | None, known: Mapping[str, str]) -> dict[str, np.ndarray]:
        settings = self.config["context"]
        if settings is None:
            if text or known:
                raise ValueError("this model reads no context")
            return {}
        numbers, categories = settings["numbers"], settings["categories"]
        for name in known:
            if name not in (*numbers, *categories):
                raise ValueError(
                    f"the model knows no '{name}'; it reads {', '.join((*numbers, *categories)) or 'none'}"
                )
        ids = self.tokenizer.encode(text or "", add_special_tokens=False).ids[: settings["max_tokens"]]
        values = [
            (float(known[name]) - mean) / deviation if name in known else np.nan
            for name, (mean, deviation) in numbers.items()
        ]
        chosen = [
            choices.index(known[name]) if known.get(name) in choices else -1 for name, choices in categories.items()
        ]
        return {
            "tokens": np.array([ids or [0]], np.int64),
            "token_mask": np.array([[True] * len(ids) or [False]]),
            "numbers": np.array([values], np.float32),
            "categories": np.array([chosen], np.int64),
        }


# Program --------------------------------------------------------------------------------------------------------------


def readable(paths: Sequence[str], settings: Mapping[str, Any], failed: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    for path in paths:
        try:
            yield path, read_image(path, settings)
        except (OSError, ValueError, SyntaxError) as error:
            print(f"cannot read {path}: {error}", file=sys.stderr)
            failed.append(path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument(
        "--model", default=Path(__file__).parent, help="the exported folder (default: that of this file)"
    )
    parser.add_argument("--views", action="store_true", help="the images are views of one example")
    parser.add_argument("--context", metavar="TEXT", help="what is known besides the images")
    parser.add_argument("--known", action="append", default=[], metavar="NAME=VALUE", help="a number or category")
    parser.add_argument("--beam-size", type=int, metavar="N", help="1 is greedy (default: as the model says)")
    parser.add_argument("--max-length", type=int, metavar="N")
    parser.add_argument("--min-length", type=int, metavar="N")
    parser.add_argument("--length-penalty", type=float, metavar="X")
    parser.add_argument("--guidance", type=float, metavar="X", help="by words that the label head sees; 0 is off")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each image, with score and labels")
    options = parser.parse_args(arguments)
    names = ("beam_size", "max_length", "min_length", "length_penalty", "guidance")
    failed: list[str] = []
    try:
        model = Model(options.model, **{name: getattr(options, name) for name in names})
        known = dict(entry.split("=", 1) for entry in options.known)
        images = readable(options.images, model.config["image"], failed)
        size = len(options.images) if options.views else max(1, options.batch_size)
        while batch := [entry for _, entry in zip(range(size), images, strict=False)]:
            pixels = np.array([entry[1] for entry in batch])
            pixels = pixels[None] if options.views else pixels[:, None]
            files = [", ".join(entry[0] for entry in batch)] if options.views else [entry[0] for entry in batch]
            for file, caption in zip(files, model.caption_pixels(pixels, options.context, known), strict=True):
                print(
                    json.dumps({"file": file, **caption}) if options.json else f"{file}\t{caption['caption']}",
                    flush=True,
                )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
