"""Steps of an engine whose decode attention is split between device and host (compiled): how long they take, and who emits.

`run_steps` carries out one standing plan until something happens. The loops here are over sequences and layers; queues, plans and
rules are in `rota.mechanisms.simulator.offload`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rota.contracts.columns import BLOCKS, COMPUTED, FINISHED_AT, FIRST_TOKEN, FLIGHT, KNOWN, LAST_TOKEN, MAX_TBT, PROMPT
from rota.cost.kernel import CPU, CPU_SEQ, KV_SCALE, LAUNCH, LAYERS, decode_attention, lookup, noise_factor, prefill_attention
from rota.jit import njit
from rota.mechanisms.simulator.decodes import gap_bin
from rota.mechanisms.simulator.state import (
    A_AREA,
    A_BUSY,
    A_CONTEXT,
    A_DECODE,
    A_EXPERT,
    A_PASSES,
    A_PCONTEXT,
    A_PREFILL,
    A_STEPS,
    ACC,
    OUTPUT,
)

#: Ways to overlap, in the order of `rota.contracts.offload.OVERLAPS`.
SERIAL, PIPELINED, ASYNC, BARRIER = range(4)
# entries of num, float64; COPY: seconds that the step spends at least on copying KV
NOW, HOST_AT, WAKE_AT, ARRIVAL_AT, COPY = range(5)
# entries of ctl, int64
FREE, HOST_FREE, SIZE, STEPS, LEFT, HEADROOM, ROWS, ENDED, PEAK, HOST_PEAK = range(10)
# entries of host, float64: HostCosts
H_FLOOR, H_CONTEXT, H_LATENCY, H_SEND, H_BACK = range(5)
# entries of acc beyond those of the main simulator
A_HOST_TOKENS, A_HOST_CONTEXT, A_HOST_BUSY = ACC, ACC + 1, ACC + 2
# columns of log
LOG_START, LOG_END, LOG_DECODES, LOG_PREFILL, LOG_STEPS, LOG_USED, LOG_HOST_USED = range(7)
# columns of work
W_SID, W_TOKENS = range(2)


class SplitState(NamedTuple):
    """One engine with two tiers. `cursor` and `ready`: layers that a host sequence's open token has begun, and when it may go on."""

    seq: np.ndarray
    own: np.ndarray
    tim: np.ndarray
    cursor: np.ndarray
    ready: np.ndarray
    num: np.ndarray
    ctl: np.ndarray
    host: np.ndarray
    cp: np.ndarray
    layer: np.ndarray
    head: np.ndarray
    expert: np.ndarray
    decode_table: np.ndarray
    prefill_table: np.ndarray
    prefill_long: np.ndarray
    acc: np.ndarray
    hist: np.ndarray
    log: np.ndarray
    ended: np.ndarray  # sequences that ended in the last call


@njit(cache=True)
def _context(s, sids):
    total = 0
    for sid in sids:
        total += s.seq[sid, KNOWN]
    return total


@njit(cache=True)
def _prompts(s, work):
    """(attention seconds of a layer, tokens, prompts completed) of the prompt chunks; accumulates totals."""
    tokens = 0
    area = 0.0
    context = 0
    squares = 0.0
    past_sum = 0
    completed = 0
    scale = int(s.cp[KV_SCALE])
    for i in range(work.shape[0]):
        sid = work[i, W_SID]
        n = work[i, W_TOKENS]
        past = s.seq[sid, COMPUTED]
        tokens += n
        area += n * past + 0.5 * n * (n + 1.0)
        context += past + n
        squares += float(n) * n
        past_sum += (past + scale - 1) // scale * scale
        if past + n == s.seq[sid, KNOWN]:
            completed += 1
    s.acc[A_PREFILL] += tokens
    s.acc[A_AREA] += area
    s.acc[A_PCONTEXT] += context
    seconds = prefill_attention(s.cp, s.prefill_table, s.prefill_long, work.shape[0], tokens, area, context, squares, past_sum)
    return seconds, tokens, completed


