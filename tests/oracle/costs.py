"""Step costs for the oracle: one step's content in, seconds out, straight from the text of `rota.cost.tables.StepTables`."""

import math

ROOFLINE = 0


class Item:
    """What one sequence does in a step: `n` new tokens over `past` computed ones, through `layers` (None: all of them)."""

    def __init__(self, req, n, decode, layers=None):
        self.req, self.n, self.decode, self.layers = req, n, decode, layers
        self.past = req.computed
        self.context = req.known
        self.emits = False


def lookup(table, i):
    """``table[i]``; beyond the end the last slope goes on."""
    last = len(table) - 1
    if i <= last:
        return table[i]
    slope = table[last] - table[last - 1] if last else 0.0
    return table[last] + slope * (i - last)


class Costs:
    """Prices whole steps. Tables become nested lists so that plain Python arithmetic is all there is."""

    def __init__(self, tables):
        self.t = tables
        self.layer = tables.layer.tolist()
        self.head = tables.head.tolist()
        self.decode_table = tables.decode_table.tolist()
        self.prefill_table = tables.prefill_table.tolist()
        self.prefill_long = tables.prefill_long.tolist()

    def decode_attention(self, contexts):
        """One layer's attention of decodes that read `contexts` tokens each, seconds."""
        if not contexts:
            return 0.0
        if self.t.kind == ROOFLINE:
            return self.t.decode_floor + self.t.decode_byte_s * sum(contexts)
        mean = sum(contexts) // len(contexts)
        rounded = -(-mean // self.t.kv_scale)
        factor = self.t.batch_factor if len(contexts) > 1 else 1.0
        return self.decode_table[len(contexts) - 1][rounded] * factor

    def prefill_attention(self, chunks):
        """One layer's attention of prompt chunks ``(past, n)``, seconds."""
        if not chunks:
            return 0.0
        if self.t.kind == ROOFLINE:
            area = sum(n * p + n * (n + 1) / 2 for p, n in chunks)
            reads = self.t.prefill_byte_s * sum(p + n for p, n in chunks) + self.t.query_byte_s * sum(n for p, n in chunks)
            return self.t.prefill_floor + math.hypot(self.t.prefill_flop_s * area, reads)
        n = round(math.sqrt(sum(n * n for _, n in chunks)))
        rounded = sum(-(-p // self.t.kv_scale) for p, _ in chunks)
        factor = self.t.batch_factor if len(chunks) > 1 else 1.0
        if rounded == 0:
            return lookup(self.prefill_long, n - 1) * factor
        return self.prefill_table[n - 1][rounded] * factor

    def layers_time(self, items, rows=()):
        """All layers of a step, seconds. `rows` are contexts of finished sequences that still take a row (padded batches)."""
        contexts = [i.context for i in items if i.decode] + list(rows)
        chunks = [(i.past, i.n) for i in items if not i.decode]
        n_prefill = sum(n for _, n in chunks)
        decode = self.decode_attention(contexts)
        prefill = self.prefill_attention(chunks)
        ranges = {i.layers for i in items if not i.decode}
        assert len(ranges) <= 1, "the prefills of a step share one layer range"
        span = ranges.pop() if ranges else None
        with_prefill = self.t.n_layers if span is None else span[1] - span[0]
        both = lookup(self.layer, len(contexts) + n_prefill) + decode + prefill
        only_decode = lookup(self.layer, len(contexts)) + decode
        return with_prefill * both + (self.t.n_layers - with_prefill) * only_decode

    def device_time(self, items, rows=()):
        """Layers and output head, seconds."""
        return self.layers_time(items, rows) + lookup(self.head, sum(i.emits for i in items) + len(rows))

    def step_time(self, items, rows=()):
        """A whole step on one pipeline stage, seconds."""
        host = self.t.cpu + self.t.cpu_per_seq * (len(items) + len(rows))
        return max(self.device_time(items, rows), self.t.launch) + host
