"""The few kinds of error Rota raises. Every message says what is wrong, where, and what to do about it."""

from __future__ import annotations

import pickle
import traceback


class RotaError(Exception):
    """Base of all errors caused by what the user gave; the command line prints it as one line and exits with 2."""


class InputError(RotaError):
    """A file, a row, an option or a name that cannot be used."""


class InfeasibleProblem(InputError):
    """A scheduling problem that no schedule can satisfy; the message names what contradicts what."""


class DoesNotFit(RotaError):
    """The model, or not even one request's KV cache, fits the memory; the message carries the arithmetic."""


class UnsupportedPolicy(RotaError):
    """A policy needs a capability that the mechanism does not offer."""


class PlanRejected(RotaError):
    """A policy returned a plan that breaks an executor rule.

    Parameters
    ----------
    rule : str
        Name of the broken rule, "I1" to "I9" (see `rota.contracts.serving`).
    detail : str
        What was wrong with which sequence.
    """

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"plan rejected by rule {rule}: {detail}")
        self.rule = rule


def portable(error: Exception) -> Exception:
    """The error with where it arose, or a plain one if it does not survive pickling, as those with own constructors do not."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RotaError(str(error)) if isinstance(error, RotaError) else RuntimeError(error.__notes__[-1])
    return error
