"""Everything that a text head can read, as one list of strings: caption words, context words, context fields.

Dimension letters: see ``latent_attention.py``; L context tokens, M context positions, T words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentcap.data.batches.context import ContextBatch, ContextFields
from latentcap.data.batches.tokenizer import SPECIAL_TOKENS, CaptionTokenizer
from latentcap.data.words import STOP_WORDS
from latentcap.heads.statistics import CONTENT, PUNCTUATION, SPECIAL, STOP
from latentcap.model.context import GIVEN_CONTEXT, NO_CONTEXT, START


class Lexicon:
    """Names and kinds of all entries, and the entries of a batch's positions.

    Args:
        tokenizer: of captions.
        context_tokenizer: of the context where it has one of its own, a ``tokenizers.Tokenizer``.
        fields: named numbers and categories of the context; None for a model that reads no context.
    """

    def __init__(
        self, tokenizer: CaptionTokenizer, *, context_tokenizer: Any = None, fields: ContextFields | None = None
    ) -> None:
        self.tokenizer, self.fields = tokenizer, fields
        self.names = [token.strip() for token in tokenizer.tokens(range(len(tokenizer)))]
        self.names[tokenizer.bos_id] = START
        self.context_start = 0
        if context_tokenizer is not None:
            self.context_start = len(self.names)
            size = context_tokenizer.get_vocab_size()
            self.names += [context_tokenizer.id_to_token(index) or "" for index in range(size)]
        self.state_start = len(self.names)
        self.names += [NO_CONTEXT, GIVEN_CONTEXT]
        if fields is not None:
            self.names += [*fields.numbers, *fields.categories]
        special = range(self.state_start, len(self.names))
        self.kinds = torch.tensor([SPECIAL if i in special else word_kind(name) for i, name in enumerate(self.names)])

    def __len__(self) -> int:
        return len(self.names)

    def context_entries(self, context: ContextBatch) -> Tensor:
        """What each context position holds, (B, M): state, fields, text, as ``ContextEncoder`` lays them out; (B, 0)
        without one."""
        batch = len(context.tokens)
        if self.fields is None:
            return context.tokens.new_zeros(batch, 0)
        state = self.state_start + context.mask.any(1, keepdim=True).long()
        count = len(self.names) - self.state_start - 2
        fields = torch.arange(count, device=state.device) + self.state_start + 2
        return torch.cat((state, fields.expand(batch, -1), context.tokens + self.context_start), 1)

    def entries(self, context: ContextBatch, words: Tensor) -> Tensor:
        """What each position of the text heads holds: words read (B, G, T) to (B, G, M + T)."""
        known = self.context_entries(context)
        return torch.cat((known.unsqueeze(1).expand(-1, words.shape[1], -1), words), -1)


def word_kind(name: str) -> int:
    """CONTENT, STOP, PUNCTUATION or SPECIAL for a word or a tokenizer's piece of one."""
    if name in (*SPECIAL_TOKENS, START) or (len(name) > 2 and name[0] + name[-1] in ("[]", "<>")):
        return SPECIAL
    word = name.strip("#Ġ▁ ").lower().replace("’", "'")
    if word in STOP_WORDS:
        return STOP
    return CONTENT if any(character.isalnum() for character in word) else PUNCTUATION
