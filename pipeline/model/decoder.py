"""The decoder: query LSTM, fusion, language LSTM; teacher forcing without a loop over time, and one equal step.

Dimension letters: see ``latent_attention.py``; E embedding size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from latentcap.model.dropout import Dropout
from latentcap.model.fusion import Attention, Fusion, Memory

LSTMState = tuple[Tensor, Tensor]  # hidden and cell, each (1, B * G, Z)


@dataclass
class DecoderState:
    """What a step carries to the next: both LSTMs' states and the latents of the words written, (B, G, W, D)."""

    query: LSTMState | None
    language: LSTMState | None
    words: Tensor

    def reorder(self, parents: Tensor) -> Self:
        """Beam g continues beam ``parents[b, g]``, (B, G'): beams may be widened, narrowed and repeated."""
        batch, beams = self.words.shape[:2]
        flat = (torch.arange(batch, device=parents.device).unsqueeze(1) * beams + parents).flatten()
        words = self.words.flatten(0, 1)[flat].unflatten(0, parents.shape)
        return type(self)(_rows(self.query, flat), _rows(self.language, flat), words)

    def select(self, rows: Tensor) -> Self:
        """The states of some of the examples."""
        beams = self.words.shape[1]
        flat = (rows.unsqueeze(1) * beams + torch.arange(beams, device=rows.device)).flatten()
        return type(self)(_rows(self.query, flat), _rows(self.language, flat), self.words[rows])


def _rows(state: LSTMState | None, rows: Tensor) -> LSTMState | None:
    return None if state is None else (state[0][:, rows], state[1][:, rows])


class Decoder(nn.Module):
    r"""Words to the next word's scores, given the memory of an image.

    .. math::
        s_t &= \mathrm{LSTM}_q(e(w_t) + u) \\
        f_t &= \mathrm{fusion}(s_t) \\
        h_t &= \mathrm{LSTM}_l([s_t; f_t]) \\
        \mathrm{logits}_t &= W_e h_t + b

    :math:`u` is the summary of image and context. The fused vector does not feed back into the query LSTM, so all T
    steps are two fused LSTM calls and one attention call. The output matrix is the embedding table (tied).
    """

    def __init__(self, vocab_size: int, fusion: Fusion, *, embed_dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.fusion = fusion
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.query_lstm = nn.LSTM(embed_dim, hidden_dim, batch_first=True)
        self.language_lstm = nn.LSTM(hidden_dim + embed_dim, hidden_dim, batch_first=True)
        self.project = nn.Linear(hidden_dim, embed_dim) if hidden_dim != embed_dim else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)

    def forward(
        self, tokens: Tensor, memory: Memory, *, gate: Tensor | None = None, maps: bool = True
    ) -> tuple[Tensor, Attention]:
        """Teacher forcing: all steps at once.

        Args:
            tokens: captions from ``<bos>`` on, (B, G, T), G captions of each example.
            memory: of the B examples.
            gate: of the heads, instead of the fusion layer's own; broadcasts to (B, G, T, H).
            maps: say where each head looked, which costs time.

        Returns:
            Language states (B, G, T, Z), for :meth:`logits`, and where each head looked.
        """
        words = self.embedding(tokens)
        state, _ = self.query_lstm(self._query_input(words, memory).flatten(0, 1))
        state = state.contiguous().unflatten(0, tokens.shape[:2])  # laid out by step until here
        latents = self.fusion.compress_words(words)
        fused, attention = self.fusion.attend(
            state, memory, latents, causal=True, written=tokens != 0, gate=gate, maps=maps
        )
        hidden, _ = self.language_lstm(self._language_input(state, fused).flatten(0, 1))
        return hidden.unflatten(0, tokens.shape[:2]), attention

    def step(
        self,
        tokens: Tensor,
        memory: Memory,
        state: DecoderState,
        *,
        gate: Tensor | None = None,
        maps: bool = True,
    ) -> tuple[Tensor, DecoderState, Attention]:
        """One word: tokens (B, G) to logits (B, G, V), the new state, and where each head looked (T = 1).

        The same computation as :meth:`forward` with carried state.
        """
        words = self.embedding(tokens.unsqueeze(-1))  # (B, G, 1, E)
        query, query_state = self.query_lstm(self._query_input(words, memory).flatten(0, 1), state.query)
        query = query.unflatten(0, tokens.shape)
        latents = self.fusion.compress_words(words, start=state.words.shape[2])
        latents = torch.cat((state.words.to(latents.dtype), latents), 2)
        fused, attention = self.fusion.attend(query, memory, latents, causal=False, gate=gate, maps=maps)
        hidden, language_state = self.language_lstm(self._language_input(query, fused).flatten(0, 1), state.language)
        logits = self.logits(hidden).view(*tokens.shape, -1)
        return logits, DecoderState(query_state, language_state, latents), attention

    def start(self, memory: Memory) -> DecoderState:
        """The state before the first word, with one beam per example."""
        words = memory.summary.new_zeros(memory.summary.shape[0], 1, 0, self.fusion.latent_dim)
        return DecoderState(None, None, words)

    def logits(self, hidden: Tensor) -> Tensor:
        """Language states (..., Z) to scores over the vocabulary (..., V)."""
        return nn.functional.linear(self.project(self.dropout(hidden)), self.embedding.weight, self.bias)

    def _query_input(self, words: Tensor, memory: Memory) -> Tensor:
        return self.dropout(words) + memory.summary[:, None, None].to(words.dtype)

    def _language_input(self, state: Tensor, fused: Tensor) -> Tensor:
        return torch.cat((state, self.dropout(fused)), -1)
