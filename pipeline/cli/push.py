"""Share a model:  latentcap push runs/mine/model user/name

The files of the model folder and nothing else are uploaded to the Hugging Face hub.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError where the folder or the hub refuses."""
    parser = argparse.ArgumentParser(
        prog="latentcap push", description="Upload a model folder to the Hugging Face hub.",
        epilog="`hf auth login` says who you are. Then: latentcap caption photos/ --model user/name",
    )  # fmt: skip
    parser.add_argument("folder", type=Path, help="model folder")
    parser.add_argument("name", help="user/name; made where it does not exist")
    parser.add_argument("--private", action="store_true", help="only you see it")
    parser.add_argument("--message", default="Upload of a latentcap model", help="of the commit")
    options = parser.parse_args(arguments)
    from latentcap.hub import push

    print(push(options.folder, options.name, private=options.private, message=options.message))
    return 0
