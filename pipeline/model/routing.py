"""A router chooses heads: some are always on, of the others each example or query gets the few it scores highest.

Dimension letters: see ``latent_attention.py``; C size of what chooses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentcap.model.chosen_heads import ChosenHeads

BIAS_STEP = 0.001  # gamma of DeepSeek-V3
LOSS_WEIGHT = 0.01  # beta of Mixture-of-Head attention


class HeadRouter(nn.Module):
    r"""Mixture-of-Head attention (arXiv 2410.11842, equations 5-7) over the heads of one kind.

    With s shared and r routed heads, the input x of whoever chooses gives every head a weight:

    .. math::
        g_i = \begin{cases}
            s \, \alpha_1 \, \mathrm{softmax}_i(W^s x) & \text{shared} \\
            r \, \alpha_2 \, \mathrm{softmax}_i(W^r x) & \text{routed and chosen}
        \end{cases} \qquad [\alpha_1, \alpha_2] = 2 \, \mathrm{softmax}(W^\alpha x)

    The factors s, r and 2 are ours: a router that knows nothing multiplies by 1, so that fine-tuning a model without
    routing starts from what that model computes with the chosen heads.

    Chosen are the k routed heads with the greatest softmax plus selection bias. ``balance="bias"`` (DeepSeek-V3,
    arXiv 2412.19437, section 2.1.2): after each training step the bias of each head that was chosen less than the
    average rises by a fixed step, the others' falls; weights and gradients never see it. ``balance="loss"``: the bias
    stays 0 and :meth:`forward` returns an auxiliary loss, r times the sum over heads of the share of choices times the
    mean softmax, which is 1 in balance and is weighed by 0.01.
    """

    bias: Tensor

    def __init__(self, input_dim: int, *, num_heads: int, shared_heads: int, top_k: int, balance: str) -> None:
        super().__init__()
        self.num_heads, self.shared, self.top_k, self.balance = num_heads, shared_heads, top_k, balance
        self.score = nn.Linear(input_dim, num_heads + (2 if shared_heads else 0), bias=False)
        nn.init.normal_(self.score.weight, std=0.02)
        self.register_buffer("bias", torch.zeros(num_heads - shared_heads))

    def forward(self, inputs: Tensor, counted: Tensor | None = None) -> tuple[ChosenHeads, Tensor | None]:
        """Choose for every unit.

        Args:
            inputs: of examples, (B, 1, 1, C), or of queries, (B, G, T, C).
            counted: True for units whose choices count as load, (B, G, T). None: all.

        Returns:
            The chosen heads, and the weighed balance loss where it is asked for and the module is in training.
        """
        with torch.autocast(inputs.device.type, enabled=False):
            scores = self.score(inputs.float())
        count = self.bias.numel()
        routed = scores[..., self.shared : self.num_heads].softmax(-1)
        chosen = (routed.detach() + self.bias).topk(self.top_k).indices.sort(-1).values
        heads, weights = chosen + self.shared, count * routed.gather(-1, chosen)
        if self.shared:
            alpha = 2 * scores[..., self.num_heads :].softmax(-1)
            always = torch.arange(self.shared, device=heads.device).expand(*heads.shape[:-1], -1)
            heads = torch.cat((always, heads), -1)
            shared = self.shared * scores[..., : self.shared].softmax(-1)
            weights = torch.cat((alpha[..., :1] * shared, alpha[..., 1:] * weights), -1)
        choice = ChosenHeads(heads, weights, num_heads=self.num_heads)
        if not (self.training and torch.is_grad_enabled()):
            return choice, None
        return choice, self._balance(chosen, routed, counted)

    def _balance(self, chosen: Tensor, routed: Tensor, counted: Tensor | None) -> Tensor | None:
        """Move the biases by this step's load, over all processes; or return the loss."""
        units = torch.ones_like(chosen[..., 0], dtype=torch.bool) if counted is None else counted
        load = torch.bincount(chosen[units].flatten(), minlength=self.bias.numel()).float()
        if self.balance == "loss":
            share = load / load.sum().clamp_min(1)
            return LOSS_WEIGHT * self.bias.numel() * (share * routed[units].mean(0)).sum()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(load)
        self.bias += BIAS_STEP * (load.mean() - load).sign()
        return None
