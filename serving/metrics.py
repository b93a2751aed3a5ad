"""What a server measures, for Prometheus: `GET /metrics`."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from .catalogue import Catalogue

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counts of this process; `shared` where several count into files of one folder.

    That folder is PROMETHEUS_MULTIPROC_DIR, which prometheus_client reads when it is imported.
    """

    def __init__(self, shared: bool = False):
        self._shared = shared
        self._registry = CollectorRegistry()
        here = self._registry
        self._requests = Counter("serving_requests", "Requests by what became of them.",
                                 ("model", "verb", "status"), registry=here)
        self._latency = Histogram("serving_request_seconds", "From a request's head to the last "
                                  "byte of its answer.", ("model", "verb"), buckets=_SECONDS,
                                  registry=here)
        self._stages = Histogram("serving_stage_seconds", "Time that a request waits (queue), and "
                                 "of each call for requests together: tokenize, infer, decode.",
                                 ("model", "stage"), buckets=_SECONDS, registry=here)
        self._batch = Histogram("serving_batch_texts", "Texts, or rows of token ids, that a call "
                                "answers.", ("model",), buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
                                registry=here)
        self._versions = Gauge("serving_version_available", "1 for a version that answers.",
                               ("model", "version"), multiprocess_mode="livemax", registry=here)
        self._drift = Gauge("serving_input_drift", "How unlike the last 1,000 texts are to those "
                            "of the version's test, in tokens, unknown pieces and confidence: "
                            "population stability index, of several processes the largest.",
                            ("model", "version", "measure"), multiprocess_mode="livemax",
                            registry=here)
        self._waiting = Gauge("serving_waiting_texts", "Texts in the queues, when last asked.",
                              ("model",), multiprocess_mode="livesum", registry=here)

    def observe(self, model: str, measure: str, value: float) -> None:
        """Take what a model's file measures: "batch" in texts, stages in seconds."""
        if measure == "batch":
            self._batch.labels(model).observe(value)
        else:
            self._stages.labels(model, measure).observe(value)

    def drift(self, model: str, version: int, measure: str, shift: float) -> None:
        """Take how far a version's latest texts are from those of its test."""
        self._drift.labels(model, str(version), measure).set(shift)

    def request(self, model: str, verb: str, status: str, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(model, verb, status).inc()
        self._latency.labels(model, verb).observe(seconds)

    def text(self, catalogue: Catalogue) -> bytes:
        """Give all that was measured, of all processes, in Prometheus's format."""
        for name in catalogue.names:
            versions = catalogue.versions(name)
            for number, version in versions.items():
                self._versions.labels(name, str(number)).set(version.service is not None)
            self._waiting.labels(name).set(
                sum(v.service.waiting for v in versions.values() if v.service))
        if not self._shared:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)
