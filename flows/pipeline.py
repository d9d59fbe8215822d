"""The pipeline under Prefect: `python -m flows.pipeline [STAGE ...] [--force] [--set NAME=VALUE] [--note TEXT]`.

dvc.yaml is the only DAG. One call of DVC's `Repo.reproduce` drives it, and each stage that DVC visits becomes one
task run through `repro_fn`, the hook that `dvc exp run` uses itself. So dvc.lock ends as `dvc repro` would leave it. It
works with no Prefect server running (a temporary one starts) and with one (PREFECT_API_URL).
"""

from __future__ import annotations

import os

os.environ.setdefault("DO_NOT_TRACK", "1")  # before prefect is imported: no telemetry leaves
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "dvc")  # DVC's own lines go to the run that caused them

import argparse
import contextlib
import fcntl
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import psutil
from prefect import State, flow, get_client, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from flows.artifacts import publish
from flows.events import listening
from flows.request import Request, run_name
from headstart.errors import HeadstartError
from headstart.layout import Layout
from headstart.params import Params
from headstart.progress import EVENTS_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
EVERYTHING = Request()
_GRACE_S = 3


class StageFailedError(Exception):
    """A stage ended with an error that its task run has already told."""


@flow(name="headstart", validate_parameters=True)
def pipeline(request: Request = EVERYTHING) -> State[Any]:
    """Write the overrides to params.yaml, then reproduce the targets and what they need.

    The overrides stay, as `dvc exp run -S` leaves them: params.yaml and dvc.lock belong together.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import _reproduce_stage

    os.chdir(ROOT)
    failures: list[str] = []
    try:
        with one_run_at_a_time():
            describe(request.write(ROOT / "params.yaml"), request.note)
            with Repo(str(ROOT), _wait_for_lock=True) as repo:
                hook = as_task_runs(_reproduce_stage, failures)
                done = repo.reproduce(targets=request.targets or None, force=request.force, repro_fn=hook)
                publish(Layout(ROOT), {stage.addressing for stage in done}, repo)
    except HeadstartError as error:
        return Failed(message=str(error))
    except DvcException as error:
        return Failed(message=failures[0] if failures else str(error))
    return Completed(message=f"{len(done)} stages ran" if done else "nothing to do")


def describe(values: Params, note: str) -> None:
    """Give the current flow run a name and tags that say what it is."""
    tags = {f"dataset:{Path(values.data.root).stem}", f"backbone:{values.backbone.name.rpartition('/')[2]}"}
    with get_client(sync_client=True) as client:
        client.update_flow_run(runtime.flow_run.id, name=run_name(values, note), tags={*runtime.flow_run.tags, *tags})


def as_task_runs(reproduce: Callable[..., Any], failures: list[str]) -> Callable[..., Any]:
    """Return a `repro_fn` for DVC that runs `reproduce(stage)` inside one Prefect task run a stage.

    A stage that DVC skips, or restores from its run cache, ends as Cached. The message of a failed one is appended to
    `failures`.
    """
    states: dict[str, State[Any]] = {}

    def repro_fn(stage: Any, upstream: Any = (), **options: Any) -> Any:
        name = stage.addressing
        result = None

        @task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)
        def run() -> State[Any]:
            nonlocal result
            with listening() as told:
                path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
                environment = {EVENTS_VARIABLE: str(told.path), "PATH": path}
                error = None
                try:
                    result = reproduce(stage, upstream=upstream, run_env=environment, **options)
                except Exception as failed:  # DVC's many; the stage's own words are better than any of them
                    error = failed
                except BaseException:  # cancelled: leave no process behind
                    end_children()
                    raise
            if told.interrupted:
                interrupt()
            if error is not None:
                message = told.errors[-1] if told.errors else f"{name}: {error}"
                failures.append(message)
                return Failed(message=message)
            if result is None:
                return Completed(name="Cached", message="unchanged")
            if stage.cmd and not told.started:
                return Completed(name="Cached", message="restored from DVC's run cache")
            return Completed(message="; ".join(f"{out.def_path} {out.hash_info.value}" for out in result.outs))

        before = [states[other.addressing] for other in upstream or () if other.addressing in states]
        states[name] = run(return_state=True, wait_for=before)
        if not states[name].is_completed():
            raise StageFailedError(failures[-1] if failures else f"{name}: {states[name].message}")
        return result

    return repro_fn


@contextlib.contextmanager
def one_run_at_a_time() -> Iterator[None]:
    """Hold the checkout; a second run waits until the first has ended."""
    path = ROOT / ".dvc" / "tmp" / "pipeline.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    get_run_logger().info("another run holds this checkout; waiting for it to end")
                    told = True
                time.sleep(1)
        yield


def end_children() -> None:
    """Terminate every process below this one, and kill what is still there after five seconds."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.terminate()
    with contextlib.suppress(psutil.Error):
        for child in psutil.wait_procs(children, timeout=5)[1]:
            child.kill()


def interrupt(*_: object) -> NoReturn:
    """On Ctrl-C, unwind as usual, but do not wait long for a Prefect server that Ctrl-C has ended as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_after, args=(_GRACE_S,), daemon=True).start()
    raise KeyboardInterrupt


def _leave_after(seconds: float) -> None:
    time.sleep(seconds)
    end_children()
    print("interrupted; finished stages are kept", file=sys.stderr, flush=True)
    os._exit(130)


def main() -> int:
    """Run once from a shell; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline", description="Run the DAG of dvc.yaml under Prefect."
    )
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="stages to bring up to date (default: all)")
    parser.add_argument("--force", action="store_true", help="run them though nothing changed")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter to write first")
    parser.add_argument("--note", default="", help="why this run is made")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, interrupt)
    overrides = dict(assignment.partition("=")[::2] for assignment in options.set)
    request = Request(targets=options.targets, force=options.force, overrides=overrides, note=options.note)
    state = pipeline(request, return_state=True)
    print(state.message, file=sys.stdout if state.is_completed() else sys.stderr)
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
