"""Take a model where PyTorch does not fit:  latentcap export onnx rsicd out/

``onnx``: two graphs, tokenizer, config and run.py, one file that needs onnxruntime, numpy, pillow and tokenizers alone.
``web``: a static folder that captions in the browser.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from latentcap.cli.model_option import WHICH
from latentcap.cli.verbs import choose
from latentcap.data.errors import UserError
from latentcap.in_the_box import find_model

VERBS = {
    "onnx": "graphs for onnxruntime, and a program of one file that captions with them",
    "web": "a static folder that captions in the browser, with onnxruntime-web",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command."""
    verb, rest = choose("latentcap export", "Take a model where PyTorch does not fit.", VERBS, arguments or [])
    parser = argparse.ArgumentParser(prog=f"latentcap export {verb}", description=f"Write {VERBS[verb]}.")
    parser.add_argument("model", type=find_model, metavar="MODEL", help=WHICH)
    parser.add_argument("folder", type=Path, metavar="OUT", help="the folder to write, new or empty")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--half", action="store_true", help="store weights in half precision: half the size")
    kept.add_argument(
        "--int8", type=Path, metavar="IMAGES",
        help="store and multiply CNN and matrices in 8 bits: a quarter of the size; IMAGES, a folder or tar of a few "
        "hundred, are those that its ranges are measured on",
    )  # fmt: skip
    parser.add_argument("--heads", metavar="V+T", help="export only the first V visual and T text heads")
    if verb == "web":
        parser.add_argument(
            "--runtime", type=Path, metavar="FOLDER",
            help="npm's package onnxruntime-web (default: node_modules/onnxruntime-web)",
        )  # fmt: skip
    options = parser.parse_args(rest)
    try:
        from latentcap.export.folder import export_onnx
        from latentcap.export.web import export_web
    except ImportError as error:
        raise UserError(
            f"exporting needs the extra 'export': pip install 'latentcap[export]' ({error.name} is missing)."
        ) from None
    how = {"half": options.half, "int8": options.int8, "heads": options.heads}
    if verb == "web":
        export_web(options.model, options.folder, runtime=options.runtime, **how)
        use = f"Serve it: python -m http.server -d {options.folder}"
    else:
        export_onnx(options.model, options.folder, **how)
        use = f"Caption with: python {options.folder / 'run.py'} IMAGES"
    size = sum(path.stat().st_size for path in options.folder.iterdir()) / 1e6
    print(f"{options.folder}: {size:.1f} MB. {use}")
    return 0
