"""Choosing tokens from logits. Each row is treated by itself, with its own random number, so that no neighbour can change its token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rota.mechanisms.engine.parameters import SamplingParams
from rota.mechanisms.engine.randomness import uniform
from rota.mechanisms.engine.runner import Choice
from rota.mechanisms.engine.sequences import Seq

#: Top-p looks at so many likeliest tokens before it sorts all.
FEW = 1024


def choose(logits: Tensor, seqs: Sequence[Seq]) -> list[Choice]:
    """The next token of each sequence, from its row of logits (n, vocab)."""
    best: list[int] = logits.argmax(dim=-1).tolist()
    return [
        Choice(token) if seq.params.plain else _choose_one(logits[i], seq)
        for i, (seq, token) in enumerate(zip(seqs, best, strict=True))
    ]


def _choose_one(raw: Tensor, seq: Seq) -> Choice:
    params = seq.params
    logits = raw.double() if raw.dtype == torch.float64 else raw.float()
    changed = penalised(logits, seq) if params.modifies else logits
    token = int(changed.argmax()) if params.temperature == 0.0 else draw(changed, params, uniform(seq.seed, seq.n_known))
    if params.logprobs is None:
        return Choice(token)
    known = logits.log_softmax(-1)
    values, tokens = known.topk(min(params.logprobs, len(known)))
    return Choice(token, float(known[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))


def penalised(logits: Tensor, seq: Seq) -> Tensor:
    """Logits with the request's penalties and biases."""
    params, logits = seq.params, logits.clone()
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted(set(seq.tokens)), device=logits.device)
        old = logits[seen]
        logits[seen] = torch.where(old > 0, old / params.repetition_penalty, old * params.repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        generated = torch.tensor(seq.tokens[seq.n_prompt :], dtype=torch.int64, device=logits.device)
        tokens, counts = generated.unique(return_counts=True)
        logits[tokens] -= params.presence_penalty + params.frequency_penalty * counts.to(logits.dtype)
    for token, bias in params.logit_bias.items():
        if token < len(logits):
            logits[token] += bias
    return logits


def draw(logits: Tensor, params: SamplingParams, u: float) -> int:
    """The token at the share `u` of the distribution that temperature, min-p, top-k and top-p (in this order) leave.

    The kept tokens lie in order of their probability where they had to be sorted, otherwise in order of their numbers.
    """
    probs = (logits.double() / params.temperature).softmax(-1)
    if params.min_p:
        probs = torch.where(probs >= params.min_p * probs.max(), probs, 0.0)
    if not params.top_k and params.top_p == 1.0:
        return _at_share(probs, u)
    n = len(probs)
    kept, tokens = probs.topk(min(params.top_k or FEW, n))
    whole = kept.sum() if params.top_k else probs.sum()
    if kept.sum() < params.top_p * whole:  # a flat distribution: more tokens than that count
        kept, tokens = probs.sort(descending=True)
    before = kept.cumsum(-1) - kept
    kept = torch.where(before < params.top_p * whole, kept, 0.0)
    return int(tokens[_at_share(kept, u)])


def _at_share(weights: Tensor, u: float) -> int:
    """Index of the weight in which the share `u` of their sum falls."""
    sums = weights.cumsum(-1)
    at = int(torch.searchsorted(sums, u * sums[-1], right=True))
    if at >= len(weights) or weights[at] == 0:  # u so near 1 that rounding has carried it over the end
        at = int(weights.nonzero()[-1])
    return at
