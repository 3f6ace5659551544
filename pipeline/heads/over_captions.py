"""The heads of a model measured over the captions of a data set: teacher forcing, forwards and backwards."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from latentcap.captioner import Captioner
from latentcap.data.batches.caption_tokens import caption_tokens
from latentcap.data.batches.context import ContextCollator
from latentcap.data.batches.transforms import load_image
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers import Fields, read_examples
from latentcap.data.readers.splits import select_split
from latentcap.heads.measure import HeadMeter
from latentcap.heads.report import HeadReport, summarise
from latentcap.progress import Progress

BATCH = 16  # examples


def read(data: Sequence[str], collate: ContextCollator, *, format: str, split: str) -> list[Example]:
    """The examples of a split that have captions, with the context fields that the model knows.

    A source without splits is all of it. Raises UserError where nothing has a caption.
    """
    fields = Fields(numbers=tuple(collate.fields.numbers), categories=tuple(collate.fields.categories))
    where = " ".join(data)
    examples = select_split(read_examples(data, format=format, fields=fields), split, where)
    chosen = [example for example in examples if example.captions]
    if not chosen:
        raise UserError(
            f"{where}: none of the {len(examples):,} examples has a caption, and the heads are measured on captions."
        )
    return chosen


def measure(captioner: Captioner, examples: Sequence[Example]) -> HeadReport:
    """The report over all captions of some examples. Unreadable images are named and left out.

    Raises UserError where none could be read.
    """
    meter = HeadMeter(captioner.model, tokenizer=captioner.tokenizer, context_tokenizer=captioner.context_tokenizer)
    with Progress("heads", unit="example") as progress:
        for start in range(0, len(examples), BATCH):
            add(meter, captioner, examples[start : start + BATCH])
            progress.update(min(start + BATCH, len(examples)), len(examples))
    if not meter.examples:
        raise UserError(f"none of the {len(examples):,} examples has images that can be read.")
    return summarise(meter)


def add(meter: HeadMeter, captioner: Captioner, examples: Sequence[Example]) -> None:
    """One batch: every caption of every example."""
    views, kept = [], []
    for example in examples:
        try:
            views.append([captioner.transform(load_image(ref, captioner.image)) for ref in example.images])
            kept.append(example)
        except OSError as error:
            print(f"skipped {example.id}: {error.strerror or error}", file=sys.stderr)
    if not kept:
        return
    context = captioner.collate_context.examples(kept)
    with torch.no_grad():
        memory = captioner.encode(views, context, named=[example.views for example in kept])
    length = captioner.model.config.decoder.max_length
    tokens = caption_tokens(captioner.tokenizer, kept, length).to(captioner.device)
    meter.update(memory, tokens, context.to(captioner.device))
