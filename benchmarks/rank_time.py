"""Seconds that ranking four backbones takes, beside embedding all images with the largest of them alone.

Both begin without pixels and features, and find all backbones exported: that happens once a machine. The stages are
processes, as `dvc repro` starts them, in turn, several times.
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
    rows, ratios, racing = [], [], []
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
            ratios.append(raced / largest)
            racing.append(raced / unraced)
            rows.append([number + 1, raced, unraced, single, largest, raced / largest, unraced / largest])
    header = ["run", "rank four", "without racing", "rank the largest alone", "transform, embed the largest"]
    table([*header, "ratio", "ratio without racing"], rows)
    print(machine())
    ratio = median(ratios)
    result("rank_four_over_embedding_the_largest", ratio, "times", TARGET, ratio <= TARGET)
    result("racing_over_not_racing", median(racing), "times", None, None)


def _timed(root: Path, *stages: str) -> float:
    """Return the seconds of some stages, with no pixels and features in the cache."""
    shutil.rmtree(Path(os.environ[VARIABLE]) / "rows", ignore_errors=True)
    return sum(run(root, "python", "-m", "tasks", stage)[0] for stage in stages)


if __name__ == "__main__":
    main()
