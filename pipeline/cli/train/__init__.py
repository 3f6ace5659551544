"""Train, validate or test: ``latentcap train fit --config scenes --data.train FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from latentcap.cli.verbs import choose

VERBS = {
    "fit": "train a model, or go on with an interrupted run (--ckpt_path last)",
    "stages": "words first, then sentences: better, and one command, which goes on where it was stopped",
    "validate": "score a model folder (--model.start_from) on the validation images",
    "test": "score a model folder (--model.start_from) on the test images",
}
# A training in a process of its own. -P: no file of the working directory is taken for a library.
TRAIN = (sys.executable, "-P", "-m", "latentcap.cli.main", "train")
ABOUT = """Train a captioner on your own images, and score it.

A recipe (--config NAME or FILE) holds what differs from the defaults; every setting can also be given on the command
line. A run writes to --trainer.default_root_dir: model/ in it is what 'latentcap caption --model' takes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns its exit code. Raises UserError for a mistake in it."""
    given = sys.argv[1:] if arguments is None else arguments
    hint = " Images without captions: latentcap caption IMAGES --model FOLDER." if given[:1] == ["predict"] else ""
    verb, rest = choose("latentcap train", ABOUT, VERBS, given, hint=hint)
    if verb == "stages":
        from latentcap.cli.train import stages

        return stages.main(rest)
    from latentcap.cli.train.lightning_cli import train  # lightning takes seconds to import

    return train([verb, *rest])
