"""An engine view over plain columns, so that a policy's `plan` and its compiled twin can be asked about the very same state."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from rota.contracts import columns as col
from rota.contracts.serving import DECODE, PREFILL, WAITING, Limits, StepPlan, Work


class Seq:
    def __init__(self, view, sid):
        self._view, self.sid = view, sid

    def _get(column):
        return property(lambda self: int(self._view.seq_rows[self.sid, column]))

    phase, priority, tenant, n_prompt = _get(col.PHASE), _get(col.PRIORITY), _get(col.TENANT), _get(col.PROMPT)
    n_known, n_computed, max_new, kv_blocks = _get(col.KNOWN), _get(col.COMPUTED), _get(col.MAX_NEW), _get(col.BLOCKS)
    layer_cursor, preemptions, n_reusable, in_flight = (
        _get(col.CURSOR),
        _get(col.PREEMPTIONS),
        _get(col.REUSABLE),
        _get(col.FLIGHT),
    )

    @property
    def arrival(self):
        return float(self._view.tim[self.sid, col.ARRIVED])


class ColumnsView:
    def __init__(self, seq, tim, ctl):
        self.seq_rows, self.tim, self.ctl, self.now = seq, tim, ctl, 1e6
        self.limits = Limits(
            n_layers=int(ctl[col.N_LAYERS]), block_size=int(ctl[col.BLOCK_SIZE]), blocks=int(ctl[col.TOTAL_BLOCKS]),
            max_seqs=int(ctl[col.MAX_SEQS]), max_step_tokens=int(ctl[col.MAX_STEP_TOKENS]), max_len=int(ctl[col.MAX_LEN]),
            pp=int(ctl[col.STAGES]),
        )  # fmt: skip

    def _ctl(entry):
        return property(lambda self: int(self.ctl[entry]))

    n_decode, decode_need, free_blocks = _ctl(col.N_DECODE), _ctl(col.DECODE_NEED), _ctl(col.FREE)
    n_running, n_waiting, n_prefill = _ctl(col.N_RUNNING), _ctl(col.N_WAITING), _ctl(col.N_PREFILL)

    def _walk(self, head, link):
        sid = self.ctl[head]
        while sid >= 0:
            yield self.seq(int(sid))
            sid = self.seq_rows[sid, link]

    @property
    def prefills(self):
        return [s for s in self._walk(col.PRE_HEAD, col.PNEXT) if not s.in_flight]

    @property
    def waiting(self):
        return self._walk(col.WAIT_HEAD, col.NEXT)

    @property
    def running(self):
        return [s for s in self._walk(col.RUN_HEAD, col.NEXT) if not s.in_flight]

    @property
    def held(self):
        rows = [(s.sid, s.n_prompt, s.n_known, s.n_computed, s.max_new, s.kv_blocks, s.phase) for s in self._walk(col.RUN_HEAD, col.NEXT)]
        return np.array(rows, np.int64).reshape(len(rows), 7)

    def seq(self, sid):
        return Seq(self, sid)

    def ledger(self):
        return self

    def need(self, sid, upto_tokens):
        s = self.seq(sid)
        held = s.n_reusable // self.limits.block_size if s.phase == WAITING else s.kv_blocks
        return max(0, -(-upto_tokens // self.limits.block_size) - held) + int(self.seq_rows[sid, col.IDLE_HITS])

    def reserve(self, sid, upto_tokens):
        """Nothing to remember: no two of these requests share a prefix."""
        return True


@dataclass
class Row:
    """A request in the making: tokens, and where it stands."""

    known: int
    computed: int = 0
    phase: int = WAITING
    blocks: int | None = None
    arrival: float = 0.0
    priority: int = 0
    prompt: int | None = None
    flight: bool = False
    hit_blocks: int = 0
    idle_blocks: int = 0
    max_new: int = 100


def build(running, waiting, *, free, size=4, total=None, stages=1, max_len=200, max_seqs=64):
    """Columns with these rows; running ones are numbered first, each list in order."""
    rows = [*running, *waiting]
    n = max(1, len(rows))
    seq, tim, ctl = np.zeros((n, col.SEQ_COLUMNS), np.int64), np.zeros((n, col.TIM_COLUMNS)), np.zeros(col.CTL_SIZE, np.int64)
    ctl[[col.WAIT_HEAD, col.RUN_HEAD, col.RUN_TAIL, col.PRE_HEAD]] = -1
    for sid, row in enumerate(rows):
        blocks = -(-row.computed // size) if row.blocks is None else row.blocks
        held = row.phase in (PREFILL, DECODE)
        seq[sid, [col.PROMPT, col.KNOWN, col.COMPUTED, col.PHASE]] = row.prompt or row.known, row.known, row.computed, row.phase
        seq[sid, [col.BLOCKS, col.PRIORITY, col.FLIGHT, col.MAX_NEW]] = blocks * held, row.priority, row.flight, row.max_new
        seq[sid, [col.REUSABLE, col.IDLE_HITS]] = row.hit_blocks * size, row.idle_blocks
        tim[sid, col.ARRIVED] = row.arrival
    ctl[[col.FREE, col.BLOCK_SIZE, col.STAGES, col.MAX_LEN, col.MAX_SEQS]] = free, size, stages, max_len, max_seqs
    ctl[col.TOTAL_BLOCKS] = total or free + int(seq[:, col.BLOCKS].sum())
    ctl[col.IN_FLIGHT] = any(row.flight for row in running)
    ctl[col.MAX_STEP_TOKENS], ctl[col.N_LAYERS] = 1 << 40, 16
    link(seq, ctl, list(range(len(running))), list(range(len(running), len(rows))))
    return seq, tim, ctl


def link(seq, ctl, running, waiting):
    """Thread the lists through the rows and count."""

    def thread(sids, head, after, before):
        for a, b in zip([-1, *sids], [*sids, -1], strict=True):
            if a < 0:
                ctl[head] = b
            else:
                seq[a, after] = b
            if b >= 0:
                seq[b, before] = a

    prefills = [sid for sid in running if seq[sid, col.PHASE] == PREFILL]
    decodes = [sid for sid in running if seq[sid, col.PHASE] == DECODE and not seq[sid, col.FLIGHT]]
    thread(running, col.RUN_HEAD, col.NEXT, col.PREV)
    thread(waiting, col.WAIT_HEAD, col.NEXT, col.PREV)
    thread(prefills, col.PRE_HEAD, col.PNEXT, col.PPREV)
    ctl[col.RUN_TAIL] = running[-1] if running else -1
    ctl[col.N_WAITING], ctl[col.N_RUNNING], ctl[col.N_PREFILL] = len(waiting), len(running), len(prefills)
    ctl[col.N_DECODE] = len(decodes)
    size = ctl[col.BLOCK_SIZE]
    ctl[col.DECODE_NEED] = sum(int(seq[s, col.COMPUTED] == seq[s, col.BLOCKS] * size) for s in decodes)


def order(ctl, seq, head):
    sids, sid = [], int(ctl[head])
    while sid >= 0:
        sids.append(sid)
        sid = int(seq[sid, col.NEXT])
    return sids


def evict(seq, ctl, sids):
    """What an engine does with the evictions of a plan (first come, first served; the last one named ends up first)."""
    running, waiting = order(ctl, seq, col.RUN_HEAD), order(ctl, seq, col.WAIT_HEAD)
    for sid in sids:
        running.remove(sid)
        waiting.insert(0, sid)
        ctl[col.FREE] += seq[sid, col.BLOCKS]
        seq[sid, [col.BLOCKS, col.COMPUTED, col.PHASE]] = 0, 0, WAITING
    link(seq, ctl, running, waiting)


def read_plan(out):
    """The plan that a twin has written."""
    at = col.HEADER
    lists = []
    for count in (out[col.N_EVICT], out[col.N_REJECT], out[col.N_PAUSE]):
        lists.append(tuple(int(v) for v in out[at : at + count]))
        at += int(count)
    work = []
    for _ in range(out[col.N_WORK]):
        sid, tokens, reserve, lo, hi = (int(v) for v in out[at : at + col.WORK_SIZE])
        work.append(Work(sid, tokens, reserve, (lo, hi) if hi else None))
        at += col.WORK_SIZE
    return StepPlan(tuple(work), bool(out[col.DECODE_FLAG]), *lists, bool(out[col.PADDED]), int(out[col.REPEAT]), int(out[col.WAKE]),
                    int(out[col.HEADROOM]))  # fmt: skip


def plain(plan):
    """Without what a plan that holds for one step does not promise, and with lists whose order says nothing as sets."""
    plan = plan._replace(pause=tuple(sorted(plan.pause)))
    return plan._replace(wake=0, headroom=0) if plan.repeat == 1 else plan


@st.composite
def states(draw, stages=(1, 1, 2), whole_prompts=False):
    """Columns of an engine in any state: short of memory or not, with unfinished prompts, steps in flight, evicted ones in the queue."""
    size = draw(st.sampled_from([4, 16]))
    pp = draw(st.sampled_from(stages))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    longest = int(rng.choice([10, 80]))
    running, waiting = [], []
    for _ in range(draw(st.integers(0, 8))):
        known = int(rng.integers(2, longest))
        prefill = rng.random() < 0.35
        computed = int(rng.integers(0, known - 1)) if prefill else known - 1
        if whole_prompts and prefill:
            computed = 0
        reserved = -(-known // size) if prefill else -(-computed // size)
        fewest = -(-computed // size)
        blocks = reserved if rng.random() < 0.5 else fewest
        running.append(Row(known, computed, PREFILL if prefill else DECODE, blocks, priority=int(rng.integers(0, 3)),
                           flight=pp > 1 and rng.random() < 0.4, arrival=float(rng.integers(0, 6))))  # fmt: skip
    for _ in range(draw(st.integers(0, 6))):
        known = int(rng.integers(1, longest))
        hits = int(rng.integers(0, (known - 1) // size + 1)) if rng.random() < 0.5 else 0
        waiting.append(Row(known, prompt=max(1, known - int(rng.integers(0, 5))), priority=int(rng.integers(0, 3)), hit_blocks=hits,
                           idle_blocks=int(rng.integers(0, hits + 1)), arrival=float(rng.integers(0, 6)),
                           max_new=int(rng.integers(1, 60))))  # fmt: skip
    free = int(rng.integers(0, draw(st.sampled_from([2, 6, 60])) + 1))
    held = sum(row.blocks for row in running)
    return build(running, waiting, free=free, size=size, total=max(1, free + held), stages=pp)
