"""Damaged files: whatever is cut, doubled or replaced, a file is read or refused with one line, and nothing else happens."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from rota.contracts.shop import Problem
from rota.errors import RotaError
from rota.workload.shop.form import problem_to
from rota.workload.shop.load import FORMATS, load_problem
from tests.shop import texts
from tests.shop.random_problems import random_problem
from tests.shop.test_load import DURATIONS, FLEXIBLE, JOBS

SOUND = {
    "jobshop": texts.classic(JOBS, 3),
    "taillard": texts.taillard(JOBS, 3),
    "fjsp": texts.fjs(FLEXIBLE, 3),
    "openshop": texts.open_shop(DURATIONS),
    "psplib": texts.psplib([[1], [2], []], [[(0, [0, 0])], [(3, [1, 2]), (4, [2, 0])], [(0, [0, 0])]], [3, 9], "RN"),
    "progen-max": texts.progen_max([0, 3, 4, 0], [[0], [1], [1], [0]], [2], [(0, 1, 0), (1, 2, 2), (2, 1, -9), (2, 3, 4)]),
    "wt": texts.weighted_tardiness([([3, 4], [1, 2], [5, 6])] * 125),
    "csv": "job,duration,due_date,weight\na,5,9,2\nb,3,4,1\n",
    "json": json.dumps(problem_to(random_problem(random.Random(3), n=4)), indent=1),
    "jsonl": '{"name": "a", "p": [1, 2], "d": [3, 4]}\n{"name": "b", "machines": 2, "ops": [[[0, 1], [1, 2]]]}\n',
}
JUNK = (
    "x",
    "-1",
    "0",
    "99999999999999999999",
    "1.5",
    "1e400",
    "nan",
    "[",
    "}",
    '"',
    "null",
    "\x00",
    "#",
    "ü",
    "[[]]",
    "{}",
    "true",
)


#: What is not wrong in one line; anything else names its line.
WHOLE = ("the file is empty", "is one instance", "holds 125 instances", "no resource can hold", "cyclic", "contradict")


def damaged(rng: random.Random, text: str) -> str:
    """One to three edits."""
    for _ in range(rng.randint(1, 3)):
        lines = text.split("\n")
        k = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                text = text[: rng.randrange(len(text) + 1)]
            case 1:
                del lines[k]
                text = "\n".join(lines)
            case 2:
                text = "\n".join([*lines[: k + 1], lines[k], *lines[k + 1 :]])
            case 3:
                words = lines[k].replace(",", " , ").split()
                if words:
                    words[rng.randrange(len(words))] = rng.choice(JUNK)
                lines[k] = " ".join(words)
                text = "\n".join(lines)
            case _:
                at = rng.randrange(len(text) + 1)
                text = text[:at] + rng.choice(JUNK) + text[at + rng.randint(0, 3) :]
    return text


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_but_a_problem_or_one_line(format: str, tmp_path: Path) -> None:
    rng = random.Random(format)
    path = tmp_path / "file.txt"
    seen: Counter[bool] = Counter()
    for k in range(400):
        path.write_text(damaged(rng, SOUND[format]) if k else SOUND[format], encoding="utf-8")
        where = f"{path}#{rng.choice(['1', 'a', 'b'])}" if format in ("wt", "jsonl") else path
        refusal = _refusal(where, format if rng.random() < 0.3 else None)
        assert "\n" not in refusal
        assert not refusal or refusal.startswith(f"{path}:")
        if format not in ("json", "jsonl") and not any(whole in refusal for whole in WHOLE):
            assert not refusal or re.match(rf"{path}:\d+: ", refusal)
        seen[not refusal] += 1
    assert seen[False] > 50


def _refusal(where: str | Path, format: str | None) -> str:
    try:
        assert isinstance(load_problem(where, format=format), Problem)
    except RotaError as error:
        return str(error)
    return ""
