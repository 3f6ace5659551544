"""What the references of a split cost a model beside their own images and contexts, and beside another patient's."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from latentcap.captioner import Captioner
from latentcap.data.batches.caption_tokens import caption_tokens
from latentcap.data.batches.sources import CachedRegions
from latentcap.data.example import Example
from latentcap.evaluation.baselines import ablations
from latentcap.evaluation.scored import patient_of
from latentcap.training.losses import next_word_loss


def worth_of_parts(
    captioner: Captioner, regions: CachedRegions, examples: Sequence[Example], seed: int, *, context: bool
) -> dict[str, float]:
    """``{"image": ..., "context": ...}``: nats a word more for the references beside another patient's.

    ``regions`` hold every image of the examples; ``seed`` chooses the other patients. Empty where all are of one.
    """
    if len(set(map(patient_of, examples))) < 2:
        return {}
    changed = ablations(examples, seed)
    names = {"image": "shuffled images", **({"context": "another's context"} if context else {})}
    own = reference_loss(captioner, regions, examples)
    return {part: reference_loss(captioner, regions, changed[name]()) - own for part, name in names.items()}


@torch.inference_mode()
def reference_loss(
    captioner: Captioner, regions: CachedRegions, examples: Sequence[Example], *, batch_size: int = 64
) -> float:
    """What a model pays for the references of examples, teacher-forced: mean nats a word over all words.

    ``regions`` hold every image of the examples. References are cut at the model's longest caption.
    """
    model, device = captioner.model, captioner.device
    total, count = 0.0, 0
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        tokens = caption_tokens(captioner.tokenizer, batch, model.config.decoder.max_length).to(device)
        words = int((tokens[..., 1:] != 0).sum())
        if not words:
            continue
        _, tensors = regions.load(batch, [0] * len(batch))
        memory = model.encode(
            regions=tensors["regions"].to(device),
            view_mask=tensors["view_mask"].to(device),
            context=captioner.collate_context.examples(batch).to(device),
        )
        loss, _ = next_word_loss(model.decoder, tokens[..., :-1], tokens[..., 1:], memory)
        total, count = total + float(loss) * words, count + words
    return total / max(count, 1)
