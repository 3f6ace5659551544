"""What is known besides the image, as tokens that text heads read: text, named numbers, named categories.

Dimension letters: B examples, L text tokens, F numbers, F' categories, M context positions, E embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentcap.config import ContextConfig
from latentcap.data.batches.context import ContextBatch, ContextFields
from latentcap.data.errors import UserError

START, NO_CONTEXT, GIVEN_CONTEXT = "(start)", "(no context)", "(context)"  # what tokens without a word are called


class ContextEncoder(nn.Module):
    """Context to (B, M, E): one token that says whether there is text, one per number and category, the text.

    A missing text, number or category is a learned token of its own, never a zero: the model can tell "unknown" from
    "average".
    """

    def __init__(
        self,
        config: ContextConfig,
        fields: ContextFields,
        *,
        vocab_size: int,
        embed_dim: int,
        load_weights: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.fields = config, fields
        self.text_state = nn.Parameter(torch.randn(2, embed_dim) * embed_dim**-0.5)  # missing, present
        if config.encoder == "embedding":
            self.embedding = nn.Embedding(vocab_size, embed_dim)
            nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)
        else:
            self.encoder = load_text_encoder(config.encoder, load_weights=load_weights)
            self.encoder.requires_grad_(config.trainable)
            self.adapt = nn.Linear(self.encoder.config.hidden_size, embed_dim)
        count = len(fields.numbers)
        self.number_name = nn.Parameter(torch.randn(count, embed_dim) * embed_dim**-0.5)
        self.number_value = nn.Parameter(torch.randn(count, embed_dim) * embed_dim**-0.5)
        self.number_missing = nn.Parameter(torch.randn(count, embed_dim) * embed_dim**-0.5)
        self.categories = nn.ModuleList(
            nn.Embedding(len(values) + 1, embed_dim) for values in fields.categories.values()
        )  # the last row of each is "missing"
        for table in self.categories:
            nn.init.normal_(table.weight, std=embed_dim**-0.5)  # type: ignore[arg-type]

    def forward(self, batch: ContextBatch) -> tuple[Tensor, Tensor]:
        """Returns context (B, M, E) with M = 1 + F + F' + L, and a mask (B, M) that is True where it may be read.

        The padded text is last, so that no token's place depends on the other examples of the batch.
        """
        present = batch.mask.any(1)
        pieces = [self.text_state[present.long()].unsqueeze(1)]
        if batch.numbers.shape[1]:
            known = ~batch.numbers.isnan()
            values = batch.numbers.nan_to_num(0.0).clamp(-5, 5).unsqueeze(-1) * self.number_value
            pieces.append(self.number_name + torch.where(known.unsqueeze(-1), values, self.number_missing))
        for index, table in enumerate(self.categories):
            column = batch.categories[:, index]
            missing = table.num_embeddings - 1  # type: ignore[operator]
            pieces.append(table(torch.where(column < 0, missing, column)).unsqueeze(1))
        always = batch.mask.new_ones(present.shape[0], sum(piece.shape[1] for piece in pieces))
        if batch.tokens.shape[1]:
            pieces.append(self._encode_text(batch))
        return torch.cat(pieces, 1), torch.cat((always, batch.mask), 1)

    def train(self, mode: bool = True) -> ContextEncoder:
        super().train(mode)
        if self.config.encoder != "embedding" and not self.config.trainable:
            self.encoder.eval()
        return self

    def _encode_text(self, batch: ContextBatch) -> Tensor:
        if self.config.encoder == "embedding":
            return self.embedding(batch.tokens)
        size = encoder_limit(self.encoder)
        windows = zip(batch.tokens.split(size, 1), batch.mask.split(size, 1), strict=True)
        return torch.cat([self._encode_window(tokens, mask) for tokens, mask in windows], 1)

    def _encode_window(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, l) tokens to (B, l, E). A text longer than the encoder's positions is read in windows, one by one."""
        mask = mask.clone()
        mask[:, 0] = True  # an encoder cannot read nothing; the position stays masked for the heads
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.trainable):
            hidden = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return self.adapt(hidden)


def encoder_limit(encoder: Any) -> int:
    """How many tokens an encoder reads at once: its positions, without those that RoBERTa's kind never uses."""
    limit = getattr(encoder.config, "max_position_embeddings", None) or 512
    padding = getattr(encoder.config, "pad_token_id", None) or 0
    offset = padding + 1 if encoder.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    return max(1, limit - offset)


def load_text_encoder(name: str, *, load_weights: bool) -> Any:
    """A transformers text encoder by hub name or local folder; only its architecture where weights follow later.

    Raises UserError where there is none. No code from the folder is ever run.
    """
    from transformers import AutoConfig, AutoModel

    try:
        if load_weights:
            return AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=None)
        return AutoModel.from_config(AutoConfig.from_pretrained(name, trust_remote_code=False), trust_remote_code=False)
    except Exception as error:
        raise UserError(
            f"context.encoder '{name}' cannot be loaded: {str(error).splitlines()[0]} It is 'embedding', 'none', or "
            "the name or local folder of a transformers text encoder."
        ) from error
