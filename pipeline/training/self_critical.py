"""Self-critical training: captions that the model samples are rewarded by how much they agree with the references.

Dimension letters: see ``latent_attention.py``; here G is the number of samples of each image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from latentcap.data.batches.tokenizer import CaptionTokenizer
from latentcap.data.example import Example
from latentcap.model.decoder import Decoder
from latentcap.model.fusion import Memory
from latentcap.training.losses import word_logits
from latentcap.training.optim import REWARDS
from latentcap.training.rewards import weighed


class SelfCritical:
    r"""The policy gradient of Rennie et al. (2017) with the baseline of Luo (2020, arXiv 2003.09971).

    .. math:: \nabla L = -\sum_g (r_g - \bar r_{\setminus g}) \, \nabla \log p(w_g)

    :math:`r_g` is a weighted sum of scores of sample g, see ``rewards.py``, and :math:`\bar r_{\setminus g}` the mean
    reward of the image's other samples. Where heads are routed with a balance loss, it is added.

    What is learned follows the *spread* of a score times its weight, not its mean. CIDEr-D goes from 0 to 10 and is the
    only one that knows which words are common. Divided by ten it is drowned by ROUGE-L, which is pleased with "a man in
    a shirt" for any image.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: CaptionTokenizer,
        *,
        samples: int,
        max_length: int,
        rewards: Mapping[str, float] = REWARDS,
    ) -> None:
        self.tokenizer, self.samples, self.max_length = tokenizer, samples, max_length
        self.score = weighed(rewards, examples, tokenizer)

    def loss(self, decoder: Decoder, memory: Memory, index: Tensor) -> tuple[Tensor, Tensor]:
        """For a memory of B examples, which are ``index`` (B,) of the training set: the loss, and the mean reward."""
        tokens = self.sample(decoder, memory)
        rewards = self.reward(tokens, index)
        others = (rewards.sum(1, keepdim=True) - rewards) / (self.samples - 1)
        inputs, targets = tokens[..., :-1], tokens[..., 1:]
        mask = targets != self.tokenizer.pad_id
        hidden, attention = decoder(inputs, memory, maps=False)
        log_probs = word_logits(decoder, hidden[mask]).float().log_softmax(-1)
        chosen = log_probs.gather(1, targets[mask].unsqueeze(1)).squeeze(1)
        advantage = (rewards - others).unsqueeze(-1).expand(mask.shape)[mask]
        loss = -(advantage * chosen).mean()
        if attention.balance_loss is not None:  # of head routers with fusion.balance: loss
            loss = loss + attention.balance_loss
        return loss, rewards.mean()

    @torch.no_grad()
    def sample(self, decoder: Decoder, memory: Memory) -> Tensor:
        """Captions drawn word by word without dropout, (B, G, T): from ``<bos>`` to ``<eos>``, padded."""
        training = decoder.training
        decoder.eval()
        batch, device = len(memory.summary), memory.summary.device
        state = decoder.start(memory).reorder(torch.zeros(batch, self.samples, dtype=torch.long, device=device))
        word = torch.full((batch, self.samples), self.tokenizer.bos_id, device=device)
        words, done = [word], torch.zeros_like(word, dtype=torch.bool)
        never = list(self.tokenizer.never_generated)
        for length in range(self.max_length + 1):
            logits, state, _ = decoder.step(word, memory, state, maps=False)
            logits = logits.float()
            logits[..., never] = -torch.inf
            word = _drawn(logits.softmax(-1))
            if length == self.max_length:
                word = torch.full_like(word, self.tokenizer.eos_id)
            word = word.masked_fill(done, self.tokenizer.pad_id)
            words.append(word)
            done |= word == self.tokenizer.eos_id
            if done.all():
                break
        decoder.train(training)
        return torch.stack(words, -1)

    def reward(self, tokens: Tensor, index: Tensor) -> Tensor:
        """What captions (B, G, T) of the examples ``index`` (B,) earn: (B, G), 0 or more."""
        rewards = [
            [self.score(caption[1 : caption.index(self.tokenizer.eos_id)], example) for caption in captions]
            for captions, example in zip(tokens.tolist(), index.tolist(), strict=True)
        ]
        return torch.tensor(rewards, device=tokens.device)


def _drawn(probabilities: Tensor) -> Tensor:
    """One of the last dimension's entries for each row; ``torch.multinomial`` draws a number for every entry."""
    upto = probabilities.cumsum(-1)
    places = torch.rand_like(upto[..., :1]) * upto[..., -1:]
    return torch.searchsorted(upto, places, right=True).squeeze(-1).clamp_max(upto.shape[-1] - 1)
