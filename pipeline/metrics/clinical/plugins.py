"""Clinical scores by neural labellers whose weights may not be passed on: they run where the user has them.

Each function returns (scores, None), or (None, the reason why it cannot run).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentcap.data.readers.medical.chexpert import Status
from latentcap.metrics.clinical.scores import Uncertain, status_agreement

# CheXbert's order of observations (Smit et al., EMNLP 2020); the last has two classes, the others four.
CHEXBERT = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding",
)  # fmt: skip
CLASSES = (Status.ABSENT, Status.POSITIVE, Status.NEGATIVE, Status.UNCERTAIN)
MAX_TOKENS = 512


class CheXbert(nn.Module):
    """A BERT with one linear layer for each observation on its first token, named as in the published weights."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        from transformers import BertModel

        self.bert = BertModel(config)
        sizes = [4] * (len(CHEXBERT) - 1) + [2]
        self.linear_heads = nn.ModuleList(nn.Linear(config.hidden_size, size) for size in sizes)

    def forward(self, tokens: Tensor, mask: Tensor) -> list[Tensor]:
        """Token ids and mask (B, L) to logits of each observation, (B, 4) and for the last (B, 2)."""
        first = self.bert(input_ids=tokens, attention_mask=mask).last_hidden_state[:, 0]
        return [head(first) for head in self.linear_heads]


def chexbert_agreement(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], folder: str | Path, *, uncertain: Uncertain
) -> tuple[dict[str, float] | None, str | None]:
    """Precision, recall and F1 as the rule-based labeller's, by CheXbert.

    ``folder`` holds ``chexbert.pth`` (read as tensors only), ``vocab.txt`` or ``tokenizer.json`` of its BERT, and
    ``config.json`` where that is not BERT-base.
    """
    folder = Path(folder)
    weights = folder / "chexbert.pth"
    if not weights.is_file():
        return None, f"{weights} does not exist: put CheXbert's published weights there"
    try:
        model, tokenizer = _load_chexbert(folder, weights)
    except Exception as error:
        return None, f"cannot be loaded from {folder}: {str(error).splitlines()[0]}"
    texts = [*hypotheses, *("\n".join(group) for group in references)]
    labels = _chexbert_labels(model, tokenizer, texts)
    count = len(hypotheses)
    return status_agreement(labels[:count], labels[count:], uncertain=uncertain).scores(), None


def _load_chexbert(folder: Path, weights: Path) -> tuple[CheXbert, Any]:
    from transformers import AutoTokenizer, BertConfig

    config = BertConfig.from_pretrained(folder) if (folder / "config.json").is_file() else BertConfig()
    state = torch.load(weights, map_location="cpu", weights_only=True)
    state = state.get("model_state_dict", state)
    model = CheXbert(config)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    state.pop("bert.embeddings.position_ids", None)
    model.load_state_dict(state)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def _chexbert_labels(model: CheXbert, tokenizer: Any, texts: Sequence[str]) -> list[dict[str, Status]]:
    found: list[dict[str, Status]] = []
    for start in range(0, len(texts), 16):
        batch = [" ".join(text.split()) for text in texts[start : start + 16]]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        classes = torch.stack([logits.argmax(1) for logits in model(tokens["input_ids"], tokens["attention_mask"])], 1)
        found += [{name: CLASSES[at] for name, at in zip(CHEXBERT, row, strict=True)} for row in classes.tolist()]
    return found


def radgraph_f1(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], folder: str | Path
) -> tuple[dict[str, float] | None, str | None]:
    """RadGraph F1 (Jain et al., 2021; Delbrouck et al., 2022) by the package ``radgraph`` and weights in ``folder``."""
    if importlib.util.find_spec("radgraph") is None:
        return None, "the package radgraph is not installed; pip install radgraph"
    if not Path(folder).is_dir():
        return None, f"{folder} does not exist: give the folder with RadGraph's weights"
    try:
        from radgraph import F1RadGraph

        scorer = F1RadGraph(reward_level="all", model_cache_dir=str(folder))
        reward, *_ = scorer(hyps=list(hypotheses), refs=["\n".join(group) for group in references])
    except Exception as error:
        return None, f"cannot run: {str(error).splitlines()[0]}"
    return dict(zip(("simple", "partial", "complete"), map(float, reward), strict=True)), None
