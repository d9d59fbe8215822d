"""Runs the pipeline on a schedule: `headstart schedule --cron "0 3 * * *" --timezone Europe/Berlin`.

One command starts Prefect's server with its page and SQLite, unless PREFECT_API_URL names one or one runs already, and
starts each run when it is due, one at a time. Ctrl-C ends both.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import cast

from .pipeline import pipeline  # first: it sets variables that Prefect reads on import

# isort: split
from prefect import serve
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Interval, Schedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from headstart.base.errors import HeadstartError, ParamError
from headstart.layout import find_root

from . import files
from .headline import FILES_VARIABLE
from .monitor import Watching, monitor
from .request import Request
from .server import server

_HOUR_S = 3600.0


def deployment(name: str, schedule: Schedule | None, request: Request) -> RunnerDeployment:
    """Return the deployment `headstart/NAME` of Prefect: a schedule, or none, and the request for each of its runs."""
    made = pipeline.to_deployment(
        name,
        schedule=schedule,
        parameters={"request": request.model_dump(exclude_defaults=True)},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast("RunnerDeployment", made)


def watching(schedule: Schedule, request: Watching) -> RunnerDeployment:
    """Return the deployment `monitor/monitor`, which looks at a folder of images for drift."""
    made = monitor.to_deployment(
        "monitor",
        schedule=schedule,
        parameters={"request": request.model_dump(exclude_defaults=True)},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast("RunnerDeployment", made)


def cron(expression: str, timezone: str) -> Schedule:
    """Return the schedule; ParamError if it is invalid."""
    try:
        schedule = Cron(expression, timezone=timezone)
        CronSchedule(cron=expression, timezone=timezone)  # checks the timezone too
        return schedule
    except ValueError as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        said = told.removeprefix("Value error, ")
        raise ParamError(
            f"--cron '{expression}' --timezone '{timezone}' is not a schedule ({said}). Five fields (minute, hour, day,"
            " month, weekday) and the name of a timezone were expected, such as '0 3 * * *' and Europe/Berlin."
        ) from None


def cache_of(root: Path) -> Path:
    """Return the folder in which DVC keeps files by their MD5."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return Path(repo.cache.local.path)


def _seconds(text: str) -> float:
    try:
        value = float(text)
        if timedelta(seconds=value) > timedelta(0):  # which has no NaN, no infinity, and 270,000 years at most
            return value
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is not an interval. A number of seconds above 0 was expected")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    reads = argparse.ArgumentParser(prog="headstart schedule", description="Run the DAG of dvc.yaml on a schedule.")
    when = reads.add_mutually_exclusive_group()
    when.add_argument("--cron", default="0 3 * * *", help="when to run, five fields (default: '%(default)s')")
    when.add_argument("--interval", type=_seconds, metavar="SECONDS", help="run at this interval instead")
    reads.add_argument("--timezone", default="UTC", help="of --cron (default: %(default)s)")
    reads.add_argument(
        "--new-data", type=_seconds, metavar="SECONDS", help="also look for new images, at this interval"
    )
    reads.add_argument("--pull", action="store_true", help="fetch from DVC's remote before each run")
    reads.add_argument("--push", action="store_true", help="send to DVC's remote after each successful run")
    reads.add_argument("--notify", default="", metavar="TYPE/NAME", help="the block to notify of a failure")
    reads.add_argument("--monitor", metavar="FOLDER", help="also look for drift in the images of this folder")
    every = "look at it at this interval (default: an hour)"
    reads.add_argument("--monitor-every", type=_seconds, metavar="SECONDS", help=every)
    reads.add_argument("--retrain", action="store_true", help="start the pipeline when there is drift")
    reads.add_argument("--port", type=int, default=4200, help="of Prefect's page (default: %(default)s)")
    return reads


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit status."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script that starts this with & makes it ignore SIGINT
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop'")  # prefect 3.8.8 never awaits it after SIGTERM
    request = Request(pull=options.pull, push=options.push, notify=options.notify)
    try:
        for option, value in (("--retrain", options.retrain), ("--monitor-every", options.monitor_every)):
            if value and options.monitor is None:
                raise ParamError(f"{option} needs a folder in which to look for drift. Name one with --monitor FOLDER.")
        os.chdir(find_root(Path.cwd()))
        schedule = (
            cron(options.cron, options.timezone)
            if options.interval is None
            else Interval(timedelta(seconds=options.interval))
        )
        deployments = [deployment("scheduled", schedule, request)]
        if options.new_data is not None:
            looking = request.model_copy(update={"only_new_data": True})
            deployments.append(deployment("new-data", Interval(timedelta(seconds=options.new_data)), looking))
        if options.monitor is not None:
            every = Interval(timedelta(seconds=options.monitor_every or _HOUR_S))
            deployments.append(
                watching(
                    every,
                    Watching(
                        images=options.monitor,
                        notify=options.notify,
                        retrain=options.retrain,
                        pull=options.pull,
                        push=options.push,
                    ),
                )
            )
        with (
            server(options.port) as api,
            temporary_settings({PREFECT_API_URL: api}),
            files.served(cache_of(Path.cwd()), options.port + 1) as address,
        ):
            os.environ[FILES_VARIABLE] = address  # for the runs, which are started from here
            print(f"serve: {api.removesuffix('/api')}", flush=True)
            serve(*deployments, limit=1 + (options.monitor is not None))
    except HeadstartError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
