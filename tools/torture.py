"""Disturbs a small project again and again, and looks whether one plain run mends it: `make torture HOURS=1`.

Kills, signals, full and failing disks, jumps of the clock and little memory at random moments in every stage; see
tests/support/faults.py. The seed is printed first, and `SEED=...` gives the same series again. `KILLS=500` disturbs by
kills alone, until so many have hit a stage at work or the hours are over. `python -m tools.torture --help` shows what
else there is. Each trial is a line of torture.jsonl. Exit status 1 if a trial was lost: the project was not as before
after one plain run.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Lock

from tests.support.cluster import Cluster
from tests.support.faults import KILL_A_WORKER, KILLS, KINDS, Outcome, Torture
from tests.support.projects import Project, begun

_SMALL = ("finetune.enabled=true", "finetune.epochs=1", "finetune.warmup_epochs=0")


class Series:
    """Trials on several projects at a time, until a time, or until enough kills have hit."""

    def __init__(self, until: float, enough: int, kinds: Sequence[str], log: Path) -> None:
        self.outcomes: list[Outcome] = []
        self._until, self._enough, self._kinds, self._log = until, enough or sys.maxsize, kinds, log
        self._lock = Lock()

    def run(self, torture: Torture) -> None:
        """Disturb one project again and again; a lost trial ends its series."""
        while time.monotonic() < self._until and sum(map(has_killed, self.outcomes)) < self._enough:
            outcome = torture.trial(torture.random.choice(self._kinds))
            with self._lock, self._log.open("a", encoding="utf-8") as file:
                self.outcomes.append(outcome)
                file.write(outcome.line() + "\n")
                if outcome.problem:
                    print(f"lost: {outcome.line()}", flush=True)
            if outcome.problem:
                return


def has_killed(outcome: Outcome) -> bool:
    """Return whether a kill came before the stage had ended by itself."""
    return outcome.kind in KILLS and outcome.status != 0


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--jobs", type=int, default=2, help="projects that are disturbed at a time")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kills alone, until N have hit")
    parser.add_argument("--under", choices=["dvc", "flow"], default="dvc", help="what runs the stage that is disturbed")
    parser.add_argument("--dask", action="store_true", help="`transform` and `embed` alone, on workers of Dask")
    parser.add_argument("--project", type=Path, help="a finished small project to copy (default: a new one)")
    parser.add_argument("--log", type=Path, default=Path("torture.jsonl"))
    options = parser.parse_args()
    if options.dask and options.project:
        parser.error("--dask makes a project of its own, whose workers it starts: --project was not expected")
    print(f"torture: seed {options.seed}, {options.jobs} projects, {options.hours:g} h", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headstart-torture-")))
        cluster, settings = None, [*_SMALL]
        if options.dask:
            cluster = Cluster(folder / "dask.log")
            stack.callback(cluster.stop)
            settings.append(f"cluster.address={cluster.address}")
        if options.project:
            base = Project(options.project)
        else:
            base = begun(folder / "base", *settings)
            base.must("dvc", "repro")
        projects = [base.copy(folder / f"project-{number}") for number in range(options.jobs)]
        for project in projects:  # DVC's notes on files are of the original
            project.must("dvc", "repro")
        kinds = (*(KILLS if options.kills else KINDS), *([KILL_A_WORKER] if options.dask else []))
        series = Series(time.monotonic() + 3600 * options.hours, options.kills, kinds, options.log)
        tortured = [
            Torture(project, random.Random(f"{options.seed}/{number}"), options.under, cluster)
            for number, project in enumerate(projects)
        ]
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(series.run, tortured))
        outcomes = series.outcomes
    counts = Counter(outcome.kind for outcome in outcomes)
    for kind in kinds:
        some = [outcome for outcome in outcomes if outcome.kind == kind]
        mended, lost = sum(each.mended for each in some), sum(bool(each.problem) for each in some)
        print(f"  {kind:<16} {counts[kind]:5} trials, {mended} with locks or dvc.lock to mend, {lost} lost")
    n_kills, n_lost = sum(map(has_killed, outcomes)), sum(bool(each.problem) for each in outcomes)
    print(f"torture: seed {options.seed}: {len(outcomes)} trials, {n_kills} kills, {n_lost} lost", flush=True)
    return 1 if n_lost or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
