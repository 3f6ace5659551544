"""Attention of a caption as tensors in the shape that BertViz and transformers' encoder-decoder models use.

Dimension letters: see ``latent_attention.py``; N regions, M context positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentcap.captioner import Caption, Captioner
from latentcap.model.context import GIVEN_CONTEXT, NO_CONTEXT, START

END = "(end)"
PADDING = "(padding)"


def context_names(captioner: Captioner, context: str | None = None, size: int | None = None) -> list[str]:
    """What the M context positions hold: whether there is a text, numbers, categories, the text's tokens.

    Args:
        context: the text that was given with the image.
        size: M, where the image was captioned in a batch with longer contexts, whose padding is then named too.
    """
    if captioner.model.context is None:
        return []
    collate = captioner.collate_context
    ids = collate([context]).tokens[0].tolist()
    if captioner.context_tokenizer is None:
        words = [token.strip() for token in captioner.tokenizer.tokens(ids)]
    else:
        words = [captioner.context_tokenizer.id_to_token(index) for index in ids]
    fields = [*collate.fields.numbers, *collate.fields.categories]
    padding = 0 if size is None else size - 1 - len(words) - len(fields)
    return [GIVEN_CONTEXT if words else NO_CONTEXT, *fields, *words, *[PADDING] * padding]


def written_words(caption: Caption) -> list[str]:
    """What each step wrote: the tokens, and the end where the caption ended by itself."""
    ended = len(caption.token_scores) > len(caption.tokens)
    return [token.strip() for token in caption.tokens] + [END] * ended


def text_tensor(caption: Caption) -> Tensor:
    """Text heads as one tensor (T, H_t, M + T), 0 on words that a step had not yet written; (T, 0, T) without any."""
    rows = caption.text_attention
    if not rows:
        return torch.zeros(len(caption.token_scores), 0, len(caption.token_scores))
    whole = rows[0].new_zeros(len(rows), rows[0].shape[0], rows[-1].shape[-1])
    for step, row in enumerate(rows):
        whole[step, :, : row.shape[-1]] = row
    return whole


def bertviz_arguments(captioner: Captioner, caption: Caption, context: str | None = None) -> dict[str, Any]:
    """The arguments of BertViz's ``head_view`` and ``model_view``, for one caption.

    >>> caption = captioner.caption(["scene.jpg"], "what is on the left?", return_attention=True)[0]
    >>> bertviz.head_view(**bertviz_arguments(captioner, caption, "what is on the left?"))

    The encoder's tokens are the N regions, named ``row.column`` (``view:row.column`` where there are several views),
    and the M context positions; the decoder's are the words read, from the start on: step t, which writes word t + 1,
    is the row of the word t that it has just read. Head h is the same head in both lists: visual heads first, which
    read regions alone and are 0 elsewhere, then text heads, whose row in ``cross_attention`` (context) and
    ``decoder_attention`` (words) together sum to 1.

    Args:
        caption: of ``Captioner.caption(..., return_attention=True)``.
        context: the text that was given with the image.

    Returns:
        ``cross_attention``: a list of one layer, (1, H, T, N + M). ``decoder_attention``: a list of one layer,
        (1, H, T, T). ``encoder_tokens``: N + M names. ``decoder_tokens``: T names.
        transformers calls the first two ``cross_attentions`` and ``decoder_attentions``.

    Raises:
        ValueError: for a caption without attention.
    """
    if caption.visual_attention is None and caption.text_attention is None:
        raise ValueError("the caption has no attention: caption with return_attention=True.")
    text = text_tensor(caption)  # (T, H_t, M + T)
    steps = len(text)
    size = text.shape[-1] - steps
    visual = caption.visual_attention
    if visual is None:
        visual = text.new_zeros(steps, 0, 1, 0, 0)
    regions, visual_heads = _region_names(visual), visual.shape[1]
    names = context_names(captioner, context, size) if size else []
    kept = [place for place, name in enumerate(names) if name != PADDING]
    heads = visual_heads + text.shape[1]
    cross = text.new_zeros(1, heads, steps, len(regions) + len(kept))
    cross[0, :visual_heads, :, : len(regions)] = visual.flatten(2).transpose(0, 1)
    cross[0, visual_heads:, :, len(regions) :] = text[..., kept].transpose(0, 1)
    decoder = text.new_zeros(1, heads, steps, steps)
    decoder[0, visual_heads:] = text[..., size:].transpose(0, 1)
    return {
        "cross_attention": [cross],
        "decoder_attention": [decoder],
        "encoder_tokens": regions + [names[place] for place in kept],
        "decoder_tokens": [START, *written_words(caption)][:steps],
    }


def _region_names(visual: Tensor) -> list[str]:
    """Names of the cells of attention (T, H_v, V, h, w), counted from 1."""
    views, height, width = visual.shape[2:]
    return [
        f"{view + 1}:{row + 1}.{column + 1}" if views > 1 else f"{row + 1}.{column + 1}"
        for view in range(views)
        for row in range(height)
        for column in range(width)
    ]
