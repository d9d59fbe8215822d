"""What an operator sees of the server: metrics in Prometheus' format, and a line of JSON for each request."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from headstart.handover.model import NOVEL_ABOVE
from headstart.serving.limits import GONE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from headstart.handover.model import Answer
    from headstart.serving.workers import Done

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30)
_LONGEST_PATH = 200


@dataclass
class Record:
    """What is known of a request when it has been answered."""

    route: str = "other"  # of a few, for metrics
    model: str = ""
    n_bytes: int = 0  # of the body
    done: Done | None = None


def record_of(scope: Scope) -> Record:
    """Return the record of a request."""
    record: Record = scope["headstart.record"]
    return record


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)

        def histogram(name: str, words: str, buckets: Iterable[float] = _SECONDS) -> Histogram:
            return Histogram(f"headstart_{name}", words, ["model"], registry=self._registry, buckets=tuple(buckets))

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"headstart_{name}", words, labels, registry=self._registry)

        self._requests = counter("requests", "Requests by status.", "route", "model", "status")
        self._seconds = histogram("request_seconds", "From a request's header to the end of its answer.")
        self._queue = histogram("queue_seconds", "That answered requests waited for a thread or for a batch.")
        self._compute = histogram("compute_seconds", "For decoding and the network.")
        self._batch = histogram(
            "batch_images", "Images that went through the network together.", (1, 2, 4, 8, 16, 32, 64)
        )
        self._images = counter("images", "Images that were answered.", "model")
        self._abstentions = counter("abstentions", "Answers below the model's threshold.", "model")
        self._novel = counter("novel", f"Answers with a novelty above {NOVEL_ABOVE}.", "model")
        self._novelty = histogram("novelty", "Novelty of answers.", (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1))
        self._loads = counter("model_loads", "Later versions of a model, by whether they were taken.", "model", "taken")

        def gauge(name: str, words: str, *labels: str) -> Gauge:
            return Gauge(f"headstart_drift_{name}", words, ["model", *labels], registry=self._registry)

        self._evidence = gauge("evidence", "log10 of the odds that images have changed.", "score")
        self._limit = gauge("limit", "log10 of the odds at which there is an alarm.")
        self._alarm = gauge("alarm", "1 after an alarm of drift, else 0.")
        self._watched = gauge("images", "Images that were counted in the ledger.")
        self._accuracy = gauge("estimated_accuracy", "Of the last hundred images, by their confidence.")
        self.waiting = Gauge("headstart_waiting", "Requests in the queue or at work.", registry=self._registry)
        self.held = Gauge("headstart_held_bytes", "Of bodies being sent or waiting.", registry=self._registry)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' format."""
        return generate_latest(self._registry)

    def count(self, record: Record, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(record.route, record.model, str(status)).inc()
        if record.done is not None:
            self._seconds.labels(record.model).observe(seconds)
            self._queue.labels(record.model).observe(record.done.queue_s)
            self._compute.labels(record.model).observe(record.done.compute_s)
            self._batch.labels(record.model).observe(record.done.n_together)

    def count_answers(self, model: str, answers: Iterable[Answer]) -> None:
        """Count answers by what they say."""
        for answer in answers:
            self._images.labels(model).inc()
            self._abstentions.labels(model).inc(answer.abstains)
            if answer.novelty is not None:
                self._novelty.labels(model).observe(answer.novelty)
                self._novel.labels(model).inc(answer.novelty > NOVEL_ABOVE)

    def show_drift(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Show the ledgers as they are, `Drift.state`."""
        for model, found in state.items():
            for score, evidence in found["evidence"].items():
                self._evidence.labels(model, score).set(evidence)
            self._limit.labels(model).set(found["limit"])
            self._alarm.labels(model).set(found["alarm"] is not None)
            self._watched.labels(model).set(found["n_images"])
            if found["last_look"]:
                self._accuracy.labels(model).set(found["last_look"]["accuracy"]["accuracy"])

    def count_load(self, model: str, is_taken: bool) -> None:
        """Count an attempt to take a later version of a model."""
        self._loads.labels(model, str(is_taken).lower()).inc()


class Telemetry:
    """ASGI middleware: gives each request a record, then counts and logs it. No image content is logged."""

    def __init__(self, app: ASGIApp, metrics: Metrics, out: TextIO | None = None) -> None:
        self._app, self._metrics, self._out = app, metrics, out or sys.stdout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), GONE
        record = scope["headstart.record"] = Record()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500
            raise
        finally:
            seconds = time.perf_counter() - began
            self._metrics.count(record, status, seconds)
            self._write(scope, record, status, seconds)

    def _write(self, scope: Scope, record: Record, status: int, seconds: float) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": scope["client"][0] if scope.get("client") else "",
            "method": scope["method"],
            "path": scope["path"][:_LONGEST_PATH],
            "status": status,
            "ms": round(1e3 * seconds, 2),
            "bytes": record.n_bytes,
        }
        if record.model:
            line["model"] = record.model
        if record.done is not None:
            done = record.done
            line |= {"queue_ms": round(1e3 * done.queue_s, 2), "compute_ms": round(1e3 * done.compute_s, 2)}
            line["batch"] = done.n_together
        print(json.dumps(line), file=self._out, flush=True)
