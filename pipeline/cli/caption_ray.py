"""Caption images on a Ray cluster: ``latentcap caption-ray photos/ --output captions/``"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from latentcap.batch.settings import WorkerSettings
from latentcap.batch.shards import Shard
from latentcap.cli.caption import caption
from latentcap.cli.caption_options import add_caption_options, add_model_options, positive
from latentcap.cli.search_options import search_settings
from latentcap.data.errors import UserError

if TYPE_CHECKING:
    from latentcap.batch.ray_engine import RayEngine

EPILOG = """It does what 'latentcap caption' does, with the same options and the same records, by Ray Data: a pool of
actors that each hold the model, on all nodes. Captions come as Parquet parts. Run again, it goes on where it stopped.

It needs 'latentcap[scale]' on all nodes, and the model folder and the images at the same paths on all of them, as on a
shared file system. Without --address, and outside of a cluster, Ray is started on this machine.

Exit code: 0 all images are captioned, 1 none could be, 2 a mistake in the command, 3 some could not be."""
LOCAL = "local"
OBJECT_STORE = 256 << 20  # bytes of shared memory: names and captions, and images only where they come in tables
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_LOG_TO_STDERR": "0"}
ALONE = {"RAY_worker_niceness": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # the second: listen on localhost only


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code. Raises UserError for a mistake in the command."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    options = parse(arguments)
    if find_spec("ray") is None:
        raise UserError(
            "caption-ray needs Ray: pip install 'latentcap[scale]'. On one machine, latentcap caption needs none."
        )
    with cluster(options.address or os.environ.get("RAY_ADDRESS") or LOCAL):
        return caption(options, Shard(), make_engine)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentcap caption-ray",
        description="Caption images on a Ray cluster.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_caption_options(parser, format="parts")
    parser.set_defaults(watch=False)
    group = parser.add_argument_group("cluster")
    add = group.add_argument
    add(
        "--address",
        metavar="HOST:PORT",
        help="of a running cluster that this machine is a node of, or auto (default: RAY_ADDRESS, else start Ray here)",
    )
    add(
        "--num-actors",
        type=positive,
        dest="devices",
        metavar="N",
        help="processes that each hold the model (default: as many as the nodes hold, more when nodes come)",
    )
    add(
        "--num-cpus",
        type=positive,
        dest="workers",
        metavar="N",
        help="cores of each actor, and threads in it that each take batches from file to caption (default: 1); an "
        "actor with a GPU has the threads only (default: 4)",
    )
    add_model_options(group)
    return parser.parse_args(arguments)


@contextmanager
def cluster(address: str, *, cpus: int | None = None) -> Iterator[None]:
    """Be connected to a cluster, or to one that is started on this machine, with all its cores or ``cpus``.

    What was started ends with the block, and with this process, however that ends. A connection that is there is used.
    """
    here = address == LOCAL
    if not here:
        check_address(address)
    for name, value in (QUIET | ALONE if here else QUIET).items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    size: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE, "num_cpus": cpus}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **(size if here else {}))
    except Exception as error:  # Ray raises many types, plain Exception too
        failed = "started here" if here else f"reached at --address {address}"
        hint = (
            ""
            if here
            else " If it asks for a token, say --address auto on one of its machines, or set RAY_AUTH_MODE=token."
        )
        raise UserError(f"Ray cannot be {failed} ({str(error).splitlines()[0]}).{hint}") from None
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raises UserError at once where nothing answers; Ray itself would wait for minutes."""
    if "://" in address:
        raise UserError(
            f"--address {address}: Ray Client does not carry Ray Data. Run this program on a node of the cluster with "
            "--address auto, or by `ray job submit`."
        )
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError, OverflowError) as error:
            raise UserError(
                f"--address {address}: cannot be reached ({error}). Give HOST:PORT, as `ray start --head` prints it."
            ) from None


def make_engine(options: argparse.Namespace, given: WorkerSettings) -> RayEngine:
    """The model on all nodes of the cluster."""
    from latentcap.batch.ray_engine import RayEngine

    engine = RayEngine(
        given, search_settings(options), actors=options.devices, cpus=options.workers, batch_size=options.batch_size
    )
    if not options.quiet:
        print(f"Ray: {engine.devices} actors on {engine.device}, as soon as the cluster has room", file=sys.stderr)
    return engine
