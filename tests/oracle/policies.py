"""The batching policies once more, in the style of the systems they come from: they change the engine as they decide.

Each function takes the oracle's `Engine`, moves sequences between its queue and its running list, promises blocks, and returns
the step's items. `POLICIES` maps a name to the function and its default options.
"""

from tests.oracle.costs import Item


def hopeless(e, req):
    """Whether a waiting request could not run even on an empty engine."""
    return e.blocks.count(req.known + 1) > e.blocks.total


def decode_in_order(e, order, one_free=True):
    """One token for each decode of `order`; for lack of blocks the last of those not yet looked at goes, in the end oneself.

    With `one_free` a block must be free before each decode, whether this one needs it or not.
    """
    left, items = list(order), []
    while left:
        req = left.pop(0)
        if not req.decoding:
            continue
        while e.blocks.free < (1 if one_free else e.blocks.missing(req, req.known)):
            if not left:
                e.evict(req)
                break
            e.evict(left.pop())
        else:
            e.blocks.promise(req, req.known)
            items.append(Item(req, 1, decode=True))
    return items


def sarathi(e):
    o = e.options
    budget = o["max_num_batched_tokens"]
    watermark = int(e.blocks.total * o["watermark"])
    order = e.by_arrival()
    items = decode_in_order(e, order)
    used = len(items)
    for req in order:
        if req in e.evicted_now or req.decoding:
            continue
        n = min(req.known - req.computed, budget - used)
        if n > 0:
            items.append(Item(req, n, decode=False))
            used += n
    while e.waiting:
        req = e.waiting[0]
        if req in e.evicted_now:
            break
        if hopeless(e, req):
            e.reject(req)
            continue
        n = min(req.known, budget - used)
        if e.blocks.free - e.blocks.count(req.known) < watermark or len(e.running) >= o["max_num_seqs"] or n <= 0:
            break
        e.admit(req)
        e.blocks.promise(req, req.known)
        items.append(Item(req, n, decode=False))
        used += n
    return items


def orca_paged(e):
    """Every decode, and whole prompts as long as blocks and seats last; nothing is cut and nothing reserved ahead."""
    items = decode_in_order(e, e.by_arrival())
    while e.waiting and e.waiting[0] not in e.evicted_now and len(e.running) < e.options["max_num_seqs"]:
        req = e.waiting[0]
        if hopeless(e, req):
            e.reject(req)
        elif e.blocks.count(req.known) > e.blocks.free:
            break
        else:
            e.admit(req)
            e.blocks.promise(req, req.known)
            items.append(Item(req, req.known, decode=False))
    return items


def most_tokens(e, req):
    """The most KV a request may ever want, from what it declares, or else all there is."""
    longest = min(e.spec.max_len, e.blocks.total * e.blocks.size)
    return longest if req.max_new is None else min(longest, req.prompt + req.max_new)


def admit_reserving(e):
    """Whole prompts first come first served, each with blocks for all it may ever need."""
    items = []
    while e.waiting and len(e.running) < e.options["max_num_seqs"]:
        req = e.waiting[0]
        most = most_tokens(e, req)
        if e.blocks.count(most) > e.blocks.total:
            e.reject(req)
            continue
        if e.blocks.count(most) > e.blocks.free:
            break
        e.admit(req)
        e.blocks.promise(req, most)
        items.append(Item(req, req.known, decode=False))
    return items


def orca_reserve(e):
    decodes = [Item(r, 1, decode=True) for r in e.idle_running() if r.decoding]
    return decodes + admit_reserving(e)


def flover(e):
    """One whole prompt alone, and a token for everybody before the next one."""
    decodes = [Item(r, 1, decode=True) for r in e.idle_running() if r.decoding]
    seats = e.options["max_num_seqs"] - len(e.running)
    joined, e.joined = e.joined, False
    if not (joined and decodes) and e.waiting and seats > 0:
        req = e.waiting[0]
        most = e.blocks.count(most_tokens(e, req))
        if most <= e.blocks.free:
            e.admit(req)
            e.blocks.promise(req, most_tokens(e, req))
            e.joined = True
            return [Item(req, req.known, decode=False)]
    return decodes


def static(e):
    if e.running:
        return [Item(r, 1, decode=True) for r in e.idle_running()]
    return admit_reserving(e)


def whole_prompts(e, cap, fits):
    """Prompt-only step of vLLM's first scheduler; `fits(lengths)` says whether a batch of such prompts is allowed."""
    watermark = int(e.blocks.total * e.options["watermark"])
    items, lengths = [], []
    while e.waiting:
        req = e.waiting[0]
        if req.known > cap or hopeless(e, req):
            e.reject(req)
            continue
        if e.blocks.free - e.blocks.count(req.known) < watermark or not fits([*lengths, req.known]):
            break
        if len(e.running) >= e.options["max_num_seqs"]:
            break
        e.admit(req)
        e.blocks.promise(req, req.known)
        items.append(Item(req, req.known, decode=False))
        lengths.append(req.known)
    return items


def vllm_v0(e):
    cap = e.options["max_num_batched_tokens"] or max(2048, e.spec.max_len)
    return whole_prompts(e, cap, lambda lengths: sum(lengths) <= cap) or decode_in_order(e, e.by_arrival())