@njit(cache=True)
def _host_call(s, sids):
    """Seconds of a layer's host attention of these sequences, vectors there and back included."""
    if sids.size == 0:
        return 0.0
    s.acc[A_HOST_CONTEXT] += _context(s, sids)
    work = s.host[H_FLOOR] + s.host[H_CONTEXT] * _context(s, sids)
    s.acc[A_HOST_BUSY] += s.cp[LAYERS] * work
    return 2.0 * s.host[H_LATENCY] + (s.host[H_SEND] + s.host[H_BACK]) * sids.size + work


@njit(cache=True)
def _read(s, tokens, passes):
    """Count the weights that `passes` layers of so many tokens read."""
    s.acc[A_EXPERT] += passes * lookup(s.expert, tokens)
    s.acc[A_PASSES] += passes


@njit(cache=True)
def _one_batch(s, attention, tokens, emitted, host, backlog):
    """Seconds of a step whose linear layers run once for everybody, waiting in each layer for `host` seconds of host attention.

    `backlog` seconds pass before the host can begin with it.
    """
    layers = s.cp[LAYERS]
    _read(s, tokens, layers)
    linear = lookup(s.layer, tokens)
    late = max(attention, host + max(0.0, backlog - linear)) - max(attention, host) if host > 0.0 else 0.0
    return layers * (linear + max(attention, host)) + lookup(s.head, emitted) + late


@njit(cache=True)
def _two_batches(s, attention, first, second, emitted, host_first, host_second, backlog):
    """Seconds of a step of two alternating sub-batches; the second has no device attention.

    While one sub-batch is attended for, on device and host at once, the device also runs the other's linear layer. `backlog` seconds
    pass before the host can begin.
    """
    layers = s.cp[LAYERS]
    _read(s, first, layers)
    _read(s, second, layers)
    linear_first, linear_second = lookup(s.layer, first), lookup(s.layer, second)
    seconds = linear_first + layers * max(attention + linear_second, host_first)
    seconds += (layers - 1) * max(linear_first, host_second) + host_second
    backlog -= linear_first
    if host_first > 0.0:
        seconds += max(attention + linear_second, host_first + max(0.0, backlog)) - max(attention + linear_second, host_first)
    elif host_second > 0.0:
        backlog -= attention + linear_second
        following = linear_first if layers > 1 else 0.0
        seconds += max(following, host_second + max(0.0, backlog)) - max(following, host_second)
    return seconds + lookup(s.head, emitted)


@njit(cache=True)
def _pass(s, hosted, attention, tokens, emitted, factor, begin):
    """One pass of the device through all layers, taking along host sequences that are ready where it comes by.

    Returns (seconds, host sequences that moved on). A host sequence emits when it is taken along to the output head: its cursor is then -1.
    """
    layers = int(s.cp[LAYERS])
    at = begin
    touched = 0
    for layer in range(layers + 1):
        joined = 0
        context = 0
        for sid in hosted:
            if s.cursor[sid] == layer and s.ready[sid] <= at:
                joined += 1
                context += s.seq[sid, KNOWN]
        if layer == layers:
            for sid in hosted:
                if s.cursor[sid] == layer and s.ready[sid] <= at:
                    s.cursor[sid] = -1
            touched += joined
            at += factor * lookup(s.head, emitted + joined)
            break
        n = tokens + joined
        if n == 0:
            continue
        arrived = at
        at += factor * lookup(s.layer, n)
        _read(s, n, 1)
        if joined > 0:
            touched += joined
            done = max(at + s.host[H_LATENCY] + s.host[H_SEND] * joined, s.num[HOST_AT]) + s.host[H_FLOOR]
            for sid in hosted:
                if s.cursor[sid] == layer and s.ready[sid] <= arrived:
                    done += s.host[H_CONTEXT] * s.seq[sid, KNOWN]
                    s.cursor[sid] = layer + 1
                    s.ready[sid] = done + s.host[H_LATENCY] + s.host[H_BACK]
                    s.seq[sid, FLIGHT] = 1
            s.num[HOST_AT] = done
            s.acc[A_HOST_CONTEXT] += context / layers
            s.acc[A_HOST_BUSY] += s.host[H_FLOOR] + s.host[H_CONTEXT] * context
        at += factor * attention
    return at - begin, touched


