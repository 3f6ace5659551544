"""A model, and what it has to beat: retrieval, ablations, and models trained with less."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from latentcap.captioner import Captioner
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers.fields import FINDINGS
from latentcap.evaluation.baselines import ablations, mean_regions, nearest, without_context, write_captions
from latentcap.evaluation.scored import Scored
from latentcap.evaluation.worth import worth_of_parts
from latentcap.model.label_scores import accuracies
from latentcap.model.label_values import values_of
from latentcap.training.cached_regions import cached_regions


def run_systems(
    options: argparse.Namespace, examples: Sequence[Example], train: Sequence[Example], texts: Sequence[str] | None
) -> Scored:
    """Run ``--model`` and its baselines on the examples.

    Args:
        train: examples whose captions the nearest neighbour may give; none leaves it out.
        texts: captions (B,) that are scored in place of the model's own.

    Raises:
        UserError: no image can be read, or ``--ablate context`` where there is no context to take away.
    """
    captioner = Captioner.from_pretrained(options.model)
    known = [example for example in train if example.captions]
    regions = cached_regions(captioner, [*examples, *known], options.cache_dir)
    usable = regions.usable(examples)
    examples = [example for example, readable in zip(examples, usable, strict=True) if readable]
    if not examples:
        raise UserError("none of the examples has readable images. See: latentcap prepare check DATA")
    given = None if texts is None else [text for text, readable in zip(texts, usable, strict=True) if readable]
    search = captioner.search_config(**({"beam_size": options.beam_size} if options.beam_size else {}))

    def write(what: Sequence[Example], title: str, *, blank: bool = False) -> list[str]:
        return write_captions(captioner, regions, what, search=search, blank=blank, title=title).texts

    own = write_captions(captioner, regions, examples, search=search, title="model")
    scored = Scored("model", list(examples), own.texts if given is None else list(given))
    if usable.count(False):
        scored.notes.append(f"left out: {usable.count(False):,} examples with unreadable images")
    if own.labels and captioner.model.labels is not None:
        lists = captioner.model.labels.lists
        single = [{name: value for name, value in row.items() if name not in lists} for row in own.labels]
        scored.labels = accuracies(single, [example.labels for example in examples])
        if FINDINGS in lists:
            scored.findings = [values_of(row[FINDINGS]) for row in own.labels]
    known = [example for example, readable in zip(known, regions.usable(known), strict=True) if readable]
    if known:
        places = nearest(mean_regions(regions, examples), mean_regions(regions, known))
        scored.beside["nearest"] = [known[place].captions[0] for place in places]
    else:
        scored.notes.append("no nearest neighbour: give the training examples with --train")
    changed = ablations(examples, options.seed)
    has_context = captioner.model.context is not None and any(map(_has_context, examples))
    without = [without_context(example) for example in examples]
    for name, folder, fallback in (
        ("image only", options.image_only, lambda: write(without, "image only") if has_context else None),
        ("context only", options.context_only, lambda: write(examples, "context only", blank=True)),
    ):
        if folder:
            scored.beside[name] = _trained(folder, examples, without, options, name)
            scored.notes.append(f"{name}: the model in {folder}, trained so")
        elif (found := fallback()) is not None:
            scored.beside[name] = found
            what = "without context" if name == "image only" else "with an even grey image"
            scored.notes.append(f"{name}: the same model {what}, for which it was not trained")
    scored.beside["shuffled"] = write(changed["shuffled images"](), "shuffled images")
    scored.worth = worth_of_parts(captioner, regions, examples, options.seed, context=has_context)
    scored.notes.append(f"shuffled: the same model with another example's image (seed {options.seed})")
    if options.ablate == "context":
        if not has_context:
            raise UserError(
                f"--ablate context: {options.model} reads no context, or the examples have none. "
                "Name its columns, as --field context=COLUMN or --field numbers=age."
            )
        scored.ablation = {
            "with context": own.texts,
            **{name: write(changed[name](), name) for name in ("no context", "another's context")},
        }
    return scored


def _trained(
    folder: str, examples: Sequence[Example], without: Sequence[Example], options: argparse.Namespace, name: str
) -> list[str]:
    """Captions of a model that was trained without image or without context."""
    captioner = Captioner.from_pretrained(folder)
    blind = not captioner.model.config.sees_image
    if name == "context only" and not blind:
        raise UserError(
            f"--context-only {folder}: this model sees images. Train it with model.model.sees_image: false."
        )
    regions = cached_regions(captioner, examples, options.cache_dir)
    return write_captions(
        captioner,
        regions,
        without if name == "image only" else examples,
        search=captioner.search_config(**({"beam_size": options.beam_size} if options.beam_size else {})),
        title=name,
    ).texts


def _has_context(example: Example) -> bool:
    values = (*example.numbers.values(), *example.categories.values())
    return bool(example.context) or any(value is not None for value in values)
