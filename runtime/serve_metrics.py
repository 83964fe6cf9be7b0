"""What ``/metrics`` tells, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds


class Metrics:
    """Counters in a registry of their own, so that two servers in one process do not add up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("edgerec_requests", "Answered requests.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "edgerec_request_seconds", "From request to answer.", ["path"], registry=self.registry, buckets=BUCKETS
        )
        self.running = Gauge("edgerec_requests_running", "Requests without an answer yet.", registry=self.registry)
        self.swaps = Counter("edgerec_swaps", "New files, taken or refused.", ["taken"], registry=self.registry)

    def swapped(self, taken: bool) -> None:
        """Count a new file."""
        self.swaps.labels(str(taken).lower()).inc()