@njit(cache=True)
def _first_ready(s, hosted):
    earliest = math.inf
    for sid in hosted:
        earliest = min(earliest, s.ready[sid])
    return earliest


@njit(cache=True)
def needed(s, sids, starting_only):
    """Blocks that the next token of these sequences takes; with `starting_only` of those that have no token open."""
    blocks = 0
    for sid in sids:
        if s.seq[sid, KNOWN] > s.seq[sid, BLOCKS] * s.ctl[SIZE] and not (starting_only and s.seq[sid, FLIGHT]):
            blocks += 1
    return blocks


@njit(cache=True)
def _take_blocks(s, sids, pool, starting_only):
    for sid in sids:
        if s.seq[sid, KNOWN] > s.seq[sid, BLOCKS] * s.ctl[SIZE] and not (starting_only and s.seq[sid, FLIGHT]):
            s.seq[sid, BLOCKS] += 1
            s.ctl[pool] -= 1


@njit(cache=True)
def token(s, sid, now, pool):
    """The sequence emits a token; if it was the last, the sequence ends and its blocks go back to `pool`."""
    seq, tim = s.seq, s.tim
    seq[sid, KNOWN] += 1
    if math.isnan(tim[sid, FIRST_TOKEN]):
        tim[sid, FIRST_TOKEN] = now
    else:
        gap = now - tim[sid, LAST_TOKEN]
        s.hist[gap_bin(gap)] += 1
        tim[sid, MAX_TBT] = max(tim[sid, MAX_TBT], gap)
    tim[sid, LAST_TOKEN] = now
    if seq[sid, KNOWN] == seq[sid, PROMPT] + s.own[sid, OUTPUT]:
        tim[sid, FINISHED_AT] = now
        s.ctl[pool] += seq[sid, BLOCKS]
        seq[sid, BLOCKS] = 0
        s.ended[s.ctl[ENDED]] = sid
        s.ctl[ENDED] += 1


@njit(cache=True)
def _decode(s, sids, now, pool):
    for sid in sids:
        s.seq[sid, COMPUTED] += 1
        token(s, sid, now, pool)


