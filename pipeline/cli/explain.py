"""See where each head looked:  latentcap explain photos/ --output report.html

One HTML file that works offline: for every word and head, a map over the image or weights over context and words.
Exit code: 0 all images are explained, 1 none could be, 2 a mistake in the command, 3 some could not be read.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from latentcap.cli.model_option import add_model_option
from latentcap.data.errors import UserError, did_you_mean
from latentcap.data.listing import Listed, iter_images
from latentcap.data.readers.fields import to_number
from latentcap.progress import Progress

if TYPE_CHECKING:
    from latentcap.captioner import Captioner

LIMIT = 50


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap explain", description="A page that shows where each head looked for each word."
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="image files, folders, tars, patterns")
    add_model_option(parser)
    add("--output", required=True, type=Path, metavar="HTML", help="the page to write")
    add("--context", metavar="TEXT", help="what is known besides the image, for all images")
    add(
        "--known",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a number or category that the model reads, such as age=58 or sex=female; several times for several",
    )
    add("--views", action="store_true", help="the images are views of one example, which get one caption")
    add(
        "--limit",
        type=int,
        default=LIMIT,
        metavar="N",
        help="explain the first N images (default: %(default)s; each adds about 50 kB to the page)",
    )
    add("--beam-size", type=int, metavar="N", help="captions searched side by side (default: as the model says)")
    options = parser.parse_args(arguments)
    if options.limit < 1:
        raise UserError(f"--limit {options.limit}: give 1 or more.")
    if options.output.is_dir():
        raise UserError(f"--output {options.output}: a folder, where the name of an HTML file is needed.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    options = parse(arguments)
    images = list(islice(iter_images(options.images), options.limit + 1))
    if len(images) > options.limit:
        print(f"the first {options.limit} images; there are more (--limit N)", file=sys.stderr)
        images = images[: options.limit]
    groups = [images] if options.views else [[image] for image in images]
    search = {} if options.beam_size is None else {"beam_size": options.beam_size}
    from latentcap.captioner import Captioner  # torch takes seconds to import
    from latentcap.pages.explain import write_page

    captioner = Captioner.from_pretrained(options.model)
    fields: dict[str, Any] = known_fields(captioner, options.known)
    captioner.collate_context([options.context], **fields)  # an error now is better than after the first image
    captioner.search_config(**search)
    failed = 0

    def records() -> Iterator[dict[str, Any]]:
        nonlocal failed
        with Progress("explained", unit="img") as progress:
            for done, group in enumerate(groups, start=1):
                record = explain(captioner, group, options.context, **fields, **search)
                failed += "error" in record
                yield record
                progress.update(done, len(groups))

    try:
        path = write_page(options.output, records(), title="Where each head looked")
    except OSError as error:
        raise UserError(f"--output {options.output}: cannot be written ({error.strerror}).") from None
    print(f"{len(groups) - failed:,} explained, {failed:,} failed: {path}   (open it in a browser)", file=sys.stderr)
    return 0 if not failed else 3 if failed < len(groups) else 1


def known_fields(captioner: Captioner, assignments: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """``["age=58", "sex=female"]`` as the ``numbers`` and ``categories`` of ``Captioner.caption``, by what it reads.

    Raises UserError for what is no assignment, for a name that the model does not know, and for a value that it cannot
    take.
    """
    fields = captioner.collate_context.fields
    numbers: dict[str, Any] = {}
    categories: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        names = (*fields.numbers, *fields.categories)
        if not equals or name not in names:
            have = f"It reads {', '.join(names)}." if names else "It was trained without any."
            raise UserError(
                f"--known {assignment}: not NAME=VALUE of what the model reads.{did_you_mean(name, names)} {have}"
            )
        if name in fields.numbers:
            if (number := to_number(value)) is None:
                raise UserError(f"--known {assignment}: '{value}' is no number.")
            numbers[name] = number
        elif value in fields.categories[name]:
            categories[name] = value
        else:
            accepted = fields.categories[name]
            raise UserError(
                f"--known {assignment}: the model has not seen '{value}'.{did_you_mean(value, accepted)} "
                f"Accepted: {', '.join(accepted)}."
            )
    return {"numbers": [numbers], "categories": [categories]}


def explain(captioner: Captioner, group: Sequence[Listed], context: str | None, **search: Any) -> dict[str, Any]:
    """The page's record of one example, whose views are ``group``; of a file that cannot be read, its error."""
    from latentcap.data.batches.transforms import load_image
    from latentcap.pages.explain import caption_record

    views: list[Image.Image] = []
    for listed in group:
        try:
            if listed.error:
                raise OSError(listed.error)
            views.append(load_image(listed.image, captioner.image))
        except OSError as error:
            reason = error.strerror or str(error)
            print(f"cannot read {listed.name}: {reason}", file=sys.stderr)
            return {"file": listed.name, "error": reason}
    caption = captioner.caption([views], context, return_attention=True, **search)[0]
    name = ", ".join(listed.name for listed in group)
    return caption_record(captioner, caption, file=name, views=views, context=context)
