"""The command line of ``latentcap caption``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from latentcap.batch.outputs import EXISTING, FORMATS, XMP_NAMES
from latentcap.batch.settings import BATCH
from latentcap.batch.studies import ALL
from latentcap.cli.model_option import add_model_option
from latentcap.cli.search_options import add_search_options
from latentcap.config import ENGINES
from latentcap.data.cores import available_cores
from latentcap.data.readers.fields import is_frame
from latentcap.data.video import parse_interval

DTYPES = ("float32", "bfloat16", "float16")
EPILOG = """Exit code: 0 all images are captioned, 1 none could be, 2 a mistake in the command, 3 some could not be.

Run again, the same command goes on where it was stopped. 'latentcap caption merge captions.jsonl' joins the outputs of
--num-shards processes."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap caption",
        description="Caption images, as many as there are.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_caption_options(parser)
    add_machine_options(parser.add_argument_group("machine"))
    parser.add_argument(
        "--watch", action="store_true", help="go on with images as they arrive in the folders, until Ctrl-C"
    )
    return parser.parse_args(arguments)


def add_caption_options(parser: argparse.ArgumentParser, *, format: str | None = None) -> None:
    """What goes in, what comes out and how: the options that ``caption`` and ``caption-ray`` have in common."""
    add = parser.add_argument
    add(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="image files, folders (with all below them: a CD of DICOM studies), tars, zips, patterns (*, {000..099}), "
        "tables (.jsonl, .csv, .parquet) with a column of images, @list.txt, or - for a list or JSON Lines on standard "
        "input",
    )
    add(
        "--every",
        type=seconds,
        default=0.0,
        metavar="TIME",
        help="caption videos too, by a frame each 2s, 500ms or 1min; frames that look like the last captioned one "
        "belong to its scene (extra 'video')",
    )
    add_model_option(parser)
    add(
        "--frame",
        type=frame,
        metavar="WHICH",
        help="of DICOM films: first, middle, a number from 1, or all, each by itself (default: films fail)",
    )
    add(
        "--heads",
        metavar="V+T",
        help="only the first V visual and T text heads, such as 1+1, of a model trained with RandomHeadBudget",
    )
    _add_output(parser.add_argument_group("output"), format)
    _add_context(parser.add_argument_group("context and tables"))
    add_search_options(parser)


def frame(text: str) -> str:
    if text != ALL and not is_frame(text):
        raise argparse.ArgumentTypeError(f"'{text}' must be first, middle, all, or a number from 1")
    return text


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be a whole number, 1 or more")
    return int(text)


def seconds(text: str) -> float:
    try:
        return parse_interval(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_output(group: argparse._ArgumentGroup, format: str | None) -> None:
    add = group.add_argument
    add(
        "--output",
        type=Path,
        metavar="PATH",
        help="file, or folder for --format parts, hf, txt, caption, xmp, srt, vtt, webdataset, fhir and dicom-sr; not "
        "needed for txt, caption, xmp, srt and vtt, which then stand beside the images",
    )
    default = format or "by the output's suffix, else jsonl"
    add(
        "--format",
        choices=FORMATS,
        default=format,
        help=f"parts is Parquet in several files, hf a Hugging Face data set, images included (default: {default})",
    )
    add(
        "--embed",
        action="store_const",
        dest="format",
        const="embed",
        help="write descriptions into the JPEG, PNG and WebP files themselves; their pixels and times stay",
    )
    add(
        "--xmp-name",
        choices=XMP_NAMES,
        default="full",
        help="of --format xmp: photo.jpg.xmp (full) or photo.xmp (stem) (default: %(default)s)",
    )
    add(
        "--image-ids",
        type=Path,
        metavar="JSON",
        help="of --format coco: COCO's annotations, which have an id for each file name (default: the table's image_id "
        "or id, else the last number in the file name)",
    )
    add(
        "--keep-identifiers",
        action="store_true",
        help="of --format fhir and dicom-sr: copy name and numbers of the patient and of the study from the images, so "
        "that an archive can file the report (default: neither)",
    )
    add("--overwrite", action="store_true", help="forget an earlier run into this output and start anew")
    add(
        "--existing",
        choices=EXISTING,
        default="skip",
        help="what becomes of a text that an image has already: all formats but tables (default: %(default)s)",
    )
    add("--separator", default=" ", metavar="TEXT", help="between the texts of --existing append and prepend")
    add("--prefix", default="", metavar="TEXT", help="put before each caption")
    add("--suffix", default="", metavar="TEXT", help="put after each caption")
    add("--template", default="", metavar="TEXT", help="such as 'a photo of {caption}, {context}'")
    add("--lowercase", action="store_true", help="captions in lower case")
    add("--trigger", default="", metavar="WORD", help="put first, with a comma, unless the caption has it already")
    add(
        "--sections",
        action="store_true",
        help="of chest reports: the sentences of each caption by heading (lungs, pleura, heart, mediastinum, bones, "
        "devices, other)",
    )
    add("--words", action="store_true", help="also write each word with its probability")
    add("--gallery", type=Path, metavar="HTML", help="also write a page that shows images and captions")
    add("--retry-failed", action="store_true", help="only the images that errors.jsonl names")
    add(
        "--changed",
        action="store_true",
        help="also images that are newer than their captions: these are replaced, but for what somebody has edited",
    )
    add("--dry-run", action="store_true", help="say how many images would be captioned, and name ten; write nothing")
    add("--quiet", action="store_true", help="no progress and no summary; failures are reported all the same")


def _add_context(group: argparse._ArgumentGroup) -> None:
    one = group.add_mutually_exclusive_group()
    one.add_argument("--context", metavar="TEXT", help="what is known besides the image, for all images")
    one.add_argument(
        "--contexts",
        type=Path,
        metavar="FILE",
        help='JSON Lines of {"file": ..., "context": ...}, or a table with these columns; files named as in the output',
    )
    group.add_argument("--image-column", metavar="NAME", help="of tables (default: file_name, image, file, path, ...)")
    group.add_argument("--context-column", metavar="NAME", help="of tables (default: context)")
    group.add_argument(
        "--image-root", type=Path, metavar="FOLDER", help="where a table's paths begin (default: its own)"
    )


def add_machine_options(group: argparse._ArgumentGroup) -> None:
    add_model_options(group)
    add = group.add_argument
    add(
        "--workers",
        type=positive,
        default=available_cores(),
        metavar="N",
        help="threads that each take batches from file to caption (default: one for each core, %(default)s)",
    )
    add(
        "--devices",
        type=positive,
        default=1,
        metavar="N",
        help="processes, which GPUs are shared out among; several keep one GPU busier (default: %(default)s)",
    )
    add("--num-shards", type=int, metavar="N", help="parts that the job is divided into, one for each machine")
    add(
        "--shard-index",
        type=int,
        metavar="I",
        help="this process's part, from 0 (default: what SLURM or torchrun says, else all)",
    )


def add_model_options(group: argparse._ArgumentGroup) -> None:
    """How the model runs, wherever that is."""
    add = group.add_argument
    add("--batch-size", type=positive, metavar="N", default=BATCH, help="images at once (default: %(default)s)")
    add("--device", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")
    add("--engine", choices=ENGINES, help="what runs the CNN (default: the fastest that is installed)")
    add("--dtype", choices=DTYPES, help="what the CNN computes in (default: the fastest that the device multiplies)")