@njit(cache=True)
def _step(s, kind, dev, first, second, work, totals):
    """One step. Host sequences: all in `first`, or, pipelined, those of each sub-batch."""
    ctl, num, acc = s.ctl, s.num, s.acc
    rows, asynchronous = dev.size, kind == ASYNC
    context = _context(s, dev)
    prefill_s, tokens, completed = _prompts(s, work)
    attention = decode_attention(s.cp, s.decode_table, rows, context, 0) + prefill_s
    emitted = rows + completed
    hosts = 0 if kind == SERIAL else first.size + second.size
    _take_blocks(s, dev, FREE, False)
    if kind != SERIAL:
        _take_blocks(s, first, HOST_FREE, asynchronous)
        _take_blocks(s, second, HOST_FREE, False)
    ctl[PEAK] = max(ctl[PEAK], totals[0] - ctl[FREE])
    ctl[HOST_PEAK] = max(ctl[HOST_PEAK], totals[1] - ctl[HOST_FREE])
    factor = noise_factor(s.cp, ctl[STEPS])
    start = num[NOW]
    begin = start
    if asynchronous:
        if rows + tokens == 0:  # nothing else to do than to wait for the first host result
            begin = max(start, _first_ready(s, first))
        device, hosts = _pass(s, first, attention, rows + tokens, emitted, factor, begin)
        device = max(device, s.cp[LAUNCH] * factor)
    else:
        if kind == SERIAL:
            device = _one_batch(s, attention, rows + tokens, emitted, 0.0, 0.0)
        elif kind == BARRIER:
            device = _one_batch(s, attention, rows + tokens + hosts, emitted + hosts, _host_call(s, first), num[HOST_AT] - start)
        else:
            device = _two_batches(s, attention, rows + tokens + first.size, second.size, emitted + hosts,
                                  _host_call(s, first), _host_call(s, second), num[HOST_AT] - start)  # fmt: skip
        device = max(device, s.cp[LAUNCH]) * factor
    dt = begin - start + max(device, num[COPY]) + s.cp[CPU] + s.cp[CPU_SEQ] * (rows + work.shape[0] + hosts)
    now = start + dt
    num[NOW] = now
    num[COPY] = 0.0
    if hosts > 0 and not asynchronous:
        num[HOST_AT] = now
    acc[A_BUSY] += dt
    acc[A_STEPS] += 1
    acc[A_DECODE] += rows
    acc[A_CONTEXT] += context
    row = ctl[ROWS]
    s.log[row, LOG_START], s.log[row, LOG_END] = start, now
    s.log[row, LOG_DECODES], s.log[row, LOG_PREFILL], s.log[row, LOG_STEPS] = rows + hosts, tokens, 1
    if asynchronous:  # tokens, as in all other rows, and not sequences that moved on by some layers
        s.log[row, LOG_DECODES] = rows + _through(s, first)
    s.log[row, LOG_USED], s.log[row, LOG_HOST_USED] = totals[0] - ctl[FREE], totals[1] - ctl[HOST_FREE]
    ctl[ROWS] = row + 1
    ctl[STEPS] += 1
    _decode(s, dev, now, FREE)
    if asynchronous:
        _emit_late(s, first, now)
    elif kind != SERIAL:
        acc[A_HOST_TOKENS] += hosts
        _decode(s, first, now, HOST_FREE)
        _decode(s, second, now, HOST_FREE)


@njit(cache=True)
def _through(s, hosted):
    """How many host sequences have come through the output head in this pass."""
    count = 0
    for sid in hosted:
        if s.cursor[sid] == -1:
            count += 1
    return count


@njit(cache=True)
def _emit_late(s, hosted, now):
    """Host sequences that have come through the output head in this pass emit; their next token begins with the next one."""
    for sid in hosted:
        if s.cursor[sid] == -1:
            s.cursor[sid] = 0
            s.ready[sid] = 0.0
            s.seq[sid, FLIGHT] = 0
            s.seq[sid, COMPUTED] += 1
            s.acc[A_HOST_TOKENS] += 1
            token(s, sid, now, HOST_FREE)


@njit(cache=True)
def run_steps(s, kind, dev, first, second, work, totals):
    """Steps of a standing plan until it is used up, a sequence ends, the next arrival, WAKE_AT, a lack of blocks, or a full log."""
    ctl, num = s.ctl, s.num
    ctl[ENDED] = 0
    while True:
        _step(s, kind, dev, first, second, work, totals)
        ctl[LEFT] -= 1
        if ctl[LEFT] <= 0 or ctl[ENDED] > 0 or work.shape[0] > 0 or num[NOW] >= num[ARRIVAL_AT] or num[NOW] >= num[WAKE_AT]:
            return
        if ctl[ROWS] >= s.log.shape[0]:
            return
        short = needed(s, dev, False)
        if dev.size > 0 and (short > ctl[FREE] or ctl[FREE] - short < ctl[HEADROOM]):
            ctl[LEFT] = 0
            return
        if kind != SERIAL and needed(s, first, kind == ASYNC) + needed(s, second, False) > ctl[HOST_FREE]:
            ctl[LEFT] = 0
            return
