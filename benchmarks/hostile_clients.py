"""A good client of `headstart serve` alone and among fifty hostile ones, and the server's memory, in one run.

    python -m benchmarks.hostile_clients              # four minutes: four times half a minute of each, by turns

The hostile clients are those of tests/support/hostile_clients.py: headers that never end, bodies that drip or stop
before their end, pictures that claim four billion pixels, and clients that hang up. Expected: the good client's slowest
hundredth takes less than three times as long, and memory grows by less than 300 MB.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import arguments, machine, result, table
from tests.support.hostile_clients import measured
from tests.support.serving import SMALL, served


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, data=False, turns=4, seconds=30.0)
    with tempfile.TemporaryDirectory() as name, served(SMALL, Path(name) / "log", "--send-seconds", "10") as serving:
        found = measured(serving, given.turns, given.seconds)
    rows = [
        [who, len(times), n_refused, *(1e3 * float(np.percentile(times, share)) for share in (50, 99))]
        for who, times, n_refused in zip(
            ("alone", "among hostile ones"), (found.undisturbed_s, found.disturbed_s), found.n_refused, strict=True
        )
    ]
    table(["a good client", "answers", "refused", "p50, ms", "p99, ms"], rows)
    print(f"memory {found.before_mb:.0f} MB before, {found.peak_mb:.0f} MB at most; {machine()}")
    alone, among = found.p99_s
    result("hostile_p99_ratio", among / alone, "", 3.0, among < 3 * alone)
    grown = found.peak_mb - found.before_mb
    result("hostile_memory_growth", grown, "MB", 300.0, grown < 300)


if __name__ == "__main__":
    main()
