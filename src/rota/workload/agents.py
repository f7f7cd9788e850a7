"""Multi-turn programs: agents that call tools between the turns of one growing conversation.

The prompt of a turn is all that was said before (prompt and output of the turn before) plus what the tool returned, so its
leading tokens can be reused; the next turn arrives when the answer is complete and the tool has run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rota.errors import InputError
from rota.workload.generators import HASH_BLOCK
from rota.workload.lengths import Spread
from rota.workload.prefix import ragged
from rota.workload.trace import Ints, Trace


class Tool(NamedTuple):
    """What a turn may call.

    Attributes
    ----------
    name : str
    share : float
        Of all calls; shares are relative to each other.
    time : Spread
        Seconds it runs.
    """

    name: str
    share: float
    time: Spread


@dataclass(frozen=True, slots=True)
class Agent:
    """A kind of program.

    Parameters
    ----------
    turns : Spread
        Turns of a program.
    first : Spread
        Tokens of the first prompt beyond `system`.
    result : Spread
        Tokens that a tool's result adds to the next prompt.
    output : Spread
        Tokens generated in a turn.
    tools : tuple of Tool
    system : int
        Tokens with which all programs begin.
    max_total : int
        A program ends before a turn whose prompt and output would exceed this many tokens.
    """

    turns: Spread = field(default=Spread.fixed(10))
    first: Spread = field(default=Spread.fixed(2000))
    result: Spread = field(default=Spread.fixed(500))
    output: Spread = field(default=Spread.fixed(200))
    tools: tuple[Tool, ...] = field(default=(Tool("tool", 1.0, Spread.fixed(1)),))
    system: int = 0
    max_total: int = 131072


#: Made up, not fitted: sizes after published descriptions of SWE-bench runs (some 18 turns that read and edit files, commands of
#: very different duration) and of web-search function calling as in BFCL v4 (few turns, long results, network latencies).
AGENTS = {
    "swe-agents": Agent(
        turns=Spread.lognormal(18, 32), first=Spread.lognormal(1200, 2400), result=Spread.lognormal(600, 2200),
        output=Spread.lognormal(180, 420), system=1504, max_total=65536,
        tools=(
            Tool("read", 0.4, Spread.lognormal(0.3, 0.6)), Tool("edit", 0.3, Spread.lognormal(0.5, 1.0)),
            Tool("shell", 0.2, Spread.lognormal(2.0, 6.0)), Tool("test", 0.1, Spread.lognormal(20.0, 60.0)),
        ),
    ),
    "bfcl-agents": Agent(
        turns=Spread.lognormal(6, 11), first=Spread.lognormal(300, 700), result=Spread.lognormal(1500, 4000),
        output=Spread.lognormal(120, 300), system=1008, max_total=32768,
        tools=(Tool("search", 0.6, Spread.lognormal(1.2, 2.5)), Tool("fetch", 0.4, Spread.lognormal(2.0, 6.0))),
    ),
}  # fmt: skip


def agents(programs: int = 250, rate: float = 0.1, agent: Agent | None = None, seed: int = 0, name: str = "agents") -> Trace:
    """Programs that begin as a Poisson process; their turns follow each other.

    Parameters
    ----------
    programs : int
    rate : float
        Programs that begin per second.
    agent : Agent, optional
        Default: ten turns of fixed sizes.
    seed : int
    name : str

    Returns
    -------
    Trace
        Program by program, with `program`, `tool`, `tools`, `after` and `delay`. `hash_ids` cover prompts and outputs.

    Raises
    ------
    InputError
        If an option makes no sense.
    """
    agent = Agent() if agent is None else agent
    if programs < 1:
        raise InputError(f"programs must be at least 1, not {programs}")
    if not 0 < rate < math.inf:
        raise InputError(f"rate must be a positive number of programs per second, not {rate:g}")
    if seed < 0:
        raise InputError(f"seed must not be negative ({seed})")
    if agent.system < 0 or agent.max_total < 1 or not agent.tools or any(t.share < 0 for t in agent.tools):
        raise InputError("an agent needs a tool, shares and system of at least 0, and a positive max_total")
    rng = np.random.default_rng(seed)
    begin = np.cumsum(rng.exponential(1.0 / rate, programs))
    program, turn = ragged(agent.turns.tokens(rng, programs))
    n = len(program)
    output = agent.output.tokens(rng, n)
    added = np.where(turn == 0, agent.system + agent.first.tokens(rng, programs)[program], agent.result.tokens(rng, n))
    said = np.cumsum(added + output)
    opening = np.flatnonzero(turn == 0)
    before = (said - added - output)[opening][program]
    prompt = said - output - before
    share = np.array([tool.share for tool in agent.tools])
    which = rng.choice(len(share), n, p=share / share.sum())
    times = np.stack([tool.time.draw(rng, n) for tool in agent.tools])[which, np.arange(n)]
    fits = prompt + output <= agent.max_total
    if not fits[opening].all():
        raise InputError(f"some first turns exceed max_total={agent.max_total} tokens; raise it, or shorten system and first")
    program, turn, prompt, output = program[fits], turn[fits], prompt[fits], output[fits]
    which, times = which[fits], times[fits]
    rows = np.arange(len(program))
    # a row's tool and time are drawn with it, but it is the turn before that calls the tool
    tool = np.where(np.append(turn[1:], 0) > 0, np.roll(which, -1), -1)
    ids, start = _streams(program, prompt + output, agent.system // HASH_BLOCK)
    return Trace(
        arrival=begin[program], prompt=prompt, output=output, program=program, tool=tool,
        after=np.where(turn == 0, -1, rows - 1), delay=np.where(turn == 0, 0.0, times), hash_ids=ids, hash_start=start,
        hash_block=HASH_BLOCK, tools=tuple(tool.name for tool in agent.tools), name=name,
        source=f"generated: {programs} agent programs, Poisson, rate {rate:g} programs/s, seed {seed}",
    )  # fmt: skip


def _streams(program: Ints, tokens: Ints, system: int) -> tuple[Ints, Ints]:
    """Hash ids where every program is one stream of tokens, of which each turn covers a longer part; `system` runs are common."""
    runs = -(-tokens // HASH_BLOCK)
    row, at = ragged(runs)
    longest = np.zeros(int(program.max()) + 1, np.int64)
    np.maximum.at(longest, program, runs)
    base = system + np.cumsum(longest) - longest
    return np.where(at < system, at, base[program[row]] + at), np.concatenate([[0], np.cumsum(runs)])
