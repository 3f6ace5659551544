"""``python -m latentcap.data.scenes OUT``: render the embedded data set into a folder."""

from __future__ import annotations

import argparse
import sys

from latentcap.data.errors import UserError
from latentcap.data.scenes.write import render_scenes


def main(arguments: list[str] | None = None) -> int:
    """Parse, render, say where it is. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m latentcap.data.scenes", description="Render the embedded data set 'scenes'."
    )
    parser.add_argument("folder", metavar="OUT", help="folder to write images and metadata.jsonl into")
    parser.add_argument("--train", type=int, default=2000, help="training images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=300, help="validation images (default: %(default)s)")
    parser.add_argument("--test", type=int, default=300, help="test images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default: %(default)s)")
    options = vars(parser.parse_args(arguments))
    try:
        metadata = render_scenes(options.pop("folder"), **options)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(metadata)
    return 0


if __name__ == "__main__":
    sys.exit(main())
