"""Allows one run at a time on a checkout, and marks killed runs as crashed."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

from prefect import State, get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from headstart.commands import locks

_POLL_S = 1.0


@contextlib.contextmanager
def held(root: Path, run_id: str) -> Iterator[None]:
    """Lock the checkout for this flow run; a second run waits until the first has ended.

    The kernel holds the lock, so it ends with the process. The file names the run that holds the lock. If it still
    names a run when the next one gets the lock, that run was killed, and it is marked as crashed in Prefect.
    """
    with _lock_file(root) as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    get_run_logger().info("another run is using this checkout; waiting for it to end")
                    told = True
                time.sleep(_POLL_S)
        file.seek(0)
        _bury(file.read())
        file.truncate(0)
        file.write(run_id)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def free_of_dvc(root: Path) -> None:
    """Wait until no DVC command runs on the checkout, and mend what a killed one has left; the checkout is held.

    Both would want the same locks, and the one that had begun would fail.
    """
    logger = get_run_logger()
    for told in locks.mend(root, holds_checkout=True):
        logger.warning("%s", told)
    told_of = ""
    while who := locks.at_work(root):
        if who != told_of:
            logger.info("%s is using this checkout; waiting for it to end", who)
            told_of = who
        time.sleep(_POLL_S)


@contextlib.contextmanager
def free(root: Path) -> Iterator[bool]:
    """Lock the checkout if no run uses it, and say whether that is so."""
    with _lock_file(root) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _lock_file(root: Path) -> TextIO:
    path = root / ".dvc" / "tmp" / "pipeline.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+")


def _bury(run_id: str) -> None:
    """Mark a run whose process is gone, and its unfinished tasks, as crashed in Prefect."""
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound, ValueError):
        run = client.read_flow_run(UUID(run_id))
        if run.state is None or run.state.is_final():
            return
        get_run_logger().info("the run '%s' on this checkout was killed; marking it as crashed", run.name)
        state: State[Any] = Crashed(message="its process was killed; finished stages are kept")
        _crash_tasks(client, run.id)
        client.set_flow_run_state(run.id, state, force=True)


def _crash_tasks(client: SyncPrefectClient, run_id: UUID) -> None:
    of_this_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    for task in client.read_task_runs(flow_run_filter=of_this_run):
        if task.state is not None and not task.state.is_final():
            client.set_task_run_state(task.id, Crashed(message="the process of its run was killed"), force=True)