def vllm_vidur(e):
    """Vidur's rendering of vLLM v0: it counts a batch of prompts as if padded to the longest."""
    cap = e.options["max_num_batched_tokens"]
    return whole_prompts(e, cap, lambda n: len(n) * max(n) <= cap) or decode_in_order(e, e.by_arrival())


def vllm_v1(e):
    o = e.options
    budget, threshold = o["max_num_batched_tokens"], o["long_prefill_token_threshold"]
    planned = []  # (request, tokens), in running order

    def tokens(req, done):
        n = min(req.known - done, budget, e.spec.max_len - 1 - done)
        return min(n, threshold) if threshold else n

    at = 0
    while at < len(e.running) and budget > 0:
        req = e.running[at]
        n = 0 if req.in_flight else tokens(req, req.computed)
        if n <= 0:
            at += 1
            continue
        while e.blocks.missing(req, req.computed + n) > e.blocks.free:
            victim = (
                max(e.idle_running(), key=lambda r: (r.priority, r.arrival, r.sid)) if e.by_priority else e.idle_running()[-1]
            )
            if e.running.index(victim) < at:
                at -= 1
            for entry in planned:
                if entry[0] is victim:  # it had been served in this very step; its tokens go back to the budget
                    planned.remove(entry)
                    budget += entry[1]
                    break
            e.evict(victim)
            if victim is req:
                break
        if req in e.evicted_now:
            break
        e.blocks.promise(req, req.computed + n)
        planned.append((req, n))
        budget -= n
        at += 1
    items = [Item(r, n, decode=r.decoding) for r, n in planned]
    while e.waiting and not e.evicted_now and budget > 0 and len(e.running) < o["max_num_seqs"]:
        req = e.waiting[0]
        if hopeless(e, req):
            e.reject(req)
            continue
        hits = e.blocks.hits(req)
        done = len(hits) * e.blocks.size
        n = tokens(req, done)
        idle = e.blocks.takes(hits)
        if e.blocks.count(done + n) - len(hits) + idle > e.blocks.free:
            break
        e.admit(req, hits)
        e.blocks.promise(req, done + n)
        items.append(Item(req, n, decode=False))
        budget -= n
    return items


def groups(tokens, unit, stages):
    """Layer groups of a cohort: doubled until each step's share is no more than `unit` tokens through all layers."""
    g = 1
    while g < stages and tokens > unit * g:
        g *= 2
    return g


def split(n_layers, parts):
    """Near-equal contiguous ranges, the longer ones first."""
    ranges, at = [], 0
    for i in range(parts):
        size = n_layers // parts + (i < n_layers % parts)
        ranges.append((at, at + size))
        at += size
    return ranges


def layered(e):
    o = e.options
    items = decode_in_order(e, e.by_arrival(), one_free=o["one_free"])
    if e.cohort:
        members, ranges = e.cohort
        members = [(r, n) for r, n in members if r in e.running and r not in e.evicted_now]
        e.cohort = (members, ranges) if members and ranges else None
    if not e.cohort:
        members, total = [], 0
        for req in e.idle_running():
            if not req.decoding and total < o["max_cohort_tokens"]:
                members.append((req, min(req.known - req.computed, o["max_cohort_tokens"] - total)))
                total += members[-1][1]
        while e.waiting and total < o["max_cohort_tokens"] and len(e.running) < o["max_num_seqs"]:
            req = e.waiting[0]
            if req in e.evicted_now:
                break
            if hopeless(e, req):
                e.reject(req)
                continue
            if e.blocks.count(req.known) > e.blocks.free:
                break
            e.admit(req)
            e.blocks.promise(req, req.known)
            members.append((req, min(req.known, o["max_cohort_tokens"] - total)))
            total += members[-1][1]
        if not members:
            return items
        n_layers = e.spec.tables.n_layers
        e.cohort = members, split(n_layers, min(n_layers, groups(total, o["unit"], o["stages"])))
    members, ranges = e.cohort
    span = ranges.pop(0)
    return items + [Item(r, n, decode=False, layers=span) for r, n in members]


POLICIES = {
    "static": (static, dict(max_num_seqs=8, padded=False)),
    "orca": (orca_reserve, dict(max_num_seqs=16)),
    "flover": (flover, dict(max_num_seqs=32)),
    "orca-paged": (orca_paged, dict(max_num_seqs=128)),
    "vllm-v0": (vllm_v0, dict(max_num_seqs=256, max_num_batched_tokens=None, watermark=0.01)),
    "vllm-vidur": (vllm_vidur, dict(max_num_seqs=512, max_num_batched_tokens=16384, watermark=0.01)),
    "vllm-v1": (vllm_v1, dict(max_num_seqs=256, max_num_batched_tokens=2048, enable_prefix_caching=True,
                              long_prefill_token_threshold=0, scheduling_policy="fcfs")),
    "sarathi": (sarathi, dict(max_num_seqs=128, max_num_batched_tokens=512, watermark=0.01)),
    "layered": (layered, dict(max_num_seqs=128, stages=16, max_cohort_tokens=8192, unit=512, one_free=True)),
}  # fmt: skip
