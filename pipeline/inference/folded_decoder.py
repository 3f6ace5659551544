"""The decoder for captioning only: what is linear is multiplied out beforehand, and a step is five large products.

Dimension letters: see ``latent_attention.py``; E embedding size, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, pad

from latentcap.inference.product import Product
from latentcap.model.decoder import Decoder
from latentcap.model.fusion import WORD, Attention, Memory
from latentcap.model.latent_attention import LatentAttention
from latentcap.model.position_codes import sinusoids
from latentcap.model.routed_fusion import RoutedFusion

WIDTH = 16  # products with that many outputs, or a multiple, are the fastest


def fold_decoder(decoder: Decoder, dtype: torch.dtype) -> Decoder | FoldedDecoder:
    """A decoder that writes the same captions faster and cannot be trained; the given one where it routes its heads."""
    return decoder if isinstance(decoder.fusion, RoutedFusion) else FoldedDecoder(decoder, dtype)


@dataclass
class FoldedState:
    """What a step carries to the next.

    ``beams``, each (B, G, ...): hidden state and cell of the query LSTM, those of the language LSTM, (B, G, Z), and the
    latents of the words written, (B, G, W, D). ``image`` (B, 1, 4 * Z): the query LSTM's gates as far as image and
    context alone decide them.
    """

    beams: tuple[Tensor, ...]
    image: Tensor

    def reorder(self, parents: Tensor) -> Self:
        """Beam g continues beam ``parents[b, g]``, (B, G'): beams may be widened, narrowed and repeated."""
        batch, beams = self.beams[0].shape[:2]
        flat = (torch.arange(batch, device=parents.device).unsqueeze(1) * beams + parents).flatten()
        moved = tuple(value.flatten(0, 1).index_select(0, flat).unflatten(0, parents.shape) for value in self.beams)
        return type(self)(moved, self.image)

    def select(self, rows: Tensor) -> Self:
        """The states of some of the examples."""
        return type(self)(tuple(value.index_select(0, rows) for value in self.beams), self.image.index_select(0, rows))


class FoldedDecoder:
    """The steps of a :class:`Decoder` without routers, from its weights as they are now.

    What the query LSTM reads of a word, and a word's latent, are looked up. Queries are made in the latent space and
    attended latents go straight into the fused vector, so that no head is expanded. The large products but the last are
    computed in ``dtype``; sums, cells, attention and scores are float32.
    """

    @torch.inference_mode()
    def __init__(self, decoder: Decoder, dtype: torch.dtype, *, packed: bool = True) -> None:
        fusion = decoder.fusion
        product = partial(Product, packed=packed)
        query_in, query_hidden, *query_biases = decoder.query_lstm.all_weights[0]
        language_in, language_hidden, *language_biases = decoder.language_lstm.all_weights[0]
        kinds = [kind for kind in (fusion.visual, fusion.text) if kind is not None]
        table = decoder.embedding.weight
        self.decoder, self.dtype = decoder, dtype
        self.image = _gates(query_in)  # (4 * Z, E)
        self.image_bias = _gates(query_biases[0] + query_biases[1])
        self.words = linear(table, self.image, self.image_bias).to(dtype)  # (V, 4 * Z)
        self.recurrent = product(_gates(query_hidden).to(dtype))  # (4 * Z, Z)
        asked = [torch.cat([*map(_latent_queries, kinds)])]  # (H * D, Z)
        biases = [table.new_zeros(len(asked[0]))]
        if fusion.query_gate is not None:
            asked.append(fusion.query_gate.weight)  # (H, Z)
            biases.append(table.new_zeros(len(fusion.query_gate.weight)))
        if fusion.modulate is not None:
            asked.append(fusion.modulate.weight)  # (E, Z)
            biases.append(fusion.modulate.bias)
        self.asked = [len(rows) for rows in asked]
        self.ask = product(torch.cat(asked).to(dtype), torch.cat(biases).to(dtype))
        values = torch.cat([kind.up_value for kind in kinds])  # (H, K, D)
        output = fusion.output.weight.unflatten(1, values.shape[:2])  # (E, H, K)
        answer = torch.einsum("ehk,hkd->ehd", output, values).flatten(1)  # (E, H * D)
        self.answer = product(answer.to(dtype), fusion.output.bias.to(dtype))
        language, language_bias = torch.cat((language_in, language_hidden), 1), language_biases[0] + language_biases[1]
        self.language = product(_gates(language).to(dtype), _gates(language_bias).to(dtype))
        blank = -len(table) % WIDTH
        bias = pad(decoder.bias.float(), (0, blank), value=-math.inf)
        self.vocabulary = product(pad(table.float(), (0, 0, 0, blank)), bias)
        self.latents = table.new_zeros(len(table), fusion.latent_dim)  # of the words, (V, D)
        if fusion.text is not None:
            self.latents = fusion.text.norm(fusion.text.down(table).float())
            if fusion.position != "keys":
                self.latents = self.latents + fusion.kind[WORD]

    def start(self, memory: Memory) -> FoldedState:
        """The state before the first word, with one beam per example."""
        batch, query = len(memory.summary), self.decoder.query_lstm
        cell = memory.summary.new_zeros(batch, 1, query.hidden_size, dtype=torch.float32)
        latents = cell.new_zeros(batch, 1, 0, self.latents.shape[1])
        image = linear(memory.summary, self.image).unsqueeze(1)
        return FoldedState((cell.to(self.dtype), cell, cell.to(self.dtype), cell, latents), image)

    def step(
        self, tokens: Tensor, memory: Memory, state: FoldedState, *, maps: bool = True
    ) -> tuple[Tensor, FoldedState, Attention]:
        """What :meth:`Decoder.step` gives: logits (B, G, V), the new state, and where each head looked.

        V is rounded up to a multiple of ``WIDTH``: what is no word has -inf.
        """
        gates = embedding(tokens, self.words) + self.recurrent(state.beams[0])
        return self.step_from_gates(gates.float().add_(state.image), tokens, memory, state, maps=maps)

    def step_from_gates(
        self, gates: Tensor, tokens: Tensor, memory: Memory, state: FoldedState, *, maps: bool = True
    ) -> tuple[Tensor, FoldedState, Attention]:
        """:meth:`step` from where the query LSTM's gates (B, G, 4 * Z), float32, are known."""
        _, asking_cell, speaking, speaking_cell, latents = state.beams
        asking, asking_cell = _lstm(gates, asking_cell)
        asking = asking.to(self.dtype)
        latest = embedding(tokens, self.latents)
        if self.decoder.fusion.position != "keys":
            place = torch.full((), latents.shape[2], device=tokens.device)
            latest = latest + sinusoids(place, latents.shape[-1])
        latents = torch.cat((latents, latest.unsqueeze(2)), 2)
        fused, attention = self.fuse(asking, memory, latents, maps=maps)
        gates = self.language(torch.cat((asking, fused, speaking), -1))
        speaking, speaking_cell = _lstm(gates.float(), speaking_cell)
        logits = self.vocabulary(self.decoder.project(speaking))
        beams = asking, asking_cell, speaking.to(self.dtype), speaking_cell, latents
        return logits, FoldedState(beams, state.image), attention

    def fuse(self, asking: Tensor, memory: Memory, latents: Tensor, *, maps: bool = True) -> tuple[Tensor, Attention]:
        """The fusion layer: query states (B, G, Z) to fused vectors (B, G, E), and where each head looked."""
        fusion = self.decoder.fusion
        queries, *weighing = self.ask(asking).split(self.asked, -1)
        read, attention = self._read(queries.float(), memory, latents, maps=maps)  # (B, G, 1, H, D)
        gate = fusion.head_gate
        if fusion.query_gate is not None:
            attention.query_gate = 2 * weighing[0].float().sigmoid().unsqueeze(2)  # (B, G, 1, H)
            gate = gate * attention.query_gate
        gated = (read * gate.unsqueeze(-1)).flatten(2)
        fused = self.answer(gated.to(self.dtype))
        return fused if fusion.modulate is None else weighing[-1].sigmoid() * fused, attention

    def _read(self, queries: Tensor, memory: Memory, latents: Tensor, *, maps: bool) -> tuple[Tensor, Attention]:
        """Queries of all heads (B, G, H * D) to what they read, (B, G, 1, H, D)."""
        fusion = self.decoder.fusion
        queries = queries.view(queries.size(0), queries.size(1), 1, -1, fusion.latent_dim)  # (B, G, 1, H, D)
        heads, read, visual, text = 0, [], None, None
        if fusion.visual is not None:
            heads = fusion.visual.num_heads
            seen, visual = fusion.visual.read(
                queries[..., :heads, :],
                memory.visual,
                shared_keys=memory.visual_keys,
                shared_mask=memory.visual_mask,
                maps=maps,
            )
            read.append(seen)
        if fusion.text is not None:
            seen, text = fusion.text.read(
                queries[..., heads:, :],
                memory.context,
                shared_keys=memory.context_keys,
                shared_mask=memory.context_mask,
                own=latents,
                own_keys=fusion.word_keys(latents),
                maps=maps,
            )
            read.append(seen)
        return torch.cat(read, -2), Attention(visual, text)


def _latent_queries(kind: LatentAttention) -> Tensor:
    """The matrix from query states to scaled queries in the latent space, (H * D, Z)."""
    query = kind.query.weight.unflatten(0, (kind.num_heads, kind.head_dim))  # (H, K, Z)
    return torch.einsum("hkd,hkz->hdz", kind.up_key, query).flatten(0, 1) / math.sqrt(kind.head_dim)


def _gates(rows: Tensor) -> Tensor:
    """Rows (4 * Z, ...) of an LSTM for :func:`_lstm`: the candidate's are doubled."""
    write, keep, new, show = rows.chunk(4)
    return torch.cat((write, keep, 2 * new, show))


def _lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Gates (..., 4 * Z), which are overwritten, and cell to the new hidden state and cell.

    tanh(x) is computed as 2 * sigmoid(2 * x) - 1: torch's sigmoid takes a fraction of the time of its tanh on a CPU.
    """
    write, keep, new, show = gates.sigmoid_().chunk(4, -1)
    cell = torch.addcmul(keep * cell, write, new.mul_(2).sub_(1))
    return show * (2 * cell).sigmoid_().mul_(2).sub_(1), cell
