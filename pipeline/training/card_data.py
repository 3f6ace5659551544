"""What stands at the head of a model card: the front matter that the hub and its tools read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr-D")


def front_matter(*, backbone: str, datasets: Sequence[str], scores: Mapping[str, float], medical: bool = False) -> str:
    """YAML between dashes: license, tags, library, task, data sets, base model and the scores of validation.

    Args:
        backbone: the timm model that training began from.
        datasets: names of the data, of files and folders alone.
        scores: by name, with or without ``val/``.
    """
    measured = {name.removeprefix("val/"): value for name, value in scores.items()}
    shown = [name for name in METRICS if name in measured]
    name = ", ".join(datasets) or "own images"
    head: dict[str, object] = {
        "license": "other",
        "license_name": "terms-of-the-data",
        "library_name": "latentcap",
        "pipeline_tag": "image-to-text",
        "tags": ["image-captioning", "multi-head-latent-attention", *(["medical"] if medical else [])],
        "base_model": f"timm/{backbone}",
        "metrics": [metric.lower() for metric in shown],
    }
    if shown:
        result = {
            "task": {"type": "image-to-text", "name": "Image captioning"},
            "dataset": {"type": "custom", "name": name, "split": "validation"},
            "metrics": [
                {"type": metric.lower(), "name": metric, "value": round(measured[metric], 4)} for metric in shown
            ],
        }
        head["model-index"] = [{"name": "latentcap", "results": [result]}]
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n"
