"""Each stage that DVC visits as one Prefect task run, through the hook that `dvc exp run` uses itself."""

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

from flows.events import listening
from headstart.base.progress import EVENTS_VARIABLE

RETRY_DELAYS_S = [2.0, 10.0, 60.0]  # of what may heal: a network, a file that another DVC process holds
_GRACE_S = 3.0


REJECTED = "Rejected"  # the name of a Failed state: nothing went wrong, but the accepted model is better


class StageFailedError(Exception):
    """A stage ended with an error that its task run has already told."""


class StageRejectedError(StageFailedError):
    """It found the new model worse than the accepted one."""


def as_task_runs(
    reproduce: Callable[..., Any],
    failures: list[str],
    posters: list[threading.Thread],
    show: Callable[[str], None],
    interrupt: Callable[[], None],
) -> Callable[..., Any]:
    """Return a `repro_fn` for DVC that runs `reproduce(stage)` inside one Prefect task run a stage.

    A stage that DVC skips, or restores from its run cache, ends as Cached. One that fails on what may heal is tried
    again. `show(name)` is called after one that ran, and `interrupt` after one that Ctrl-C has ended. The message of a
    failed one is appended to `failures`, and the thread that sends its artifacts to `posters`.
    """
    states: dict[str, State[Any]] = {}

    def repro_fn(stage: Any, upstream: Any = (), **options: Any) -> Any:
        name = stage.addressing
        result = None
        n_tries = 0
        may_heal = False

        @_retried(name, lambda: may_heal)
        def run() -> State[Any]:
            nonlocal result, n_tries, may_heal
            # A failed try leaves its own dependencies in the stage object. DVC would take what an earlier run has made
            # of others for the result of these, and say so in dvc.lock.
            fresh = stage.reload() if n_tries else stage
            n_tries += 1
            with listening(name, posters) as told:
                error = None
                try:
                    result = reproduce(fresh, upstream=upstream, run_env=_environment(told.path), **options)
                except Exception as failed:  # DVC's many; the stage's own words are better than any of them
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
            if result is None:
                return Completed(name="Cached", message="unchanged")
            if stage.cmd and not told.started:
                return Completed(name="Cached", message="restored from DVC's run cache")
            _try(show, name)
            return Completed(message="; ".join(f"{out.def_path} {out.hash_info.value}" for out in result.outs))

        before = [states[other.addressing] for other in upstream or () if other.addressing in states]
        states[name] = run(return_state=True, wait_for=before)
        if not states[name].is_completed():
            kind = StageRejectedError if states[name].name == REJECTED else StageFailedError
            raise kind(failures[-1] if failures else f"{name}: {states[name].message}")
        failures.clear()  # of tries that a later one has healed
        return result

    return repro_fn


def _environment(events: Path) -> dict[str, str]:
    """Return what a stage's process gets beside this one's environment: where to tell events, and this interpreter."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {EVENTS_VARIABLE: str(events), "PATH": path}


def as_task_run(name: str, transfer: Callable[[], str]) -> None:
    """Run what exchanges files with DVC's remote, and returns what it did, as a task run.

    StageFailedError where it fails, after further tries if they may help.
    """
    may_heal = False

    @_retried(name, lambda: may_heal)
    def run() -> State[Any]:
        nonlocal may_heal
        try:
            return Completed(message=transfer())
        except Exception as error:  # DVC's many
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
    """Return whether what DVC itself stumbled over may be gone later: a lock, or the way to a remote."""
    from dvc.exceptions import FileTransferError
    from dvc.lock import LockError

    return any(
        isinstance(each, LockError | FileTransferError | ConnectionError | TimeoutError) for each in _chain(error)
    )


def is_rejection(error: BaseException) -> bool:
    """Return whether a stage refused the model: DVC wraps what its hook raises."""
    return any(isinstance(each, StageRejectedError) for each in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def end_children() -> None:
    """Terminate every process below this one, and kill what is still there after three seconds."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.terminate()
    with contextlib.suppress(psutil.Error):
        for child in psutil.wait_procs(children, timeout=_GRACE_S)[1]:
            child.kill()


def _try(show: Callable[[str], None], name: str) -> None:
    try:
        show(name)
    except Exception as error:  # of DVC, of Prefect's server, of a file: none of them is the run's
        get_run_logger().warning("the page lacks what %s has written: %s", name, error)
