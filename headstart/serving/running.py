"""Starts the server, and ends it."""

from __future__ import annotations

import argparse
import logging

import uvicorn

from headstart.serving import drift
from headstart.serving.application import application
from headstart.serving.connections import limited
from headstart.serving.limits import Limits
from headstart.serving.models import Models, named
from headstart.serving.server import Server
from headstart.serving.telemetry import Metrics
from headstart.serving.workers import Workers

_STOPS_WITHIN_S = 10  # time that requests in progress get to finish when the server stops
_SPARE_FILES = 100  # descriptors that are for no connection


def run(arguments: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM; requests in progress are then answered, new ones refused."""
    limits = Limits(
        max_mb=arguments.max_mb,
        max_pixels=arguments.max_pixels,
        max_seconds=arguments.max_seconds,
        send_seconds=arguments.send_seconds,
        answer_seconds=arguments.answer_seconds,
        max_waiting=arguments.max_waiting,
        max_connections=min(arguments.max_connections, _most_connections()),
        max_per_address=arguments.max_per_address,
    )
    logging.basicConfig(format="%(levelname)s:  %(message)s", level=logging.WARNING)
    logging.getLogger("headstart").setLevel(logging.INFO)
    metrics = Metrics()
    models = Models(named(arguments.models), arguments.batch_ms > 0, metrics.count_load)
    watching = drift.opened(arguments.monitor, models)
    server = Server(models, Workers(limits, arguments.batch_ms), limits, metrics, watching)
    uvicorn.run(
        application(server),
        host=arguments.host,
        port=arguments.port,
        http=limited(limits),
        ws="none",  # no route has any; a connection would leave the limits
        timeout_graceful_shutdown=_STOPS_WITHIN_S,
        log_level="info",
        access_log=False,  # headstart/serving/telemetry.py writes one
        server_header=False,
    )


def _most_connections() -> int:
    """Return how many connections the descriptors of this process are enough for."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 1_000_000
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else max(1, soft - _SPARE_FILES)
