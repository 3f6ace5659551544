"""Caption images: ``python scripts/caption.py photos/ --model models/rsicd --output captions.jsonl``

One line of JSON for every image, written as soon as it is known. Run again, it goes on where it was stopped. Images
that cannot be read never stop it: they are listed in ``captions.errors.jsonl``.

Exit code: 0 all images are captioned, 1 none could be, 2 a mistake in the command, 3 some could not be read.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import UnidentifiedImageError
from torch import Tensor

from data.errors import UserError
from data.jsonl import open_jsonl, read_jsonl, resume_jsonl, write_jsonl
from data.listing import Listed, list_images
from data.transforms import ImageConfig, load_image
from pipeline.captioner import Caption, Captioner
from pipeline.gallery import write_gallery
from pipeline.generation import SearchConfig
from pipeline.progress import Progress
from scripts.cli import run

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHOWN_FAILURES = 5
THUMBNAIL = ImageConfig(size=(160, 160))  # that size is enough to decode

Failures = list[tuple[Listed, str]]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Caption images, one line of JSON for each.",
        epilog="Exit code: 0 all images are captioned, 1 none could be, 2 wrong command, 3 some could not be.",
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="image files, folders (with all below them), tars, patterns")
    add("--model", required=True, metavar="FOLDER", help="model folder, such as runs/demo/model")
    add("--output", required=True, type=Path, metavar="FILE", help="JSON Lines file; images in it already are skipped")
    add("--overwrite", action="store_true", help="start the output anew")
    add("--gallery", type=Path, metavar="HTML", help="also write a page that shows images and captions")
    add("--batch-size", type=positive, default=32, metavar="N", help="images at once (default: %(default)s)")
    add(
        "--workers",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="threads that each take batches from file to caption (default: one for each core, %(default)s)",
    )
    add("--device", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")
    add("--dtype", choices=DTYPES, help="what the CNN computes in (default: the fastest that the device multiplies)")
    add("--quiet", action="store_true", help="no progress and no summary; failures are reported all the same")
    context = parser.add_mutually_exclusive_group()
    context.add_argument("--context", metavar="TEXT", help="what is known besides the image, for all images")
    context.add_argument(
        "--contexts",
        type=Path,
        metavar="FILE",
        help='JSON Lines of {"file": ..., "context": ...}, named as in the output',
    )
    search = parser.add_argument_group("search", "by default as the model folder says")
    search.add_argument("--beam-size", type=int, metavar="N", help="captions searched side by side; 1 is greedy")
    search.add_argument("--length-penalty", type=float, metavar="P", help="above 0 favours longer captions")
    search.add_argument("--max-length", type=int, metavar="N", help="longest caption in words (tokens)")
    search.add_argument("--min-length", type=int, metavar="N", help="shortest caption in words (tokens)")
    search.add_argument("--num-captions", type=int, metavar="N", help="best captions of each, up to the beam size")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be a whole number, 1 or more")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    options = parse(arguments)
    images = list_images(options.images)
    contexts = choose_contexts(options, images)
    if options.gallery and options.gallery.is_dir():
        raise UserError(f"--gallery {options.gallery}: a folder, where the name of an HTML file is needed.")
    if options.overwrite and options.output.is_file():
        options.output.unlink()
    done = {line.get("file") for line in resume_jsonl(options.output)}
    left = [image for image in images if image.name not in done]
    resumed = len(images) - len(left)
    if resumed and not options.quiet:
        print(f"resuming: {resumed:,} already in {options.output} (--overwrite starts anew)", file=sys.stderr)

    failures: Failures = []
    captioned = 0
    if left:
        captioned = caption_all(left, contexts, options, failures)
    else:
        report_failures(options.output, failures)
    if options.gallery:
        try:
            write_gallery(options.gallery, cards(images, options.output, failures), title="Captions")
        except OSError as error:
            raise UserError(f"--gallery {options.gallery}: cannot be written ({error.strerror}).") from None
        if not options.quiet:
            print(f"gallery: {options.gallery}", file=sys.stderr)
    return 0 if not failures else 3 if captioned or resumed else 1


def caption_all(
    images: Sequence[Listed], contexts: Mapping[str, str], options: argparse.Namespace, failures: Failures
) -> int:
    """Caption images into the output, batch by batch, and report. Returns how many; the others are in ``failures``."""
    captioner, config = load(options, reads_context=bool(contexts))
    captioned, start = 0, time.monotonic()
    with open_jsonl(options.output, "a") as file:
        try:
            with nullcontext() if options.quiet else Progress("captions", unit="img") as progress:
                for done, failed in caption_ahead(
                    images, contexts, captioner, config, size=options.batch_size, workers=options.workers
                ):
                    write_jsonl(file, (to_line(image, one, contexts.get(image.name)) for image, one in done))
                    captioned += len(done)
                    failures += failed
                    if progress:
                        progress.update(captioned + len(failures), len(images))
        finally:  # an interrupted run says too what it has done
            seconds = time.monotonic() - start
            report_failures(options.output, failures)
            if not options.quiet:
                print(
                    f"{captioned:,} captioned, {len(failures):,} failed, "
                    f"{captioned / max(seconds, 1e-6):.1f} images/s: {options.output}",
                    file=sys.stderr,
                )
    return captioned


# What goes in ---------------------------------------------------------------------------------------------------------


def load(options: argparse.Namespace, *, reads_context: bool) -> tuple[Captioner, SearchConfig]:
    """The captioner and how it is to search. Raises UserError for a setting that it cannot follow."""
    try:
        device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {options.device} cannot be used ({reason}). cpu always can.") from None
    captioner = Captioner.from_pretrained(options.model, device=device, dtype=DTYPES.get(options.dtype))
    names = ("beam_size", "length_penalty", "max_length", "min_length", "num_captions")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if reads_context:
        captioner.collate_context(["any text"])  # an error now is better than after the first images are decoded
    return captioner, captioner.search_config(**given)


def choose_contexts(options: argparse.Namespace, images: Sequence[Listed]) -> Mapping[str, str]:
    """The context of every image that has one, by the image's name."""
    if options.context is not None:
        return {image.name: options.context for image in images}
    if options.contexts is None:
        return {}
    known: dict[str, str] = {}
    for number, line in enumerate(read_jsonl(options.contexts), start=1):
        file, context = line.get("file"), line.get("context")
        if not isinstance(file, str) or not (context is None or isinstance(context, str)):
            raise UserError(f'{options.contexts}, line {number}: {{"file": "...", "context": "..."}} is needed.')
        if context:
            known[file] = context
    names = {image.name for image in images}
    if known and not names & known.keys():
        raise UserError(
            f"{options.contexts}: none of its files is among the images. It names '{next(iter(known))}', ...; the "
            f"images are called '{images[0].name}', ..., as in the output."
        )
    return {name: context for name, context in known.items() if name in names}


