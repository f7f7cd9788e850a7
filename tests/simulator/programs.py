"""Random small problems of programs: turns that follow each other, with shared prefixes, in tight memory."""

from hypothesis import strategies as st

from rota.cost.engine import EngineSpec
from rota.workload.agents import Agent, Tool, agents
from rota.workload.lengths import Spread
from tests.simulator.scenarios import tables


@st.composite
def problems(draw):
    """Programs with two tools, and an engine that can hold little more than the longest turn, perhaps with copies in host memory."""
    tools = (Tool("quick", 2, Spread.lognormal(0.01, 0.03)), Tool("slow", 1, Spread.lognormal(0.1, 0.5)))
    kind = Agent(
        Spread.uniform(1, draw(st.sampled_from([3, 8]))), Spread.uniform(1, 30), Spread.uniform(0, 12), Spread.uniform(1, 9), tools,
        system=draw(st.sampled_from([0, 16])), max_total=150,
    )  # fmt: skip
    trace = agents(draw(st.integers(1, 12)), draw(st.sampled_from([2.0, 20.0, 500.0])), kind, seed=draw(st.integers(0, 10**6)))
    pp = draw(st.sampled_from([1, 1, 1, 2]))
    size = draw(st.sampled_from([4, 8, 16]))
    need = int((trace.prompt + trace.output).max()) // size + 3
    blocks = (7 if pp > 1 else 1) * need + draw(st.sampled_from([0, 2, 10, 100]))
    copies = draw(st.sampled_from([0, 0, 2, 40]))
    return trace, EngineSpec(
        tables=tables(draw, pp), blocks=blocks, block_size=size, max_len=160, pp=pp, offload_blocks=copies, reload=1.9e-5
    )
