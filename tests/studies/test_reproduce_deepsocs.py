"""The DeepSoCS study: verdicts of a quick run, and the published graphs in place of made-up ones."""

from pathlib import Path

from rota.studies.reproduce.claim import NEEDS_TRAINING, REPRODUCED, Options
from rota.studies.reproduce.deepsocs import RULES, alone, run
from rota.workload.shop.task_graphs import read_graphs


def test_verdicts_of_a_quick_run():
    report = run(Options(seeds=1, quick=True))
    verdicts = [finding.verdict for finding in report.findings]
    assert verdicts[:2] == [REPRODUCED, REPRODUCED]
    assert verdicts[-1] == NEEDS_TRAINING
    assert [row["rule"] for row in report.tables[0].rows] == list(RULES)


def test_heft_on_the_published_graph(shared: Path):
    assert alone(read_graphs(shared / "data" / "shop" / "dag")[0], "HEFT").makespan == 80
