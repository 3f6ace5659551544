"""The server under load: requests a second with 1, 8 and 64 clients, beside batch captioning in the same run."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from latentcap.batch.local_engine import LocalEngine
from latentcap.batch.settings import WorkerSettings
from latentcap.bench.batch import peak_kib, program
from latentcap.bench.captioning import pictures
from latentcap.bench.timing import Section, Setting
from latentcap.captioner import Captioner
from latentcap.data.example import ImageRef

CLIENTS = (1, 8, 64)
REQUESTS = 2_000
DISTINCT = 128
LONE = 40  # requests and calls that latency alone is taken from


def bench(setting: Setting, *, folder: Path, images: Path | None) -> list[Section]:
    """Throughput and latency of ``latentcap serve``, each client in a thread of its own."""
    count = 8 if setting.quick else DISTINCT
    with pictures(images, count=count) as refs:
        bodies = [_body(ref) for ref in refs]
        in_process = _in_process(setting, folder, refs)
        with _server(folder, str(setting.device)) as (port, process):
            _ask(port, bodies[:1], 4)
            section = Section("latentcap serve under load, POST /v1/chat/completions, the model's own search")
            for clients in CLIENTS:
                setting.say(f"serve: {clients} clients")
                requests = 16 if setting.quick else REQUESTS if clients > 1 else REQUESTS // 10
                section.rows.append(_load(port, bodies, clients, requests))
            peak = peak_kib(process) // 1024
        rate = _batch_rate(setting, folder, refs, total=16 if setting.quick else REQUESTS)
    for row in section.rows:
        row["of batch captioning"] = row["images/s"] / rate
        row["p50 of in-process"] = row["p50 ms"] / in_process if row["clients"] == 1 else None
    section.notes = [
        f"{folder.name}, {count} images again and again. Batch captioning of as many, after the server in the "
        f"same run: {rate:.1f} images/s; one image in process, JPEG to text: {in_process:.0f} ms. "
        "The clients run on the same cores. Goals: no error, 0.8 of batch captioning's rate, 1.2 of the in-process "
        f"time for a lone client. The server's peak memory: {peak} MB.",
    ]
    return [section]


def _body(ref: ImageRef) -> bytes:
    uri = "data:image/jpeg;base64," + base64.b64encode(ref.read_bytes()).decode()
    part = {"type": "image_url", "image_url": {"url": uri}}
    return json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode()


@contextmanager
def _server(folder: Path, device: str) -> Iterator[tuple[int, int]]:
    """A server in a process of its own. Yields its port and the number of the process."""
    command = [sys.executable, "-m", "latentcap.cli.main", "serve", "--model", str(folder), "--port", "0"]
    process = subprocess.Popen([*command, "--device", device, "--queue", "512"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r":(\d+)/", process.stdout.readline())
        if found is None:
            raise RuntimeError("the server did not start")
        yield int(found[1]), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def _ask(port: int, bodies: Sequence[bytes], requests: int) -> tuple[list[float], int]:
    """Seconds of each answer, and how many were errors, of one client with a connection that stays."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    seconds, errors = [], 0
    for place in range(requests):
        start = time.perf_counter()
        connection.request(
            "POST", "/v1/chat/completions", bodies[place % len(bodies)], {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        answer.read()
        errors += answer.status != 200
        seconds.append(time.perf_counter() - start)
    connection.close()
    return seconds, errors


def _load(port: int, bodies: Sequence[bytes], clients: int, requests: int) -> dict[str, float | int | None]:
    found: list[tuple[list[float], int]] = []
    share = [requests // clients + (place < requests % clients) for place in range(clients)]

    def client(place: int) -> None:
        own = [*bodies[place % len(bodies) :], *bodies[: place % len(bodies)]]
        found.append(_ask(port, own, share[place]))

    threads = [threading.Thread(target=client, args=(place,)) for place in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    times = sorted(second for seconds, _ in found for second in seconds)
    return {
        "clients": clients,
        "requests": len(times),
        "errors": sum(errors for _, errors in found) + requests - len(times),
        "images/s": len(times) / wall,
        "p50 ms": 1000 * statistics.median(times),
        "p99 ms": 1000 * times[min(len(times) - 1, int(0.99 * len(times)))],
    }


def _in_process(setting: Setting, folder: Path, refs: Sequence[ImageRef]) -> float:
    """Milliseconds from a JPEG file to text, one image at a time."""
    setting.say("serve: one image at a time in process")
    captioner = Captioner.from_pretrained(folder, device=str(setting.device))
    times = []
    for place in range(4 + (4 if setting.quick else LONE)):
        start = time.perf_counter()
        captioner.caption([refs[place % len(refs)]])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[4:])


def _batch_rate(setting: Setting, folder: Path, refs: Sequence[ImageRef], *, total: int) -> float:
    """Images a second of ``latentcap caption`` on as many images, the model loaded."""
    setting.say("serve: batch captioning")
    engine = LocalEngine(WorkerSettings(str(folder), device=str(setting.device)), {}, workers=os.cpu_count() or 1)
    many = [refs[place % len(refs)] for place in range(total)]
    with TemporaryDirectory() as temporary:
        program(engine, many[:64], Path(temporary))()
        call = program(engine, many, Path(temporary))
        start = time.perf_counter()
        call()
        return total / (time.perf_counter() - start)
