"""The known ways to put a step together: which tokens share it, and how much memory an admission takes."""

from __future__ import annotations

from typing import NamedTuple


class Composition(NamedTuple):
    """How a step is put together.

    Attributes
    ----------
    hybrid : bool
        Prompts share a step with decodes; otherwise prompts go first, in steps of their own.
    chunked : bool
        A prompt may advance by a part of its tokens.
    reserve : str
        Memory taken at admission: of the whole ``"prompt"``, or of the ``"chunk"`` that runs now.
    tokens : int
        Default token budget of a step; 0 for none.
    seqs : int
        Default of most sequences held.
    """

    hybrid: bool
    chunked: bool
    reserve: str
    tokens: int
    seqs: int


COMPOSITIONS = {
    "sarathi": Composition(True, True, "prompt", 512, 128),
    "orca-paged": Composition(True, False, "prompt", 0, 128),
    "vllm-v0": Composition(False, False, "prompt", 0, 256),
    "vllm-v1": Composition(True, True, "chunk", 2048, 256),
}
