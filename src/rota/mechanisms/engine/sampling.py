"""Choosing tokens from logits. Each row has its own random number and its own arithmetic, so that no neighbour can change its token."""

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
#: Below this temperature the likeliest token is taken: nothing else could be, and the quotients would overflow.
COLD = 1e-5


def choose(logits: Tensor, seqs: Sequence[Seq]) -> list[Choice]:
    """The next token of each sequence, from its row of logits (n, vocab)."""
    wanted = logits
    modified = [i for i, seq in enumerate(seqs) if seq.params.modifies]
    if modified:
        wanted = logits.clone()
        for i in modified:
            wanted[i] = penalised(logits[i], seqs[i])
    tokens = _likeliest(wanted)
    random = [i for i, seq in enumerate(seqs) if seq.params.temperature >= COLD]
    if random:
        drawn = draw(wanted[random], [seqs[i].params for i in random], [uniform(seqs[i].seed, seqs[i].n_known) for i in random])
        for i, token in zip(random, drawn, strict=True):
            tokens[i] = token
    return [
        Choice(token) if seq.params.logprobs is None else _with_logprobs(row, token, seq.params.logprobs)
        for row, token, seq in zip(logits, tokens, seqs, strict=True)
    ]


def _likeliest(logits: Tensor) -> list[int]:
    """Of each row; on a CPU through NumPy, which is far faster at it than PyTorch."""
    if logits.device.type == "cpu":
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        return list(map(int, logits.numpy().argmax(-1)))
    tokens: list[int] = logits.argmax(-1).tolist()
    return tokens


def _with_logprobs(logits: Tensor, token: int, most: int) -> Choice:
    known = logits.log_softmax(-1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
    values, tokens = known.topk(min(most, len(known)))
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


def draw(logits: Tensor, params: Sequence[SamplingParams], shares: Sequence[float]) -> list[int]:
    """For each row, the token at a share (0 to below 1) of the distribution that temperature, min-p, top-k and top-p, in this order, leave.

    The kept tokens lie in order of their probability where top-k or top-p ask for one, otherwise in order of their numbers.
    """
    device = logits.device
    exact = torch.float64 if logits.dtype == torch.float64 else torch.float32
    column = {"dtype": exact, "device": device}
    probs = (logits.to(exact) / torch.tensor([[p.temperature] for p in params], **column)).softmax(-1)
    if any(p.min_p for p in params):
        floor = torch.tensor([[p.min_p] for p in params], **column) * probs.amax(-1, keepdim=True)
        probs = torch.where(probs >= floor, probs, 0.0)
    u = torch.tensor([[share] for share in shares], dtype=torch.float64, device=device)
    found = torch.empty(len(params), dtype=torch.int64, device=device)
    ranked = torch.tensor([p.top_k > 0 or p.top_p < 1.0 for p in params], device=device)
    if not ranked.all():
        found[~ranked] = _at_share(probs[~ranked], u[~ranked])
    for i in ranked.nonzero()[:, 0].tolist():
        kept, tokens = _ranked(probs[i], params[i])
        found[i] = tokens[_at_share(kept[None], u[i : i + 1])[0]]
    drawn: list[int] = found.tolist()
    return drawn


def _ranked(probs: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Weights of the tokens that top-k and top-p keep, likeliest first, and the tokens."""
    kept, tokens = probs.topk(min(params.top_k or FEW, len(probs)))
    whole = kept.sum() if params.top_k else probs.sum()
    if kept.sum() < params.top_p * whole:  # a flat distribution: more tokens than that count
        kept, tokens = probs.sort(descending=True)
    before = kept.cumsum(-1, dtype=torch.float64) - kept
    return torch.where(before < params.top_p * whole, kept, 0.0), tokens


def _at_share(weights: Tensor, u: Tensor) -> Tensor:
    """Of each row, the index of the weight in which a share of their sum falls; never that of a weight of zero."""
    sums = weights.cumsum(-1, dtype=torch.float64)
    at = torch.searchsorted(sums, u * sums[:, -1:], right=True)[:, 0]
    positions = torch.arange(weights.shape[1], device=weights.device)
    last = torch.where(weights > 0, positions, -1).amax(-1)
    return torch.minimum(at, last).clamp(min=0)  # where nothing is above zero (logits that are no numbers), still a token
