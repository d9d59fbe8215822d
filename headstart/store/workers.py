"""Where jobs run: on threads of this process, or on a Dask cluster. Both are a `concurrent.futures.Executor`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from headstart.base.errors import CheckError, HeadstartError, ParamError, UnreachableError

Result = TypeVar("Result")

_LOCAL_JOBS = 2  # one computes while the other writes what it has; cores are shared out within a job
_JOBS_PER_WORKER = 2  # one computes while the next travels
_ANSWER_S = 10
_RETRIES = 3  # how many workers may die under the same job


class Workers(NamedTuple):
    """An executor and how to feed it."""

    executor: Executor
    in_flight: int  # jobs handed over at a time: what bounds memory
    in_process: bool  # jobs share this process's memory, and can report progress


@contextmanager
def workers(address: str | None) -> Iterator[Workers]:
    """Yield the workers of the Dask scheduler at `address`, or this process's own where it is None."""
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
    """Yield `job(*a)` for each of `arguments` as they finish, with at most `pool.in_flight` handed over.

    Where one fails, or the caller does, `stop` is called to end the others, and those of this process are waited for.
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


def _result(future: Future[Result]) -> Result:
    try:
        return future.result()
    except HeadstartError:
        raise
    except Exception as error:
        if type(error).__name__ == "KilledWorker":
            raise CheckError(
                f"{_RETRIES + 1} workers of the cluster died under the same job ({error}). Their logs say why; often"
                " it is memory. Finished shards stay: mend it and run `dvc repro` again."
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
            f"cluster.address is '{address}', where no Dask scheduler answers ({said}). HOST:PORT of a running one, or"
            " null for this machine alone, was expected. Set cluster.address in params.yaml."
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_ANSWER_S)
        except TimeoutError:
            raise UnreachableError(
                f"cluster.address is '{address}', whose scheduler has no worker. Start some with `dask worker"
                f" {address}` in an environment that has headstart, or set cluster.address to null in params.yaml."
            ) from None
        yield client
