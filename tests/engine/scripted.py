"""An engine without a model: a runner that says what a trace says, and a policy that writes down what it plans."""

import copy

import numpy as np

from rota.mechanisms.engine import Choice, Engine, ModelClock, SamplingParams

END = (1 << 31) - 2


class ScriptedRunner:
    """Emits the next token of each request's stream: runs of the trace's hash ids spelled out, or tokens of its own, then the end."""

    max_len, vocab, end_tokens = 160, 1 << 31, frozenset({END})

    def __init__(self, trace, n_layers):
        self.n_layers = n_layers
        self.streams = [stream(trace, i) for i in range(len(trace))]

    def allocate(self, blocks, block_size):
        self.blocks = blocks

    def allocate_host(self, blocks):
        self.host_blocks = blocks

    def copy(self, out, back):
        pass

    def run(self, rows, tables):
        return [Choice(self.streams[row.seq.sid][row.seq.n_known]) for row in rows if row.emits]

    def forget(self, seq):
        pass


def stream(trace, sid):
    """All tokens of a request: those of equal hash ids are equal, others are nobody else's."""
    total = int(trace.prompt[sid] + trace.output[sid])
    at = np.arange(total)
    if trace.hash_ids is None:
        tokens = sid * 1000 + at
    else:
        ids = trace.hash_ids[trace.hash_start[sid] : trace.hash_start[sid + 1]]
        tokens = ids[at // trace.hash_block] * 64 + at % trace.hash_block
    return [*tokens[:-1].tolist(), END]


class Recording:
    """A policy that notes the time and the plan of every decision; copies share the notes."""

    def __init__(self, policy):
        self._policy = policy
        self.notes = []

    def __deepcopy__(self, memo):
        other = Recording(copy.deepcopy(self._policy))
        other.notes = self.notes
        return other

    def __getattr__(self, name):
        if name == "twin":
            raise AttributeError(name)
        return getattr(self._policy, name)

    def start(self, limits):
        self._policy.start(limits)

    def plan(self, view):
        plan = self._policy.plan(view)
        self.notes.append((view.now, plan))
        return plan


def serve(trace, policy, spec, *, compress=True, log=None):
    """Run a trace through an engine on the cost model's clock; all outputs."""
    runner = ScriptedRunner(trace, spec.tables.n_layers)
    engine = Engine(runner, policy, blocks=spec.blocks, block_size=spec.block_size, host_blocks=spec.host_blocks, compress=compress, log=log,
                    clock=ModelClock(spec.tables, block_size=spec.block_size))  # fmt: skip
    for i in range(len(trace)):
        limit = None if trace.max_new is None else int(trace.max_new[i])
        priority = 0 if trace.priority is None else int(trace.priority[i])
        prompt = runner.streams[i][: trace.prompt[i]]
        engine.add_request(prompt, SamplingParams(max_tokens=limit, temperature=0.0), priority=priority, arrival=float(trace.arrival[i]))
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    assert engine.core.pool.free == spec.blocks or engine.core.pins
    assert engine.core.pool.host_free == engine.core.pool.host_blocks
    return outputs
