"""The model card: what a model folder holds, what it was trained on, what was measured, and what it is not for."""

from __future__ import annotations

import json
import math
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from latentcap.captioner import Captioner
from latentcap.training.card_data import front_matter
from latentcap.training.worth import little


def model_card(
    captioner: Captioner,
    *,
    command: str,
    data: Mapping[str, int],
    source: Mapping[str, Any],
    scores: Mapping[str, float],
    settings: Mapping[str, Any],
    epochs: int,
    started: str = "",
    notice: str = "",
) -> str:
    """The card's text in Markdown.

    Args:
        data: examples used of each split.
        source: where each split came from; only file names are told, no folders of the machine.
        scores: what validation measured, by name.
        settings: of model, optimiser and search.
        notice: terms of the data, and whatever else its users have to know, for the section on limits.
    """
    parameters = sum(parameter.numel() for parameter in captioner.model.parameters())
    backbone = captioner.model.config.backbone
    names = {split: _names(value) for split, value in source.items() if value is not None}
    rows = "\n".join(f"| {name.removeprefix('val/')} | {value:.4f} |" for name, value in scores.items())
    counts = "\n".join(f"| {split} | {names.get(split, names.get('train', ''))} | {n:,} |" for split, n in data.items())
    fields = captioner.collate_context.fields
    knows = [
        "text" if captioner.model.context is not None else "",
        *(f"number `{name}`" for name in fields.numbers),
        *(f"category `{name}`" for name in fields.categories),
    ]
    head = captioner.model.labels
    labels = f" Beside the caption it predicts {', '.join(head.classes)} from the image." if head is not None else ""
    warning = little(scores.get("val/image_worth", math.inf)) if captioner.model.config.sees_image else ""
    limits = "\n".join(filter(None, (f"On validation {warning}." if warning else "", notice)))
    head_of_card = front_matter(backbone=backbone.name, datasets=list(dict.fromkeys(names.values())), scores=scores)
    return f"""{head_of_card}# latentcap model

Captions images with a {backbone.name} backbone ({captioner.image.size[0]} x {captioner.image.size[1]} pixels),
multi-head latent attention with {captioner.model.config.fusion.visual_heads} visual and
{captioner.model.config.fusion.text_heads} text heads, and an LSTM decoder: {parameters / 1e6:.1f} M parameters,
{len(captioner.tokenizer):,} words. Context it reads: {", ".join(filter(None, knows)) or "none"}.{labels}

```python
from latentcap import Captioner

captioner = Captioner.from_pretrained("FOLDER")
print(captioner.caption(["image.jpg"], beam_size={captioner.search.beam_size})[0].text)
for word, probability in captioner.caption(["image.jpg"], no_repeat_ngram=3, bad_endings="english")[0].words:
    print(word, round(probability, 2))
several = captioner.caption(["image.jpg"], beam_size=6, beam_groups=3, num_captions=3)  # three that differ
samples = captioner.caption(["image.jpg"], sample=True, temperature=0.8, top_p=0.9, seed=1, num_captions=3)
```

On the command line: `latentcap caption photos/ --model FOLDER --output captions.jsonl --bad-endings english`;
its `--help` has all settings of the search (`max_length`, `length_penalty`, `forbidden_words`, `required_words`, ...).

## Data

| split | source | examples |
|---|---|---|
{counts}

{started}

## Scores

Free-running captions of the validation split, beam {captioner.search.beam_size}, all references of each
image, words as COCO scores them (lower case, no punctuation); `loss` is teacher-forced, in nats a word, `image_worth`
(`context_worth`) is how much it rises with another example's image (context), `distinct` counts different captions.
Validation chose the epoch, so these are not test scores.

| metric | value |
|---|---|
{rows}

## How it was trained

{epochs} epochs with `{_portable(command)}`, torch {torch.__version__}, {platform.machine()} {platform.system()}.

```json
{json.dumps(settings, indent=1)}
```

## Limits

It describes what its training captions described, in their words, and nothing else. It repeats their errors and
biases. Images unlike the training images get fluent and wrong captions; `score` is a weak sign of that. The data's
terms apply to the model too. For research: not for decisions about people, and not for clinical use.
{limits}
"""


def _names(source: Any) -> str:
    sources = source if isinstance(source, list | tuple) else [source]
    return ", ".join(Path(str(entry)).name for entry in sources)


def as_typed(arguments: Sequence[str]) -> str:
    """A process's arguments as the command of ``latentcap`` that they are, however that was started."""
    program, *rest = arguments
    path = Path(program)
    if path.parent.name == "scripts":
        return shlex.join(["latentcap", path.stem.replace("_", "-"), *rest])
    ours = path.stem == "latentcap" or path.parts[-2:] == ("cli", "main.py")
    return shlex.join(["latentcap", *rest] if ours else ["python", *arguments])


def _portable(command: str) -> str:
    """The command with every path shortened to its last two parts: a card tells no machine's folders."""
    return re.sub(r"(?<![\w.-])\.{0,2}/[^\s=]+", lambda path: str(Path(*Path(path[0]).parts[-2:])), command)
