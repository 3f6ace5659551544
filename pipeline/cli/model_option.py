"""The option ``--model`` of the programs that take a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.in_the_box import DEFAULT_MODEL, find_model, model_names

BOX = ", ".join(model_names())
WHICH = f"model folder, the name of one in the box ({BOX}), or user/name on the hub; a folder here comes first"


def model_folder(name: str) -> Path:
    """:func:`find_model` for argparse, which would put words of its own in place of a UserError's."""
    try:
        return find_model(name)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_model_option(parser: argparse.ArgumentParser, *, required: bool = False, more: str = "", **kinds: Any) -> None:
    """Add ``--model``, a path. Where it is not required, the model in the box that captions by default stands for it.

    ``more`` is added to its help text; ``kinds`` are other arguments of ``add_argument``.
    """
    text = f"{WHICH}{more}" if required else f"{WHICH}{more} (default: {DEFAULT_MODEL})"
    default = None if required else DEFAULT_MODEL
    parser.add_argument(
        "--model", type=model_folder, metavar="MODEL", required=required, default=default, help=text, **kinds
    )
