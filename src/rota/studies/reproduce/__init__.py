"""Published claims, checked: `STUDIES` lists them, each with the experiment that `rota reproduce NAME` runs."""

from __future__ import annotations

import difflib
from importlib import import_module

from rota.errors import InputError
from rota.studies.reproduce.claim import Options, Reference, Report, Study

__all__ = ["JOB_SHOPS", "STUDIES", "Options", "Report", "Study", "study"]


#: Published job shops, which several take.
JOB_SHOPS = Reference("shop/jobshop", "classic.jsonl")


def _study(name: str, title: str, source: str, reference: Reference | None = None) -> Study:
    def experiment(options: Options) -> Report:
        report: Report = import_module(f"rota.studies.reproduce.{name.replace('-', '_')}").run(options)
        return report

    return Study(name, title, source, experiment, reference)


STUDIES = {
    s.name: s
    for s in (
        _study("sarathi", "Sarathi-Serve: capacity under a token-gap objective; cost of chunks", "Agrawal et al., OSDI 2024"),
        _study("layered-prefill", "Layered prefill: TTFT, latency, energy and expert traffic", "Lee et al., arXiv 2510.08055, 2025"),
        _study("flover", "Flover: temporal fusion against one request at a time, and against batches", "Yao et al., HiPC 2023"),
        _study("speak-while-watching", "Speak While Watching: watching and speaking at once, in time", "Speak While Watching, January 2026"),
        _study("past-future", "Past-Future: admission by sampled output lengths against bold, timid and all-knowing", "Gong et al., ASPLOS 2025"),
        _study("vtc", "Virtual token counter: bounded service difference between tenants, at no cost", "Sheng et al., OSDI 2024"),
        _study("continuum", "Continuum: job completion times of agents with KV held between turns", "Li et al., arXiv 2511.02230, 2025"),
        _study("batchllm", "BatchLLM: time of offline jobs, and what each part gives", "Zheng et al., MLSys 2026"),
        _study("apex", "APEX: tokens per second when the host computes part of decode attention", "Fan et al., IPDPS 2026, arXiv 2506.03296"),
        _study("smtt", "EDDC and MDDC: rules for total tardiness found by search, against the known ones", "Discovering Heuristics with LLMs, 2025",
               Reference("shop/tardiness", "n20_uniform.jsonl")),
        _study("isbjssp", "Blocking job shops with swaps and interruptions: fixed rules, the bar for learned ones", "ISBJSSP, February 2023",
               JOB_SHOPS),
        _study("jobshopcprl", "Job shops ordered instant by instant over propagated bounds: rules, the bar for learned orderings",
               "Tassel et al., ICAPS 2023", JOB_SHOPS),
        _study("glass-robots", "Transfer robots in cells for glass: rules, known cycle times, the bar for a learned policy",
               "Reinforcement Learning of Display Transfer Robots in Glass Flow Control Systems, October 2023"),
        _study("r-constraintbench", "R-ConstraintBench: where planners stop keeping every constraint", "R-ConstraintBench, August 2025"),
        _study("quantum-network", "Multi-user quantum network: throughput, jitter and fidelity", "Skrzypczyk and Wehner, arXiv 2111.13124, 2021",
               Reference("shop/quantum", "nv_link_capabilities.json")),
        _study("deepsocs", "DeepSoCS: task graphs online on a chip, rules that a learned order is up against", "DeepSoCS, May 2020",
               Reference("shop/dag", "soc_top.json")),
        _study("vidur-parity", "The simulator equals Vidur request by request", "Agrawal et al., Vidur, MLSys 2024",
               Reference("fidelity/vidur", "optables_ms_exact.npz")),
    )
}  # fmt: skip


def study(name: str) -> Study:
    """The study of that name, or an `InputError` that lists them."""
    if name not in STUDIES:
        near = difflib.get_close_matches(name, STUDIES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"unknown claim {name!r}; {hint}choose from {', '.join(STUDIES)}")
    return STUDIES[name]
