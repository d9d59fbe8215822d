"""Where jobs run: in threads of this process or on a Dask cluster. Both are a `concurrent.futures.Executor`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import Any, NamedTuple, TypeVar

from headstart.base.errors import CheckError, HeadstartError, ParamError, UnreachableError

Result = TypeVar("Result")

_LOCAL_JOBS = 2  # one computes while the other writes; each job uses all cores
_JOBS_PER_WORKER = 2  # one computes while the next is sent
_ANSWER_S = 10
_RETRIES = 3  # of a job whose worker died


class Workers(NamedTuple):
    """An executor and its limits."""

    executor: Executor
    in_flight: int  # most jobs submitted at a time; it bounds memory
    in_process: bool  # jobs share this process's memory and can report progress


@contextmanager
def workers(address: str | None) -> Iterator[Workers]:
    """Yield the workers of the Dask scheduler at `address`, or threads of this process if it is None."""
    if address is None:
        with ThreadPoolExecutor(_LOCAL_JOBS) as pool:
            yield Workers(pool, _LOCAL_JOBS, in_process=True)
        return
    with _client(address) as client:
        n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        executor = client.get_executor(pure=False, retries=_RETRIES)
        yield Workers(executor, _JOBS_PER_WORKER * n_workers, in_process=False)


def each(
    pool: Workers, job: Callable[..., Result], arguments: Iterable[tuple[Any, ...]], stop: Callable[[], None]
) -> Generator[Result, None, None]:
    """Yield `job(*a)` for each of `arguments` in order of completion, with at most `pool.in_flight` submitted.

    If a job or the caller fails, `stop` is called to end the other jobs, and jobs in this process are waited for.
    """
    waiting = iter(arguments)
    running: set[Future[Result]] = set()
    try:
        while True:
            for given in waiting:
                running.add(pool.executor.submit(job, *given))
                if len(running) >= pool.in_flight:
                    break
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield _result(future)
    except BaseException:
        stop()
        for future in running:
            future.cancel()
        if pool.in_process:
            wait(running)
        raise


def stoppable(advance: Callable[[int], None], pool: Workers) -> tuple[Callable[[int], None], Callable[[], None]]:
    """Return what jobs are to call in place of `advance`, and what ends them: their next such call fails.

    In another process there is no progress bar, so what jobs call there does nothing.
    """
    stopping = Event()

    def advance_or_stop(n: int) -> None:
        if stopping.is_set():
            raise CheckError("interrupted")
        advance(n)

    return advance_or_stop if pool.in_process else tell_nobody, stopping.set


def tell_nobody(n: int) -> None:
    """Do nothing."""


def _result(future: Future[Result]) -> Result:
    try:
        return future.result()
    except HeadstartError:
        raise
    except Exception as error:
        if type(error).__name__ == "KilledWorker":
            raise CheckError(
                f"{_RETRIES + 1} workers of the cluster died while running the same job ({error}). Their logs name the"
                " cause, often a lack of memory. Remove it and run `dvc repro` again: finished shards are kept."
            ) from None
        raise


@contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        import distributed
    except ImportError:
        raise ParamError(
            f"cluster.address is '{address}', but Dask is not installed. Run `pip install 'headstart[cluster]'`, or"
            " set cluster.address to null in params.yaml."
        ) from None
    try:
        client: Any = distributed.Client(address, timeout=_ANSWER_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        said = str(error).splitlines()[0]
        raise (ParamError if isinstance(error, ValueError) else UnreachableError)(
            f"cluster.address is '{address}', but no Dask scheduler answers there ({said}). HOST:PORT of a running"
            " scheduler, or null for this machine alone, was expected. Set cluster.address in params.yaml."
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_ANSWER_S)
        except TimeoutError:
            raise UnreachableError(
                f"cluster.address is '{address}', but its scheduler has no workers. Start some with `dask worker"
                f" {address}` in an environment that has headstart, or set cluster.address to null in params.yaml."
            ) from None
        yield client
