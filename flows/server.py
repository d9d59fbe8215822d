"""Prefect's server, where none runs: one with its page for a schedule, and one for a single run.

Both end with the process that started them, however that ends (flows/leash.py).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import prefect
from prefect.settings import PREFECT_API_URL, temporary_settings

from headstart.base.errors import ParamError

APPLICATION = "prefect.server.api.server:create_app"  # in the command line of a server for a single run
_LEASH = str(Path(__file__).with_name("leash.py"))
_START_S = 120
_STOP_S = 10
_CONNECT_S = 10


@contextlib.contextmanager
def server(port: int) -> Iterator[str]:
    """Yield the address of Prefect's API: the configured one, one that runs on `port`, or one started for the body."""
    if given := PREFECT_API_URL.value():
        yield given
        return
    pass_by_proxies()
    api = f"http://127.0.0.1:{port}/api"
    if _answers(api):
        print(f"serve: using the Prefect server that runs at {api}", flush=True)
        yield api
        return
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _started(command, port, {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_UI_API_URL": api}):
        yield api


@contextlib.contextmanager
def temporary() -> Iterator[bool]:
    """Let the body use the configured server, or one without a page that is started for it, with the same records.

    Yields whether one was started; ParamError if nothing answers at the configured address.
    """
    if given := PREFECT_API_URL.value():
        _check_reachable(given)
        yield False
        return
    pass_by_proxies()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["uvicorn", "--app-dir", str(prefect.__module_path__.parent), "--factory", APPLICATION]
    command += ["--log-level", "critical", "--lifespan", "on", "--host", "127.0.0.1", "--port", str(port)]
    # As Prefect starts its own temporary one, which a killed run leaves behind.
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    with _started(command, port, own) as api, temporary_settings({PREFECT_API_URL: api}):
        yield True


@contextlib.contextmanager
def _started(command: Sequence[str], port: int, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a server for the body, and yield its address when it answers; ParamError if it does not start.

    It is in a session of its own, which Ctrl-C does not reach: it ends last, after the end of runs is recorded.
    """
    api = f"http://127.0.0.1:{port}/api"
    process = subprocess.Popen(
        [sys.executable, "-P", _LEASH, str(os.getpid()), *command],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        began = time.monotonic()
        while not _answers(api):
            if process.poll() is not None or time.monotonic() - began > _START_S:
                raise ParamError(
                    f"Prefect's server did not start on port {port}. Free it, or name another with --port."
                )
            time.sleep(0.1)
        yield api
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def pass_by_proxies() -> None:
    """Let this process, Prefect's client in it, and those that it starts ask this machine without a proxy."""
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    if "127.0.0.1" not in listed.replace(" ", "").split(","):
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{listed},127.0.0.1".strip(",")


def _check_reachable(api: str) -> None:
    """Raise ParamError where there is no such host or no server at its port; any other trouble is Prefect's to tell."""
    try:
        host, port = urlsplit(api).hostname, urlsplit(api).port
        is_beyond = urllib.request.getproxies() and not urllib.request.proxy_bypass(host or "")
        if not host or not port or is_beyond:
            return  # a service such as Prefect Cloud, or one that a proxy reaches
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ParamError(
            f"PREFECT_API_URL is {api}, and no server answers there ({why}). Start it, as by `prefect server start`, or"
            " unset PREFECT_API_URL (`prefect config unset PREFECT_API_URL`)."
        ) from None


def _answers(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=1) as response:
            return json.load(response) is True
    except (OSError, ValueError, http.client.HTTPException):  # the last: what listens there speaks something else
        return False
