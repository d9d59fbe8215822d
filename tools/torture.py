"""Disturbs a small project again and again, and looks whether one plain run mends it: `make torture HOURS=1`.

Kills, signals, full and failing disks, jumps of the clock and little memory at random moments in every stage; see
tests/support/faults.py. The seed is printed first, and `SEED=...` gives the same series again. Each trial is a line of
torture.jsonl. Exit status 1 if a trial was lost: the project was not as before after one plain run.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from tests.support.faults import KILLS, KINDS, Outcome, Torture
from tests.support.projects import Project, begun

_SMALL = ("finetune.enabled=true", "finetune.epochs=1", "finetune.warmup_epochs=0")


def tortured(project: Project, seed: str, until: float, tell: Lock, log: Path, kills_only: bool) -> list[Outcome]:
    """Run trials on one project until a time; a lost one ends the series."""
    torture, outcomes = Torture(project, random.Random(seed)), []
    while time.monotonic() < until:
        outcome = torture.trial(kind=torture.random.choice(KILLS) if kills_only else "")
        outcomes.append(outcome)
        with tell, log.open("a", encoding="utf-8") as file:
            file.write(outcome.line() + "\n")
            if outcome.problem:
                print(f"lost: {outcome.line()}", flush=True)
        if outcome.problem:
            break
    return outcomes


def has_killed(outcome: Outcome) -> bool:
    """Return whether a kill came before the stage had ended by itself."""
    return outcome.kind in KILLS and outcome.status != 0


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--jobs", type=int, default=2, help="projects that are disturbed at a time")
    parser.add_argument("--kills", action="store_true", help="kills alone")
    parser.add_argument("--project", type=Path, help="a finished small project to copy (default: a new one)")
    parser.add_argument("--log", type=Path, default=Path("torture.jsonl"))
    options = parser.parse_args()
    print(f"torture: seed {options.seed}, {options.jobs} projects, {options.hours:g} h", flush=True)
    with tempfile.TemporaryDirectory(prefix="headstart-torture-") as name:
        if options.project:
            base = Project(options.project)
        else:
            base = begun(Path(name) / "base", *_SMALL)
            base.must("dvc", "repro")
        projects = [base.copy(Path(name) / f"project-{number}") for number in range(options.jobs)]
        for project in projects:  # DVC's notes on files are of the original
            project.must("dvc", "repro")
        until, tell = time.monotonic() + 3600 * options.hours, Lock()
        with ThreadPoolExecutor(options.jobs) as pool:
            jobs = [
                pool.submit(tortured, project, f"{options.seed}/{number}", until, tell, options.log, options.kills)
                for number, project in enumerate(projects)
            ]
            outcomes = [outcome for job in jobs for outcome in job.result()]
    counts = Counter(outcome.kind for outcome in outcomes)
    for kind in KINDS:
        some = [outcome for outcome in outcomes if outcome.kind == kind]
        mended, lost = sum(each.mended for each in some), sum(bool(each.problem) for each in some)
        print(f"  {kind:<16} {counts[kind]:5} trials, {mended} with locks or dvc.lock to mend, {lost} lost")
    n_kills, n_lost = sum(map(has_killed, outcomes)), sum(bool(each.problem) for each in outcomes)
    print(f"torture: seed {options.seed}: {len(outcomes)} trials, {n_kills} kills, {n_lost} lost", flush=True)
    return 1 if n_lost or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
