"""A Prefect server of the tests' own, and what is asked of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil

from tests.support.projects import Project
from tests.support.server import Server

QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


class Api:
    """The REST API that Prefect's page uses.

    A server whose SQLite file is locked answers 503 and has done nothing; it is asked again, as Prefect's client does.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def send(self, method: str, path: str, **body: object) -> Any:
        data = None if method == "GET" else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"}, method=method)
        for pause in (1, 2, 4, 8, 0):
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or not pause:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def asked(self, path: str, **body: object) -> Any:
        return self.send("POST", path, **body)

    def run(self, run_id: str) -> dict[str, Any]:
        return self.send("GET", f"/flow_runs/{run_id}")

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        """Return the task runs of a flow run in the order in which they began."""
        found = self.asked("/task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
        return sorted((task for task in found if task["start_time"]), key=lambda task: task["start_time"])

    def last_run(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the newest flow run and its task runs."""
        begun = {"state": {"type": {"not_any_": ["SCHEDULED"]}}}
        (run,) = self.asked("/flow_runs/filter", flow_runs=begun, sort="START_TIME_DESC", limit=1)
        return run, self.tasks(run["id"])

    def artifacts(self) -> dict[str, Any]:
        """Return what the newest flow run shows on its page, by key."""
        run, _ = self.last_run()
        found = self.asked("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run["id"]]}})
        return {artifact["key"]: artifact for artifact in found}

    def cancel(self, run_id: str) -> None:
        """Do what the button on the page does."""
        self.asked(f"/flow_runs/{run_id}/set_state", state={"type": "CANCELLING"})


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def background(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a session of its own; whatever is left of it at the end is ended."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, **options)
    try:
        yield process
    finally:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)


@contextmanager
def started_server(folder: Path) -> Iterator[Api]:
    """Yield a server with SQLite in `folder`, whose page works too."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        **QUIET,
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": url,
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with background(command, folder / "log", env=environment) as process:

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(f"{url}/health", timeout=1).status == 200
            return False

        wait_for(answers, 120)
        yield Api(url)


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    """Return what `condition` returns as soon as that is true."""
    until = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.1)


def environment(project: Project, **more: str) -> dict[str, str]:
    """Return what a user's shell in the project's activated environment has."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DVC_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    home = str(project.root.parent)
    own = {"PATH": path, "HOME": home, "PREFECT_HOME": f"{home}/prefect", "PYTHONUNBUFFERED": "1"}
    own["SHELL"] = "/bin/sh"  # dash stays between DVC and a stage, where bash makes way; cron and systemd have it too
    return {**inherited, **QUIET, **own, **more}


def flow(project: Project, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    home = str(project.root.parent / "prefect")
    return project.run("python", "-m", "flows.pipeline", *arguments, PREFECT_HOME=home, **more)


def stages_running(project: Project) -> list[psutil.Process]:
    """Return the processes of this project's stages."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_stage = "tasks" in process.cmdline()[1:3] or "stage" in process.cmdline()[2:3]
            if is_stage and Path(process.cwd()) == project.root:
                found.append(process)
    return found


def notifying(project: Project, api: Api, server: Server) -> tuple[str, ...]:
    """Return the words by which a run tells `server` of a failure."""
    server.files["/hooks/abcdefghijklmnop"] = b"ok"
    project.must("python", "-c", BLOCK.format(port=server.http.server_port), PREFECT_API_URL=api.url)
    return "--notify", "mattermost-webhook/team"


BLOCK = """
from prefect.blocks.notifications import MattermostWebhook
block = MattermostWebhook(hostname="127.0.0.1", port={port}, token="abcdefghijklmnop", include_image=False)
block.save("team", overwrite=True)
"""

# Its export takes some seconds, every time.
_SLOW = ("backbone.name=resnet18", "backbone.weights=random", "cache.backbones=false")
SLOW_STAGE = tuple(word for each in _SLOW for word in ("--set", each))
SLOW_REQUEST = {
    "backbone": "resnet18",
    "overrides": [{"name": "backbone.weights", "value": "random"}, {"name": "cache.backbones", "value": "false"}],
}


@contextmanager
def run_in_its_slow_stage(project: Project, api: Api, *targets: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Yield a flow process of which the stage `backbone` is under way, and its log."""
    log = project.root.parent / "log"
    command = [sys.executable, "-m", "flows.pipeline", *targets, *SLOW_STAGE]
    with background(command, log, cwd=project.root, env=environment(project, PREFECT_API_URL=api.url)) as process:
        wait_for(lambda: "exporting torchvision/resnet18" in log.read_text(), 90)
        yield process, log
