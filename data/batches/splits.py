"""The examples of each split of a run, from sources that may hold several."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from latentcap.data.columns import each, with_field
from latentcap.data.errors import UserError
from latentcap.data.example import Example
from latentcap.data.readers.splits import in_split, refuse_leaks, share_for_validation

Source = str | list[str] | None

logger = logging.getLogger(__name__)


def read_splits(
    wanted: Iterable[str],
    sources: Mapping[str, Source],
    read: Callable[[str | list[str]], Sequence[Example]],
    *,
    val_share: float,
) -> dict[str, Sequence[Example]]:
    """The examples of the ``wanted`` splits.

    A source that is given for one split is that split, whatever it calls itself.

    Args:
        sources: of ``train``, ``val`` and ``test``. A split without a source of its own is looked for in ``train``.
        read: a source to all its examples.
        val_share: where neither has a validation split, this share of the training examples becomes one.

    Raises:
        UserError: a split has no examples, or a patient or case is in two.
    """
    found: dict[str, Sequence[Example]] = {}
    shared: Sequence[Example] = []
    wanted = list(wanted)
    for split in wanted:
        own = sources[split]
        if own is not None and split != "train":
            examples = read(own)
            found[split] = in_split(examples, split) or with_field(examples, "split", [split] * len(examples))
            continue
        source = sources["train"]
        if source is None:
            raise UserError(f"no {split} data: set data.{split} to a folder, a file or tars (--data.{split} PATH).")
        if not shared:
            shared = read(source)
            splits = set(each(shared, "split")) if "train" in wanted else set()
            if splits == {"test"}:
                raise UserError(
                    f"{source}: all its {len(shared):,} examples are of the split 'test', and a model that has read "
                    "them cannot be measured on them. Give data.train other data; or, if it is no test set, another "
                    "split column (data.fields.split) or name."
                )
            if splits == {"val"}:
                shared = with_field(shared, "split", ["train"] * len(shared))
            if sources["val"] is None:
                shared = _with_validation(shared, val_share)
        found[split] = in_split(shared, split)
        if not found[split]:
            counts = Counter(each(shared, "split"))
            have = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
            raise UserError(
                f"no '{split}' examples in {source}: its splits are {have}. Set data.{split} to a source of its own, "
                "or give the examples a 'split' field."
            )
    refuse_leaks(*found.values(), where="data.train, data.val")
    return found


def _with_validation(examples: Sequence[Example], share: float) -> Sequence[Example]:
    if not share or "val" in each(examples, "split"):
        return examples
    examples = share_for_validation(examples, share=share)
    counts = Counter(each(examples, "split"))
    logger.info(
        "no validation split in the data: %d of %d training examples validate instead, the same in every run "
        "(data.val_share %g; or name a set of its own in data.val)",
        counts["val"],
        counts["val"] + counts["train"],
        share,
    )
    return examples
