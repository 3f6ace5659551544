"""One measurement of ``latentcap bench data``, in a process that has done nothing else: its numbers as JSON."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path

from latentcap.bench.memory import kib, own_kib


def read(table: Path, cache: Path) -> dict[str, float]:
    """Seconds of processor time and peak MB of reading a table."""
    from latentcap.data.readers import read_examples

    start = time.process_time()
    read_examples(table, cache_dir=cache)
    return {"seconds": time.process_time() - start, "peak": kib("self", "VmHWM") / 1024}


def start(table: Path, cache: Path) -> dict[str, float]:
    """Likewise from a table to the first batch, and the MB that a worker has for itself alone."""
    from latentcap.bench.data import WORKERS
    from latentcap.data.batches.context import ContextCollator
    from latentcap.data.batches.datamodule import CaptionData
    from latentcap.data.batches.image_config import ImageConfig
    from latentcap.data.batches.views import ViewSlots

    before, start = kib("self", "VmHWM") / 1024, time.process_time()
    data = CaptionData(str(table), cache_dir=str(cache), workers=WORKERS)
    data.setup("fit")
    tokenizer = data.build_tokenizer()
    data.prepare_datasets(
        tokenizer=tokenizer,
        context=ContextCollator(tokenizer=tokenizer, fields=data.context_fields(), max_tokens=8),
        image=ImageConfig(size=(32, 32)),
        slots=ViewSlots(),
        max_length=16,
        frozen=None,
    )
    batches = iter(data.train_dataloader())
    next(batches)
    seconds, workers = time.process_time() - start, multiprocessing.active_children()
    own = max(own_kib(worker.pid) for worker in workers if worker.pid) / 1024
    return {"seconds": seconds, "before": before, "peak": kib("self", "VmHWM") / 1024, "worker": own}


if __name__ == "__main__":
    measure = {"read": read, "start": start}[sys.argv[1]]
    print(json.dumps(measure(Path(sys.argv[2]), Path(sys.argv[3]))))
