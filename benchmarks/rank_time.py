"""Seconds that ranking four backbones takes, beside embedding all images with the largest of them alone.

Both begin without pixels and features, and find all backbones exported: that happens once a machine. The stages are
processes, as `dvc repro` starts them, in turn, several times. Processor seconds are told beside, which others on the
machine disturb less.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from statistics import median

from benchmarks.harness import arguments, assign, machine, project, result, run, table
from headstart.store.cache import VARIABLE

FOUR = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2", "mobilenet_v2")
LARGEST = "tf_efficientnet_lite2"
TARGET = 2.5


def main() -> None:
    """Print the seconds of each run, and one line of JSON for the ratio."""
    given = arguments(__doc__, repeats=3)
    rows = []
    with project() as root:
        everything = f"[{', '.join(FOUR)}]"
        assign(root, data__root=given.data, rank__backbones=everything, export__licences="any")
        for stage in ("validate", "split", "rank"):  # the last exports, and measures times
            run(root, "python", "-m", "tasks", stage)
        assign(root, backbone__name=LARGEST)
        run(root, "python", "-m", "tasks", "backbone")
        for number in range(given.repeats):
            raced = _timed(root, "rank")
            assign(root, rank__racing="false")
            unraced = _timed(root, "rank")
            assign(root, rank__racing="true", rank__backbones=f"[{LARGEST}]")
            single = _timed(root, "rank")
            assign(root, rank__backbones=everything)
            largest = _timed(root, "transform", "embed")
            rows.append([raced, unraced, single, largest])
            print(f"run {number + 1}: {rows[-1]}", flush=True)
    for place, unit in enumerate(("seconds", "processor seconds")):
        print(unit)
        cells = [[number + 1, *(each[place] for each in row)] for number, row in enumerate(rows)]
        table(["run", "rank four", "without racing", "rank the largest alone", "transform, embed the largest"], cells)
        ratio = median(row[0][place] / row[3][place] for row in rows)
        name = f"{unit.replace(' ', '_')}_of_ranking_four_over_embedding_the_largest"
        result(name, ratio, "times", TARGET, ratio <= TARGET)
        racing = median(row[0][place] / row[1][place] for row in rows)
        result(f"{unit.replace(' ', '_')}_of_racing_over_not_racing", racing, "times", None, None)
    print(machine())


def _timed(root: Path, *stages: str) -> tuple[float, float]:
    """Return the seconds of some stages and those of processors, with no pixels and features in the cache."""
    shutil.rmtree(Path(os.environ[VARIABLE]) / "rows", ignore_errors=True)
    before = os.times()
    seconds = sum(run(root, "python", "-m", "tasks", stage)[0] for stage in stages)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return round(seconds, 2), round(processor, 2)


if __name__ == "__main__":
    main()
