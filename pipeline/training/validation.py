"""Free-running captions of a split, collected over batches and processes, as records that are written to a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from latentcap.data.example import Example


def caption_records(
    index: Sequence[int],
    examples: Sequence[Example],
    captions: Sequence[tuple[str, float]],
) -> list[dict[str, Any]]:
    """What is told of each example of a batch: its place in the split, and its caption with the score.

    ``captions`` are empty where there are none.
    """
    records: list[dict[str, Any]] = [
        {"index": place, "id": example.id, "file": example.images[0].name or example.images[0].path}
        for place, example in zip(index, examples, strict=True)
    ]
    for record, (text, score) in zip(records, captions, strict=False):
        record |= {"caption": text, "score": round(score, 4)}
    return records


def of_all_processes(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of a split in the order of its examples, whoever wrote them."""
    shares: list[Any] = [records]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shares = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, records)
    return sorted((record for share in shares for record in share), key=lambda record: record["index"])


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
