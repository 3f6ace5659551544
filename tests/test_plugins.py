"""Neural labellers with the user's own weights: a CheXbert of random weights, and reasons where there are none."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig

from latentcap.metrics.clinical.plugins import CheXbert, chexbert_agreement, radgraph_f1

REPORTS, REFERENCES = ["no effusion", "heart"], [["no effusion"], ["heart"]]


def test_chexbert_runs_from_a_local_folder(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    torch.manual_seed(0)
    weights = {f"module.{name}": value for name, value in CheXbert(config).state_dict().items()}
    torch.save({"model_state_dict": weights}, tmp_path / "chexbert.pth")
    config.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "effusion", "heart"])
    )
    scores, reason = chexbert_agreement(REPORTS, REFERENCES, tmp_path, uncertain="positive")
    assert reason is None
    assert scores is not None
    assert scores["F1 micro"] == 1  # each report against itself
    torch.save({"other": torch.zeros(1)}, tmp_path / "chexbert.pth")
    scores, reason = chexbert_agreement(REPORTS, REFERENCES, tmp_path, uncertain="positive")
    assert scores is None
    assert reason
    assert "cannot be loaded" in reason


def test_what_is_not_there_is_null_with_a_reason(tmp_path: Path) -> None:
    scores, reason = chexbert_agreement(REPORTS, REFERENCES, tmp_path, uncertain="positive")
    assert scores is None
    assert reason
    assert "put CheXbert's published weights there" in reason
    scores, reason = radgraph_f1(REPORTS, REFERENCES, tmp_path / "none")
    assert scores is None
    assert reason