def caption_ahead(
    images: Sequence[Listed],
    contexts: Mapping[str, str],
    captioner: Captioner,
    config: SearchConfig,
    *,
    size: int,
    workers: int,
) -> Iterator[tuple[list[tuple[Listed, Caption]], Failures]]:
    """Batches of ``size`` images in order: those that could be read, with captions, and the others, with reasons.

    Every thread takes whole batches from file to words. On a CPU each computes alone, for threads that share every
    layer wait for one another at each; on a GPU one computes while the others decode. When interrupted,
    batches under way are finished first.
    """

    def work(batch: Sequence[Listed]) -> tuple[list[tuple[Listed, Caption]], Failures]:
        readable: list[Listed] = []
        tensors: list[Tensor] = []
        failures: Failures = []
        for image in batch:
            try:
                tensors.append(captioner.transform(load_image(image.image, captioner.image)))
                readable.append(image)
            except UnidentifiedImageError:
                failures.append((image, "not an image, or of a kind that Pillow does not read"))
            except OSError as error:
                failures.append((image, error.strerror or str(error)))
        if not readable:
            return [], failures
        context = captioner.collate_context([contexts.get(image.name) for image in readable])
        captions = captioner.caption_tensors([[tensor] for tensor in tensors], context, config)
        return list(zip(readable, captions, strict=True)), failures

    size = min(size, math.ceil(len(images) / workers))  # a few images are shared out, too
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(1, threads // workers),))
    try:
        jobs = (pool.submit(work, images[at : at + size]) for at in range(0, len(images), size))
        waiting: deque[Future[tuple[list[tuple[Listed, Caption]], Failures]]] = deque(islice(jobs, workers + 1))
        while waiting:
            result = waiting[0].result()
            waiting.popleft()
            waiting.extend(islice(jobs, 1))
            yield result
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True)
        yield from (job.result() for job in waiting if not (job.cancelled() or job.exception()))
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


# What comes out -------------------------------------------------------------------------------------------------------


def to_line(image: Listed, caption: Caption, context: str | None) -> dict[str, Any]:
    """One line of the output."""
    line: dict[str, Any] = {"file": image.name, "caption": caption.text, "score": round(caption.score, 4)}
    if caption.alternatives:
        line["alternatives"] = [{"caption": one.text, "score": round(one.score, 4)} for one in caption.alternatives]
    return line | ({"context": context} if context else {})


def report_failures(output: Path, failures: Failures) -> None:
    """Name the first few and write all of them beside the output; what an earlier run left there is out of date."""
    path = output.with_suffix(".errors.jsonl")
    if not failures:
        path.unlink(missing_ok=True)
        return
    for image, reason in failures[:SHOWN_FAILURES]:
        print(f"cannot read {image.name}: {reason}", file=sys.stderr)
    if len(failures) > SHOWN_FAILURES:
        print(f"... and {len(failures) - SHOWN_FAILURES:,} more", file=sys.stderr)
    with open_jsonl(path, "w") as file:
        write_jsonl(file, ({"file": image.name, "error": reason} for image, reason in failures))
    print(f"listed in {path}", file=sys.stderr)


def cards(images: Sequence[Listed], output: Path, failures: Failures) -> Iterator[dict[str, Any]]:
    """What the gallery shows of each image: its line of the output, or why there is none."""
    lines = {line.get("file"): line for line in read_jsonl(output)}
    reasons = {image.name: reason for image, reason in failures}
    for image in images:
        if image.name in lines:
            yield lines[image.name] | {"image": load_image(image.image, THUMBNAIL)}
        elif image.name in reasons:
            yield {"file": image.name, "caption": "", "error": reasons[image.name]}


if __name__ == "__main__":
    run(main)
