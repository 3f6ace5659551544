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
from typing import Any

from latentcap.batch.local_engine import LocalEngine
from latentcap.batch.settings import WorkerSettings
from latentcap.bench.batch import program
from latentcap.bench.captioning import pictures
from latentcap.bench.memory import kib
from latentcap.bench.timing import Section, Setting
from latentcap.captioner import Captioner
from latentcap.data.cores import available_cores
from latentcap.data.example import ImageRef

CLIENTS = (1, 8, 64)
REQUESTS = 2_000
DISTINCT = 128
LONE = 20  # requests and calls that latency alone is taken from


def bench(setting: Setting, *, folder: Path, images: Path | None, requests: int = REQUESTS) -> list[Section]:
    """Throughput, latency and memory of ``latentcap serve``, each client in a thread of its own."""
    count, requests = (8, 16) if setting.quick else (DISTINCT, requests)
    with pictures(images, count=count) as refs:
        bodies = [_body(ref) for ref in refs]
        with _server(folder, str(setting.device)) as (port, process):
            _ask(port, bodies[:1], 4)
            alone, in_process = _one_at_a_time(setting, folder, refs, port, bodies)
            section = Section("latentcap serve under load, POST /v1/chat/completions, the model's own search")
            for clients in CLIENTS:
                setting.say(f"serve: {clients} clients")
                before = processor_seconds(process)
                row = _load(port, bodies, clients, requests if clients > 1 else max(16, requests // 10))
                row["core ms"] = 1000 * (processor_seconds(process) - before) / row["requests"]
                row["MB"] = kib(process, "VmRSS") // 1024
                section.rows.append(row)
            peak = kib(process, "VmHWM") // 1024
        rate, core = _batch_rate(setting, folder, refs, total=requests)
    for row in section.rows:
        row["of batch captioning"] = row["images/s"] / rate
        row["of batch, by core ms"] = core / row["core ms"] if row["core ms"] else None
        row["p50 of in-process"] = alone / in_process if row["clients"] == 1 else None
    section.notes = [
        f"{folder.name}, {count} images again and again. Batch captioning of as many, after the server in the "
        f"same run: {rate:.1f} images/s, {core:.1f} ms of a core each; one image, JPEG to text, in turns: "
        f"{in_process:.0f} ms in process, {alone:.0f} ms of the server.",
        "The clients run on the same cores. Goals: no error, 0.8 of batch captioning's rate, 1.2 of the time "
        f"in process for a lone client. MB: what the server holds after a row; its peak was {peak}.",
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
        try:
            connection.request(
                "POST", "/v1/chat/completions", bodies[place % len(bodies)], {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            answer.read()
            errors += answer.status != 200
        except (OSError, http.client.HTTPException):  # the next request opens the connection again
            connection.close()
            errors += 1
        seconds.append(time.perf_counter() - start)
    connection.close()
    return seconds, errors


def processor_seconds(process: int) -> float:
    """What a running process has used of all cores; 0 where the system does not say."""
    try:
        told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def _load(port: int, bodies: Sequence[bytes], clients: int, requests: int) -> dict[str, Any]:
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
        "errors": sum(errors for _, errors in found),
        "images/s": len(times) / wall,
        "p50 ms": 1000 * statistics.median(times),
        "p99 ms": 1000 * times[min(len(times) - 1, int(0.99 * len(times)))],
    }


def _one_at_a_time(
    setting: Setting, folder: Path, refs: Sequence[ImageRef], port: int, bodies: Sequence[bytes]
) -> tuple[float, float]:
    """Median milliseconds from a JPEG file to text, one image at a time, in turns: of the server, and in process."""
    setting.say("serve: one image at a time")
    captioner = Captioner.from_pretrained(folder, device=str(setting.device))
    served, own = [], []
    for place in range(4 + (4 if setting.quick else LONE)):
        served.append(_ask(port, [bodies[place % len(bodies)]], 1)[0][0])
        start = time.perf_counter()
        captioner.caption([refs[place % len(refs)]])
        own.append(time.perf_counter() - start)
    return 1000 * statistics.median(served[4:]), 1000 * statistics.median(own[4:])


def _batch_rate(setting: Setting, folder: Path, refs: Sequence[ImageRef], *, total: int) -> tuple[float, float]:
    """``latentcap caption`` on as many images, the model loaded: images a second, ms of a core for each."""
    setting.say("serve: batch captioning")
    engine = LocalEngine(WorkerSettings(str(folder), device=str(setting.device)), {}, workers=available_cores())
    many = [refs[place % len(refs)] for place in range(total)]
    with TemporaryDirectory() as temporary:
        program(engine, many[:64], Path(temporary))()
        call = program(engine, many, Path(temporary))
        start, used = time.perf_counter(), time.process_time()
        call()
        return total / (time.perf_counter() - start), 1000 * (time.process_time() - used) / total
