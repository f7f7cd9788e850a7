import pytest

from rota.results.comparison import Comparison
from rota.results.slo import SLO
from tests.results.fifo import fifo_run


def replicated(label, **options):
    return [fifo_run(150, seed=seed, rate=0.3, policy=label, **options) for seed in range(4)]


@pytest.fixture(scope="session")
def comparison():
    runs = {
        "stalls <b>": replicated("stalls <b>", stall=0.4),
        "steady": replicated("steady"),
        "twin": replicated("twin"),
    }
    return Comparison.of(
        runs,
        SLO.parse("ttft=5,tbt=0.1"),
        trace={"name": "closed </script><script>alert(1)</script>", "requests": 150},
        conditions={"command": "rota compare 'a&b.csv'", "cost": {"error": {"linear": 0.05}}, "seed": 7},
        frontier=[
            {
                "policy": "steady",
                "parameter": "max_num_batched_tokens",
                "value": v,
                "ttft_p99": 500 / v,
                "tbt_p99": 0.02 + v * 1e-4,
            }
            for v in (256, 512, 1024)
        ],
    )
