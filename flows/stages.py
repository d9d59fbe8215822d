"""Runs each stage that DVC visits as one Prefect task run, through the hook that `dvc exp run` uses itself."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from headstart.base.progress import EVENTS_VARIABLE

from .events import listening
from .server import APPLICATION

RETRY_DELAYS_S = [2.0, 10.0, 60.0]  # after transient failures, such as of a network or a lock of DVC
_GRACE_S = 3.0


REJECTED = "Rejected"  # the name of a Failed state: nothing is broken, but the accepted model is better


class StageFailedError(Exception):
    """A stage failed with an error that its task run has already reported."""


class StageRejectedError(StageFailedError):
    """A stage rejected the new model, which is worse than the accepted one."""


def as_task_runs(
    reproduce: Callable[..., Any],
    failures: list[str],
    posters: list[threading.Thread],
    show: Callable[[str], None],
    interrupt: Callable[[], None],
) -> Callable[..., Any]:
    """Return a `repro_fn` for DVC that runs `reproduce(stage)` inside one Prefect task run per stage.

    A stage that DVC skips or restores from its run cache is Cached, and one with a transient failure is retried.
    `show(name)` is called after a stage that ran, `interrupt` after one that Ctrl-C ended. `failures` gets messages of
    failed stages, `posters` the threads that send artifacts.
    """
    states: dict[str, State[Any]] = {}
    above: dict[str, set[str]] = {}

    def repro_fn(stage: Any, upstream: Any = (), **options: Any) -> Any:
        name = stage.addressing
        result = None
        n_tries = 0
        may_heal = False

        @_retried(name, lambda: may_heal)
        def run() -> State[Any]:
            nonlocal result, n_tries, may_heal
            # A failed attempt leaves its dependencies in the stage object, which DVC would record in dvc.lock beside
            # outputs made from other ones.
            fresh = stage.reload() if n_tries else stage
            n_tries += 1
            with listening(name, posters) as told:
                error = None
                try:
                    result = reproduce(fresh, upstream=upstream, run_env=_environment(told.path), **options)
                except Exception as failed:  # of DVC's many types; the stage's own message is clearer
                    error = failed
                except BaseException:  # cancelled: leave no process behind
                    end_children()
                    raise
            if told.interrupted:
                interrupt()
            if error is not None:
                message = told.errors[-1] if told.errors else f"{name}: {error}"
                may_heal = told.may_heal if told.errors else heals(error)
                failures.append(message)
                return Failed(name=REJECTED if told.rejected else "Failed", message=message)
            if result is not None and (told.started or not stage.cmd):
                _try(show, name)
            return _success(result, told.started or not stage.cmd)

        edges = direct(name, {other.addressing for other in upstream or ()} & states.keys(), above)
        states[name] = run(return_state=True, wait_for=[states[other] for other in sorted(edges)])
        if not states[name].is_completed():
            kind = StageRejectedError if states[name].name == REJECTED else StageFailedError
            raise kind(failures[-1] if failures else f"{name}: {states[name].message}")
        failures.clear()  # of attempts before one that succeeded
        return result

    return repro_fn


def _success(result: Any, has_run: bool) -> State[Any]:
    """Return the state of a stage that did not fail, by what DVC returned for it."""
    if result is None:
        return Completed(name="Cached", message="unchanged")
    if not has_run:
        return Completed(name="Cached", message="restored from DVC's run cache")
    return Completed(message="; ".join(f"{out.def_path} {out.hash_info.value}" for out in result.outs))


def direct(name: str, upstream: set[str], above: dict[str, set[str]]) -> set[str]:
    """Return those upstream stages that `name` does not also reach through another one: the edges to draw.

    `above` has the stages upstream of each earlier stage, near and far; `name` is added.
    """
    above[name] = upstream.union(*(above[other] for other in upstream))
    return {near for near in upstream if not any(near in above[other] for other in upstream)}


def _environment(events: Path) -> dict[str, str]:
    """Return what a stage's environment has in addition to this one: the file for events, and this interpreter."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {EVENTS_VARIABLE: str(events), "PATH": path}


def as_task_run(name: str, transfer: Callable[[], str]) -> None:
    """Run `transfer`, which exchanges files with DVC's remote and returns a summary, as a task run.

    Transient failures are retried; StageFailedError if it still fails.
    """
    may_heal = False

    @_retried(name, lambda: may_heal)
    def run() -> State[Any]:
        nonlocal may_heal
        try:
            return Completed(message=transfer())
        except Exception as error:  # of DVC's many types
            may_heal = heals(error)
            return Failed(message=f"{name}: {error}")

    state = run(return_state=True)
    if not state.is_completed():
        raise StageFailedError(state.message)


def _retried(name: str, may_heal: Callable[[], bool]) -> Callable[[Callable[[], State[Any]]], Any]:
    return task(
        name=name,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(RETRY_DELAYS_S),
        retry_delay_seconds=RETRY_DELAYS_S,
        retry_condition_fn=lambda *_: may_heal(),
    )


def heals(error: BaseException) -> bool:
    """Return whether an error of DVC itself may be transient: a lock, or the connection to a remote."""
    from dvc.exceptions import FileTransferError
    from dvc.lock import LockError

    return any(
        isinstance(each, LockError | FileTransferError | ConnectionError | TimeoutError) for each in _chain(error)
    )


def is_rejection(error: BaseException) -> bool:
    """Return whether a stage rejected the model. DVC wraps what its hook raises."""
    return any(isinstance(each, StageRejectedError) for each in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def end_children() -> None:
    """Terminate every process below this one, and kill those that still run after three seconds.

    A temporary server stays, since it has to be told how the run ended.
    """
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = [child for child in psutil.Process().children(recursive=True) if not _is_server(child)]
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.terminate()
    with contextlib.suppress(psutil.Error):
        for child in psutil.wait_procs(children, timeout=_GRACE_S)[1]:
            child.kill()


def _is_server(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return APPLICATION in process.cmdline()
    return False


def _try(show: Callable[[str], None], name: str) -> None:
    try:
        show(name)
    except Exception as error:  # an error of DVC, Prefect's server or a file must not fail the run
        get_run_logger().warning("Prefect's page does not show the results of %s: %s", name, error)
