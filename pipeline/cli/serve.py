"""Captions over HTTP:  latentcap serve

OpenAI's API at /v1, our own at /caption, a page at /. It binds 127.0.0.1 unless told, and never fetches anything.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentcap.cli.caption_options import DTYPES
from latentcap.config import ENGINES
from latentcap.data.errors import UserError
from latentcap.in_the_box import DEFAULT_MODEL, find_model, model_names

if TYPE_CHECKING:
    from latentcap.serve.limits import Limits

KEY_VARIABLE = "LATENTCAP_API_KEY"
EPILOG = """POST /v1/chat/completions and /v1/responses as OpenAI's clients send them, /api/generate as Ollama's,
/api/v1/generate as KoboldAI's; POST /caption with all settings; GET /v1/models, /healthz, /metrics, and a page at /."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="latentcap serve", description="Caption images over HTTP.", epilog=EPILOG)
    add = parser.add_argument
    add(
        "--model", action="append", metavar="[NAME=]FOLDER",
        help=f"model folder, or the name of one in the box ({', '.join(model_names())}); several times for several "
        f"models, of which the first is the default (default: {DEFAULT_MODEL})",
    )  # fmt: skip
    add("--host", default="127.0.0.1", help="address to bind; 0.0.0.0 for all of this machine's (default: %(default)s)")
    add("--port", type=int, default=8765, help="(default: %(default)s)")
    add("--api-key", metavar="KEY", help=f"what clients must send as Bearer KEY (default: ${KEY_VARIABLE}, or none)")
    add("--cors", action="append", default=[], metavar="ORIGIN", help="a web page that browsers may let in")
    machine = parser.add_argument_group("machine").add_argument
    machine("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: %(default)s)")
    machine("--engine", choices=ENGINES, help="what runs the CNN (default: the fastest that is installed)")
    machine("--dtype", choices=DTYPES, help="what the CNN computes in (default: the fastest that the device has)")
    machine("--batch-size", type=int, default=32, metavar="N", help="most requests of a batch (default: %(default)s)")
    machine("--workers", type=int, metavar="N", help="batches at once (default: one a core, 4 at most)")
    limit = parser.add_argument_group("limits").add_argument
    limit("--max-body", type=int, default=32, metavar="MIB", help="of a request (default: %(default)s)")
    limit("--max-pixels", type=int, default=100, metavar="MEGAPIXELS", help="of an image (default: %(default)s)")
    limit("--max-images", type=int, default=64, metavar="N", help="of a request (default: %(default)s)")
    limit("--timeout", type=float, default=60.0, metavar="SECONDS", help="of a request (default: %(default)s)")
    limit("--queue", type=int, default=256, metavar="N", help="requests that may wait (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("batch_size", "workers", "max_body", "max_pixels", "max_images", "timeout", "queue"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name.replace('_', '-')} {value}: give more than 0.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command, such as a port in use."""
    options = parse(arguments)
    models = named_models(options.model or [DEFAULT_MODEL])
    listener = bind(options.host, options.port)
    try:
        import uvicorn

        from latentcap.serve.app import make_app
        from latentcap.serve.service import Service
    except ImportError as error:
        raise UserError(
            f"serving needs the extra 'serve': pip install 'latentcap[serve]' ({error.name} is missing)."
        ) from None
    limits = limits_of(options)
    service = Service(
        models, limits=limits, batch_size=options.batch_size, workers=options.workers, device=options.device,
        dtype=options.dtype,
        engine=options.engine,
        ending=lambda: server.should_exit,
    )  # fmt: skip
    key = options.api_key or os.environ.get(KEY_VARIABLE) or None
    app = make_app(service, api_key=key, origins=options.cors)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=int(limits.seconds) + 1
    )
    server = uvicorn.Server(config)
    port = listener.getsockname()[1]
    shown = f"[{options.host}]" if ":" in options.host else options.host
    print(f"serving {', '.join(models)} at http://{shown}:{port}/ (Ctrl-C ends it)", flush=True)
    server.run(sockets=[listener])
    return 0


def named_models(given: Sequence[str]) -> dict[str, Path]:
    """``NAME=FOLDER`` or ``FOLDER`` to folders by name. Raises UserError for two of one name."""
    models: dict[str, Path] = {}
    for entry in given:
        name, equals, folder = entry.partition("=")
        path = find_model(folder if equals else entry)
        name = name if equals else path.resolve().name
        if name in models:
            raise UserError(f"--model {entry}: there are two models called '{name}'. Name them: --model NAME=FOLDER.")
        models[name] = path
    return models


def limits_of(options: argparse.Namespace) -> Limits:
    from latentcap.serve.limits import Limits

    return Limits(
        body=options.max_body << 20,
        pixels=options.max_pixels * 1_000_000,
        images=options.max_images,
        seconds=options.timeout,
        waiting=options.queue,
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError, in one sentence, where the address cannot be had."""
    listener = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # Asyncio sends at once (TCP_NODELAY) only where a socket says that it is of TCP.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        if listener is not None:
            listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"port {port} of {host} cannot be used ({reason}). Choose another with --port.") from None
    return listener
