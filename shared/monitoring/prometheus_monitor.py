"""The monitor that counts for Prometheus: every counter and histogram there is.

Labels have few values, all known before: types, states, methods, codes. No ids
and no addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from shared.operations.model import FreshnessSource, OperationStatus, OperationType

PREFIX = "ktrdr_"
SOURCES = {FreshnessSource.BRIDGE: "local", FreshnessSource.REMOTE: "remote"}
"""Where an open operation can be read."""
_QUICK = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
_SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_CALLS = (*_QUICK, *_SLOW, 30.0, 60.0)
_WAITS = (0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0, 60.0, 300.0, 600.0)
_SIZES = (0, 256, 1024, 4096, 16384, 65536, 262144, 1048576)


class PrometheusMonitor:
    """Counts in a registry of its own, in which others may put what they tell at a scrape."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped there
        self.registry = CollectorRegistry()
        self._created = self._by_type("operations_created", "Operations created.")
        self._ended = self._by_ending("operations_ended", "Operations that were seen to end.")
        self._hits = self._by_type(
            "cache_hits", "Queries of open operations answered with what was known."
        )
        self._misses = self._by_type(
            "cache_misses", "Queries of open operations that had to read, or shared a read."
        )
        durations = self._histogram(
            "refresh_duration_seconds", "Time to read an open operation.", _QUICK + _SLOW, "source"
        )
        failures = self._counter(
            "refresh_failures", "Reads of open operations that did not succeed.", "source"
        )
        self._durations = {source: durations.labels(name) for source, name in SOURCES.items()}
        self._failures = {source: failures.labels(name) for source, name in SOURCES.items()}
        self._pulls = self._histogram(
            "metrics_pull_bytes", "Size of the metrics in answers that may carry them.", _SIZES
        )
        self._waits = self._histogram(
            "ib_pacing_wait_seconds", "Time requests to IB waited for their turn.", _WAITS
        )
        self._calls = self._counter("rpc_calls", "Calls served.", "method", "code")
        self._latencies = self._histogram(
            "rpc_duration_seconds", "Time a thread served a call.", _CALLS, "method"
        )
        self._shed = self._counter(
            "rpc_shed", "Calls turned away because too many were served or waited.", "class"
        )
        # What `labels` costs is saved on every call. Not guarded: both children
        # of two threads that are there at once are the same.
        self._call_children: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    # With children made at once, each series is there from the start, at 0.

    def _by_type(self, name: str, text: str) -> Mapping[OperationType, Counter]:
        counter = self._counter(name, text, "type")
        return {type_: counter.labels(type_.value) for type_ in OperationType}

    def _by_ending(
        self, name: str, text: str
    ) -> Mapping[tuple[OperationType, OperationStatus], Counter]:
        counter = self._counter(name, text, "type", "status")
        return {
            (type_, status): counter.labels(type_.value, status.value)
            for type_ in OperationType
            for status in OperationStatus
            if status.terminal
        }

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(PREFIX + name, text, labels, registry=self.registry, buckets=buckets)

    def hit_ratio(self, type_: OperationType) -> float | None:
        """Share of the queries that were hits, since the start; None if there were none."""
        hits, misses = _value(self._hits[type_]), _value(self._misses[type_])
        return hits / (hits + misses) if hits + misses else None

    # ------------------------------------------------------------- operations

    def created(self, type_: OperationType, /) -> None:
        """Count an operation that was created."""
        self._created[type_].inc()

    def ended(self, type_: OperationType, status: OperationStatus, /) -> None:
        """Count an operation that has ended."""
        self._ended[type_, status].inc()

    def hit(self, type_: OperationType, /) -> None:
        """Count a query that needed no read."""
        self._hits[type_].inc()

    def missed(self, type_: OperationType, /) -> None:
        """Count a query that needed a read."""
        self._misses[type_].inc()

    def refreshed(self, source: FreshnessSource, seconds: float, /, *, failed: bool) -> None:
        """Count a read and its time."""
        self._durations[source].observe(seconds)
        if failed:
            self._failures[source].inc()

    def pulled(self, size: Callable[[], int], /) -> None:
        """Count an answer with metrics and their bytes."""
        self._pulls.observe(size())

    # ------------------------------------------------------------------ calls

    def called(self, method: str, code: str, seconds: float, /) -> None:
        """Count a call and its time."""
        key = (method, code)
        children = self._call_children.get(key)
        if children is None:
            children = self._calls.labels(method, code), self._latencies.labels(method)
            self._call_children[key] = children
        count, latency = children
        count.inc()
        latency.observe(seconds)

    def shed(self, class_: str, /) -> None:
        """Count a call that was turned away."""
        self._shed.labels(class_).inc()

    # --------------------------------------------------------------------- IB

    def paced(self, seconds: float, /) -> None:
        """Count a wait and its time."""
        self._waits.observe(seconds)


def _value(counter: Counter) -> float:
    """What a counter has come to."""
    (family,) = counter.collect()
    return float(family.samples[0].value)
