"""The R-ConstraintBench study: the verdicts of a quick run."""

from rota.studies.reproduce.claim import NEEDS_DATA, NOT, REPRODUCED, Options
from rota.studies.reproduce.r_constraintbench import run


def test_verdicts_of_a_quick_run():
    report = run(Options(seeds=1, quick=True))
    verdicts = {finding.claim: finding.verdict for finding in report.findings}
    assert verdicts["Every problem has a schedule"] == REPRODUCED
    assert verdicts["An exact solver finds one"] == REPRODUCED
    assert verdicts["A right answer is not lost in reading"] == REPRODUCED
    assert [v for claim, v in verdicts.items() if "rules that do not go back" in claim] == [REPRODUCED]
    assert [v for claim, v in verdicts.items() if "bookkeeping errors" in claim] == [NOT]
    assert [v for claim, v in verdicts.items() if "language models" in claim] == [NEEDS_DATA]
