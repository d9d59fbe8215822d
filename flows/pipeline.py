"""The pipeline under Prefect: `python -m flows.pipeline [STAGE ...] [--force] [--set NAME=VALUE] [--note TEXT] ...`.

dvc.yaml is the only DAG. One call of DVC's `Repo.reproduce` drives it, and each stage that DVC visits becomes one
task run (flows/stages.py). So dvc.lock ends as `dvc repro` would leave it. It works with a Prefect server
(PREFECT_API_URL) and without one (a temporary one starts).
"""

from __future__ import annotations

import os

os.environ.setdefault("DO_NOT_TRACK", "1")  # set before prefect is imported, so that it sends no telemetry
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "dvc")  # DVC's log lines go to the run that caused them

import argparse
import logging
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from prefect import State, flow, get_client, runtime
from prefect.states import Completed, Failed

from flows import artifacts, notify
from flows.checkout import held
from flows.events import posting
from flows.request import Request, run_name
from flows.stages import REJECTED, StageFailedError, as_task_run, as_task_runs, end_children, is_rejection
from headstart.base.errors import HeadstartError
from headstart.layout import Layout
from headstart.params import Params

ROOT = Path(__file__).resolve().parents[1]
EVERYTHING = Request()
_GRACE_S = 3
_WATCH_S = 0.5
_STARTED_BY_PREFECT = "PREFECT__FLOW_RUN_ID"  # set in the process of a run that a worker or `serve` has started
_INTERRUPTED = "interrupted; finished stages are kept"


@flow(
    name="headstart",
    validate_parameters=True,
    on_failure=[notify.of_failure],
    on_crashed=[notify.of_failure],
)
def pipeline(request: Request = EVERYTHING) -> State[Any]:
    """Write the overrides to params.yaml, then reproduce the targets and what they need.

    The overrides stay, as `dvc exp run -S` leaves them: params.yaml and dvc.lock belong together.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import _reproduce_stage

    os.chdir(ROOT)
    speak_once()
    if os.environ.get(_STARTED_BY_PREFECT):
        end_with_parent()
    failures: list[str] = []
    layout = Layout(ROOT)
    try:
        if request.notify:
            notify.block(request.notify)  # a missing block must fail the run now, not when it is needed
        with held(ROOT, str(runtime.flow_run.id)):
            values = request.write(layout.params)
            describe(values, request.note)
            with Repo(str(ROOT), _wait_for_lock=True) as repo:
                if request.pull:
                    as_task_run("pull", lambda: pull(repo))
                if request.only_new_data and not has_new_data(repo):
                    return Completed(name="Cached", message=f"the images at {values.data.root} have not changed")
                with posting() as posters:
                    show = partial(artifacts.publish, layout)
                    hook = as_task_runs(_reproduce_stage, failures, posters, show, interrupt)
                    done = repo.reproduce(targets=request.targets or None, force=request.force, repro_fn=hook)
                if request.push:
                    as_task_run("push", lambda: f"{repo.push()} files sent")
    except (HeadstartError, StageFailedError) as error:
        return Failed(message=str(error))
    except DvcException as error:
        name = REJECTED if is_rejection(error) else "Failed"
        return Failed(name=name, message=failures[-1] if failures else str(error))
    return Completed(message=f"{len(done)} stages ran" if done else "nothing to do")


def speak_once() -> None:
    """Let only Prefect's log print DVC's messages, and drop the empty ones."""
    logger = logging.getLogger("dvc")
    for handler in [*logger.handlers, *logging.getLogger().handlers]:
        if type(handler).__module__.startswith("dvc"):
            logger.removeHandler(handler)
        else:
            handler.addFilter(_says_something)


def _says_something(record: logging.LogRecord) -> bool:
    return bool(record.getMessage().strip())


def pull(repo: Any) -> str:
    """Fetch what dvc.lock and the .dvc files name. A stage makes its output again if the remote lacks it."""
    fetched = repo.pull(allow_missing=True)["stats"]["fetched"]
    return f"{fetched} files fetched"


def has_new_data(repo: Any) -> bool:
    """Return whether the images, or the list of them, have changed since dvc.lock was written, by DVC's own status.

    They are the dependencies of `validate` that are neither code nor parameters; DVC has its own names for them.
    """
    changes = repo.status(targets=["validate"]).get("validate", [])
    names = {name for change in changes if isinstance(change, dict) for name in change.get("changed deps", {})}
    return any(not name.endswith(".py") for name in names - {"params.yaml"})


def describe(values: Params, note: str) -> None:
    """Give the current flow run a name, and tags with its dataset and backbone."""
    tags = {f"dataset:{Path(values.data.root).stem}", f"backbone:{values.backbone.name.rpartition('/')[2]}"}
    with get_client(sync_client=True) as client:
        client.update_flow_run(runtime.flow_run.id, name=run_name(values, note), tags={*runtime.flow_run.tags, *tags})


def end_with_parent() -> None:
    """End this run and its stage when the worker that started it is gone, since nobody could cancel it any more."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)  # Prefect then marks the run as crashed

    threading.Thread(target=watch, daemon=True).start()


def interrupt(*_: object) -> NoReturn:
    """Handle Ctrl-C: unwind as usual, but do not wait long for a Prefect server that Ctrl-C has ended as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_after, args=(_GRACE_S,), daemon=True).start()
    raise KeyboardInterrupt


def _leave_after(seconds: float) -> None:
    time.sleep(seconds)
    end_children()
    print(_INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(130)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline", description="Run the DAG of dvc.yaml under Prefect."
    )
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="stages to bring up to date (default: all)")
    parser.add_argument("--force", action="store_true", help="run them even if nothing has changed")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter to write first")
    parser.add_argument("--only-new-data", action="store_true", help="do nothing unless the images have changed")
    parser.add_argument("--pull", action="store_true", help="fetch from DVC's remote first")
    parser.add_argument("--push", action="store_true", help="send to DVC's remote after a successful run")
    parser.add_argument("--notify", default="", metavar="TYPE/NAME", help="the block to notify of a failure")
    parser.add_argument("--note", default="", help="the reason for this run")
    options = vars(parser.parse_args())
    signal.signal(signal.SIGINT, interrupt)
    overrides = dict(assignment.partition("=")[::2] for assignment in options.pop("set"))
    try:
        state = pipeline(Request(overrides=overrides, **options), return_state=True)
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        return 130
    print(state.message, file=sys.stdout if state.is_completed() else sys.stderr)
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
