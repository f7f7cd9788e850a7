"""What the server counts, under vLLM's names where vLLM has one, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from rota.mechanisms.engine import Output, Stats
    from rota.mechanisms.server.thread import EngineThread, Ticket

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SHORT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)
_GAPS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_LONG = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0)
_COUNTS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))


class Metrics:
    """Counters and histograms of one server.

    Parameters
    ----------
    model : str
        The label ``model_name``.
    """

    def __init__(self, model: str) -> None:
        self._registry = CollectorRegistry()
        self._label = (model,)
        self._ttft = self._histogram("vllm:time_to_first_token_seconds", "Arrival until first token.", _SHORT)
        self._gap = self._histogram("vllm:inter_token_latency_seconds", "Between two tokens of an answer.", _GAPS)
        self._tpot = self._histogram("vllm:request_time_per_output_token_seconds", "Mean gap between tokens, by request.", _GAPS)
        self._e2e = self._histogram("vllm:e2e_request_latency_seconds", "Arrival until last token.", _LONG)
        self._queue = self._histogram("vllm:request_queue_time_seconds", "Arrival until first scheduled.", _LONG)
        self._prefill = self._histogram("vllm:request_prefill_time_seconds", "First scheduled until first token.", _LONG)
        self._decode = self._histogram("vllm:request_decode_time_seconds", "First token until last.", _LONG)
        self._prompt = self._histogram("vllm:request_prompt_tokens", "Prompt tokens, by request.", _COUNTS)
        self._generated = self._histogram("vllm:request_generation_tokens", "Generated tokens, by request.", _COUNTS)
        self._ended = Counter(
            "vllm:request_success", "Requests that ended, by reason.", ("model_name", "finished_reason"), registry=self._registry
        )
        self._http = Counter("rota:http_requests", "HTTP requests, by path and status.", ("path", "status"), registry=self._registry)

    def watch(self, thread: EngineThread) -> None:
        """Also show what the engine itself counts."""
        self._registry.register(_EngineCollector(thread, self._label))

    def observe(self, ticket: Ticket, output: Output, now: float) -> None:
        """Take in an output; `ticket` is as before it."""
        if output.token >= 0:
            if ticket.n_tokens == 0:
                self._ttft.observe(now - ticket.submitted)
            else:
                self._gap.observe(now - ticket.last_token)
        if output.finish is not None:
            self._end(ticket, output, now)

    def _end(self, ticket: Ticket, output: Output, now: float) -> None:
        reason = {"cancelled": "abort", "rejected": "error"}.get(output.finish or "", output.finish)
        self._ended.labels(*self._label, reason).inc()
        if output.token < 0:
            return
        tokens, first = ticket.n_tokens + 1, ticket.first_token if ticket.n_tokens else now
        self._prompt.observe(len(ticket.prompt))
        self._generated.observe(tokens)
        self._e2e.observe(now - ticket.submitted)
        self._decode.observe(now - first)
        if tokens > 1:
            self._tpot.observe((now - first) / (tokens - 1))
        if ticket.seq is not None:
            queued = ticket.seq.first_scheduled - ticket.seq.arrival
            self._queue.observe(queued)
            self._prefill.observe(max(0.0, first - ticket.submitted - queued))

    def http(self, path: str, status: int) -> None:
        """Count an HTTP answer."""
        self._http.labels(path, str(status)).inc()

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        text: bytes = generate_latest(self._registry)
        return text

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        made = Histogram(name, about, ("model_name",), buckets=buckets, registry=self._registry)
        return made.labels(*self._label)


class _EngineCollector(Collector):
    """The engine's own counters, read when they are asked for."""

    def __init__(self, thread: EngineThread, label: tuple[str, ...]) -> None:
        self._thread, self._label = thread, label

    def collect(self) -> Iterator[Metric]:
        stats: Stats = self._thread.stats
        used = (stats.blocks - stats.free_blocks) / stats.blocks
        for name, about, value in (
            ("vllm:num_requests_running", "Requests held by the engine.", stats.n_running),
            ("vllm:num_requests_waiting", "Requests in the queue, other than swapped ones.", stats.n_waiting - stats.n_swapped),
            ("vllm:num_requests_swapped", "Requests in the queue whose KV is in host memory.", stats.n_swapped),
            ("vllm:kv_cache_usage_perc", "Share of KV blocks in use (0-1).", used),
        ):
            gauge = GaugeMetricFamily(name, about, labels=("model_name",))
            gauge.add_metric(self._label, value)
            yield gauge
        for name, about, value in (
            ("vllm:num_preemptions", "Preemptions.", stats.preemptions),
            ("vllm:prompt_tokens", "Prompt tokens of requests with a first token.", stats.prompt_tokens),
            ("vllm:generation_tokens", "Generated tokens.", stats.generated_tokens),
            ("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", stats.prompt_tokens),
            ("vllm:prefix_cache_hits", "Prompt tokens found there.", stats.cached_tokens),
            ("rota:engine_steps", "Steps of the engine.", stats.steps),
        ):
            counter = CounterMetricFamily(name, about, labels=("model_name",))
            counter.add_metric(self._label, value)
            yield counter
