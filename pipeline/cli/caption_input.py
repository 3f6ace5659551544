"""Which images are captioned, and what is known of each."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from latentcap.batch.inputs import Inputs
from latentcap.batch.journal import digest
from latentcap.batch.outputs import BESIDE, REPORTS, Output
from latentcap.batch.plan import failed_before
from latentcap.batch.run_folder import RunFolder
from latentcap.batch.shards import Shard
from latentcap.batch.studies import choose_studies
from latentcap.batch.tables import Columns
from latentcap.data.errors import UserError
from latentcap.data.jsonl import iter_jsonl
from latentcap.data.readers.rows import iter_rows
from latentcap.model_folder import read_config


def choose_inputs(options: argparse.Namespace, shard: Shard, kind: str) -> Inputs:
    """The images and what is known of each. Raises UserError where there are none."""
    config = read_config(options.model)
    columns = Columns(
        image=options.image_column,
        context=options.context_column,
        root=options.image_root,
        numbers=tuple(config["fields"]["numbers"]),
        categories=tuple(config["fields"]["categories"]),
        reads_context=config["model"]["context"]["encoder"] != "none",
    )
    if not columns.reads_context and (options.context or options.contexts or options.context_column):
        raise UserError(
            f"{options.model} reads no context: it was trained without any. Leave out --context, --contexts and "
            "--context-column, or train a model on examples that have some."
        )
    context = choose_context(options)
    inputs = Inputs(
        options.images,
        columns=columns,
        context=context,
        videos=options.every > 0,
        belongs=partial(shard.holds, whole_tars=kind == "webdataset", by_stem=kind in BESIDE),
        may_be_empty=options.watch,
        grouped=choose_studies(options.frame, views=config["model"].get("max_views", 1), reports=kind in REPORTS),
    )
    first = next(iter(inputs), None)
    if options.contexts and first and not any(context(item.name) for item in inputs):
        raise UserError(
            f"{options.contexts}: none of its files is among the images. It names "
            f"'{next(iter(read_contexts(options.contexts)), '')}', ...; the images are called '{first.name}', ..., as "
            "in the output."
        )
    return inputs


def choose_context(options: argparse.Namespace) -> Callable[[str], str | None]:
    """The context of an input by its name."""
    if options.contexts is not None:
        return read_contexts(options.contexts).get
    return lambda name: options.context


def read_contexts(path: Path) -> dict[str, str]:
    """Contexts by the names of files: JSON Lines, or a table with these columns."""
    known: dict[str, str] = {}
    rows = iter_rows(path) if path.suffix.lower() in (".csv", ".tsv", ".parquet") else iter_jsonl(path)
    for number, row in enumerate(rows, start=1):
        file, context = row.get("file"), row.get("context")
        if not isinstance(file, str) or not (context is None or isinstance(context, str)):
            raise UserError(
                f'{path}, row {number}: {{"file": "...", "context": "..."}} is needed on every line, or a table '
                "with the columns file and context."
            )
        if context:
            known[file] = context
    return known


def only_failed(inputs: Inputs, output: Output, folder: RunFolder) -> int:
    """Leave of the inputs those that have failed before. Returns how many there are."""
    failed, belongs = failed_before(folder.errors, output.journal), inputs.belongs
    inputs.belongs = lambda item: digest(item.name) in failed and belongs(item)
    return len(failed)
