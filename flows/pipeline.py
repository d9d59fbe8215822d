"""The pipeline under Prefect: `headstart flow [STAGE ...] [--data PHOTOS] [--force] [--set NAME=VALUE] ...`.

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
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from prefect import Flow, State, flow, get_run_logger, runtime
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Failed

from headstart.base import changed
from headstart.base.errors import HeadstartError
from headstart.commands import record
from headstart.commands.run import take
from headstart.layout import Layout, find_root
from headstart.listing import check_files

from . import artifacts, notify
from .checkout import free, free_of_dvc, held
from .events import posting
from .headline import describe, show_result
from .overrides import applied, withdraw
from .request import Override, Request, check_targets
from .server import temporary
from .stages import REJECTED, StageFailedError, as_task_run, as_task_runs, end_children, is_rejection

EVERYTHING = Request()
_GRACE_S = 3
_WATCH_S = 0.5
_STARTED_BY_PREFECT = "PREFECT__FLOW_RUN_ID"  # set in the process of a run that a worker or `serve` has started
_PATIENCE_S = 6.0  # with a server that does not take the end of a terminated run
_INTERRUPTED_STATUS, _TERMINATED_STATUS = 130, 143  # what a shell gives for Ctrl-C and for SIGTERM
_INTERRUPTED = "interrupted; finished stages are kept"


def tidy(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Take the overrides of a crashed run out of params.yaml.

    A run does so itself where it can. If it was killed, the process that has started it calls this.
    """
    with contextlib.suppress(HeadstartError):
        root = find_root(Path.cwd())
        with free(root) as is_free:
            if is_free:  # otherwise the run that uses the checkout has taken them out, or will when it ends
                withdraw(Layout(root))


@flow(
    name="headstart",
    validate_parameters=True,
    on_failure=[notify.of_failure],
    on_crashed=[tidy, notify.of_failure],
)
def pipeline(request: Request = EVERYTHING) -> State[Any]:
    """Reproduce the targets and what they need, with the request's parameters; params.yaml is then as it was before.

    With `keep` the parameters stay in params.yaml, as `dvc exp run -S` leaves them.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import _reproduce_stage

    speak_once()
    if os.environ.get(_STARTED_BY_PREFECT):
        end_with_parent()
    failures: list[str] = []
    visited: list[str] = []

    def reproduce(stage: Any, **options: Any) -> Any:
        visited.append(stage.addressing)
        return _reproduce_stage(stage, **options)

    try:
        root = find_root(Path.cwd())
        os.chdir(root)
        layout = Layout(root)
        if request.notify:
            notify.block(request.notify)  # a missing block must fail the run now, not when it is needed
        with leaving_soon(), held(root, str(runtime.flow_run.id)):
            free_of_dvc(root)
            record.refresh(root)
            mend(layout)
            with applied(request, layout) as values, Repo(str(root), _wait_for_lock=True) as repo:
                describe(values, request.note)
                if request.pull:
                    as_task_run("pull", lambda: pull(repo))
                check_files(Layout.of(root, values).data_root, values.data.root)  # DVC would wait for a FIFO for ever
                if request.only_new_data and not has_new_data(repo):
                    return Completed(name="Cached", message=f"the images at {values.data.root} have not changed")
                with posting() as posters:
                    show = partial(artifacts.publish, layout)
                    hook = as_task_runs(reproduce, failures, posters, show, interrupt)
                    if changed.is_noted(layout.failed):
                        get_run_logger().info("an image had changed while validate ran; all files are looked at again")
                        repo.reproduce(targets=["validate"], single_item=True, force=True, repro_fn=hook)
                    done = repo.reproduce(targets=request.targets or None, force=request.force, repro_fn=hook)
                told = show_result(layout, visited)
                if request.push:
                    as_task_run("push", lambda: f"{repo.push()} files sent")
    except (HeadstartError, StageFailedError) as error:
        return Failed(message=str(error))
    except DvcException as error:
        name = REJECTED if is_rejection(error) else "Failed"
        return Failed(name=name, message=failures[-1] if failures else str(error))
    ran = f"{len(done)} stages ran" if done else "nothing to do"
    return Completed(message=f"{told}; {ran}" if told else ran)


def mend(layout: Layout) -> None:
    """Take out of params.yaml what a killed run has left there. The checkout has to be locked."""
    if names := withdraw(layout):
        get_run_logger().info("params.yaml still had %s of a run that was killed; taken out again", ", ".join(names))


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
    return any(not name.endswith(".py") for name in names - {"params.yaml", record.NAME, "headstart/base"})


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
    threading.Thread(target=_leave_after, args=(_GRACE_S, _INTERRUPTED_STATUS), daemon=True).start()
    raise KeyboardInterrupt


def terminate(*_: object) -> NoReturn:
    """Handle SIGTERM outside a run; within one Prefect does, and sends it again when the run is recorded as crashed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(_TERMINATED_STATUS)


@contextlib.contextmanager
def leaving_soon() -> Iterator[None]:
    """See that the process ends within seconds after what ends the body early, whether or not a server answers."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        threading.Thread(target=_leave_after, args=(_PATIENCE_S, _TERMINATED_STATUS), daemon=True).start()
        raise


def _leave_after(seconds: float, status: int) -> None:
    time.sleep(seconds)
    end_children()
    with contextlib.suppress(HeadstartError):  # while the run still holds the checkout
        withdraw(Layout(find_root(Path.cwd())))
    print(_INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="headstart flow", description="Run the DAG of dvc.yaml under Prefect.")
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="stages to bring up to date (default: all)")
    parser.add_argument("--data", metavar="PHOTOS", help="class folders or a list of images; written to params.yaml")
    parser.add_argument("--force", action="store_true", help="run them even if nothing has changed")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter to override for this run"
    )
    parser.add_argument("--keep", action="store_true", help="leave these parameters in params.yaml after the run")
    parser.add_argument("--only-new-data", action="store_true", help="do nothing unless the images have changed")
    parser.add_argument("--pull", action="store_true", help="fetch from DVC's remote first")
    parser.add_argument("--push", action="store_true", help="send to DVC's remote after a successful run")
    parser.add_argument("--notify", default="", metavar="TYPE/NAME", help="the block to notify of a failure")
    parser.add_argument("--note", default="", help="the reason for this run")
    options = vars(parser.parse_args(arguments))
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, terminate)
    pairs = [each.partition("=") for each in options.pop("set")]
    try:
        check_targets(options["targets"])
        overrides = [Override(name=name, value=value) for name, _, value in pairs]
        data = options.pop("data")
        if data and (status := take(data)):
            return status
        with temporary() as is_own:
            state = pipeline(request=Request(overrides=overrides, **options), return_state=True)
    except HeadstartError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        return 130
    print(state.message, file=sys.stdout if state.is_completed() else sys.stderr)
    if is_own:  # its address is gone, and had no page
        run = state.state_details.flow_run_id
        print(f"to see this run: `prefect server start`, then http://127.0.0.1:4200/runs/flow-run/{run}")
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
