"""Checking of policy options, with messages that say what is allowed."""

from __future__ import annotations

from rota.errors import InputError


def whole(policy: str, option: str, value: object, least: int = 1) -> int:
    """`value` as an integer of at least `least`, or an `InputError` that names policy and option."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < least:
        raise InputError(f"{policy}: {option} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def fraction(policy: str, option: str, value: object) -> float:
    """`value` as a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise InputError(f"{policy}: {option} must be at least 0 and below 1, not {value!r}")
    return float(value)


def budget_covers_seats(policy: str, max_num_batched_tokens: int, max_num_seqs: int) -> None:
    """Every running sequence must be able to decode in every step."""
    if max_num_batched_tokens < max_num_seqs:
        raise InputError(
            f"{policy}: max_num_batched_tokens ({max_num_batched_tokens}) is smaller than max_num_seqs ({max_num_seqs}), so not every running "
            f"sequence could decode in a step; raise the first or lower the second"
        )
