"""The trace formats that Rota reads, as data: which column names tell a format, and what its columns mean.

Names are compared in lower case with spaces and dashes as underscores. To read another format, add a line here.

The plain format, for traces of your own, has one row per request, in CSV, JSON lines or Parquet:

``arrival`` (or ``arrival_s``)
    Seconds, or dates with times; ascending. Without this column a rate must be given.
``prompt``, ``output`` (or ``prompt_tokens``, ``output_tokens``)
    Tokens, at least 1.
``max_new``, ``estimate``, ``priority``, ``tenant``
    Optional: the declared limit on output tokens; output tokens expected; smaller runs first; index of the tenant.
``program``, ``tool``
    Optional: number or name of the program (agent session) that the request is a turn of, turns in order; and what its answer
    calls, a name or a number. Both empty or -1 for none.
``after``, ``delay``
    Optional: number of the row (from 0, earlier than this one) whose completion this request waits for, or -1 or nothing; and
    the seconds from then on. The arrival of such a request may be left empty.
``hash_ids``, ``hash_block``
    Optional: identities of consecutive runs of `hash_block` tokens, covering the prompt at least (in CSV: separated by spaces).
    Requests with equal leading ids have equal leading tokens.

An agent trace, of programs that call tools between their turns, is JSON lines, with one line per program::

    {"arrival": 0.5, "turns": [{"new": 2700, "output": 150, "tool": "shell", "gap": 2.1}, {"new": 600, "output": 90}]}

or one line per turn, the turns of a program in order (those of different programs may alternate)::

    {"program": "a", "arrival": 0.5, "new": 2700, "output": 150, "tool": "shell", "gap": 2.1}
    {"program": "a", "new": 600, "output": 90, "gap": null}

``new`` (or ``new_tokens``)
    Tokens that the turn adds to all that was said before, the result of the tool for example; the first turn's whole prompt. Or:
``prompt`` (or ``prompt_tokens``)
    The whole prompt. Where it is shorter than what was said before, only the prompt of the turn before is taken to be shared; where
    it is shorter than even that, the history was rewritten, and only the system tokens are.
``output`` (or ``output_tokens``)
    Tokens of the answer.
``tool``, ``gap`` (or ``gap_s``)
    What the answer calls (default: "tool"), and seconds from its end to the arrival of the next turn. Of no account in a last turn.
``arrival`` (or ``arrival_s``)
    Seconds at which the program begins; on the line of its first turn. Without any, a rate must be given.
``system`` (or ``system_tokens``)
    Optional, beside it: leading tokens that all programs have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rota.errors import InputError

SECONDS, MILLISECONDS = 1.0, 1e-3
PLAIN_OPTIONAL = ("max_new", "estimate", "priority", "tenant", "program", "tool", "after", "delay", "hash_ids", "hash_block")


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Parameters
    ----------
    name : str
        For people.
    prompt, output : tuple of str
        Accepted names of the columns with prompt and output tokens.
    arrival : tuple of str
        Accepted names of the column with arrival times (numbers, or dates with times).
    unit : float
        Seconds per unit of numeric arrival times.
    needs : tuple of str
        Further columns that tell this format from others.
    optional : dict
        Other columns: name in the file to name in `Trace` (``hash_ids`` and ``hash_block`` included).
    hash_block : int
        Tokens per hash id; 0 if the file says so itself.
    arrivals_required : bool
        False if the format may come without arrival times; a rate must then be given.
    """

    name: str
    prompt: tuple[str, ...]
    output: tuple[str, ...]
    arrival: tuple[str, ...]
    unit: float = SECONDS
    needs: tuple[str, ...] = ()
    optional: Mapping[str, str] = field(default_factory=dict)
    hash_block: int = 0
    arrivals_required: bool = True

    def fits(self, columns: Sequence[str]) -> bool:
        """Whether a file with these columns is of this format."""
        groups = [self.prompt, self.output, *((name,) for name in self.needs)]
        groups += [self.arrival] if self.arrivals_required else []
        return all(any(name in columns for name in group) for group in groups)


PLAIN = Format(
    "plain",
    prompt=("prompt", "prompt_tokens"),
    output=("output", "output_tokens"),
    arrival=("arrival", "arrival_s"),
    optional={name: name for name in PLAIN_OPTIONAL},
    arrivals_required=False,
)

FORMATS = (
    Format("Azure LLM inference", ("contexttokens",), ("generatedtokens",), ("timestamp",)),
    Format(
        "Mooncake", ("input_length",), ("output_length",), ("timestamp",), MILLISECONDS, optional={"hash_ids": "hash_ids"},
        hash_block=512,
    ),
    Format("BurstGPT", ("request_tokens",), ("response_tokens",), ("timestamp",)),
    Format("Vidur", ("num_prefill_tokens",), ("num_decode_tokens",), ("arrived_at",), arrivals_required=False),
    PLAIN,
)  # fmt: skip


#: What agent traces call things.
AGENT_NAMES = {
    name: (name, *others)
    for name, *others in (
        ("new", "new_tokens"), ("prompt", "prompt_tokens"), ("output", "output_tokens"), ("tool",), ("gap", "gap_s"),
        ("arrival", "arrival_s"), ("system", "system_tokens"), ("program",), ("turns",),
    )
}  # fmt: skip


def is_agent_trace(columns: Iterable[str]) -> bool:
    """Whether the first line of a file with these (normalised) names is one of an agent trace."""
    known = set(columns)
    return "turns" in known or ("program" in known and not known.isdisjoint(AGENT_NAMES["gap"]))


def normalised(column: str) -> str:
    """A column name as formats spell it."""
    return column.strip().strip('"').lower().replace(" ", "_").replace("-", "_")


def detect(columns: Sequence[str], where: str) -> Format:
    """The format of a file with these (normalised) columns.

    Raises
    ------
    InputError
        If no format has them; names what was found and what is missing from the nearest format.
    """
    for known in FORMATS:
        if known.fits(columns):
            return known
    nearest = max(FORMATS, key=lambda f: sum(any(n in columns for n in group) for group in (f.prompt, f.output, f.arrival)))
    if not any(name in columns for name in (*nearest.prompt, *nearest.output)):
        nearest = PLAIN
    groups = (nearest.arrival, nearest.prompt, nearest.output)
    missing = [group[0] for group in groups if not any(name in columns for name in group)]
    found = ", ".join(columns) if columns else "none"
    raise InputError(
        f"{where}: missing column {' and '.join(missing)} for the {nearest.name} format; found columns: {found}. "
        "A plain trace has a header line with arrival (seconds), prompt and output (tokens)"
    )
