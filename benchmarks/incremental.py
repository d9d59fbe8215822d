"""What 1 % more images cost: forward passes, counted, and wall time of `dvc repro`, whole and stage by stage.

Also what nothing new costs, and the same night for whoever has named the kind and the levels of the head that were
chosen at first. The counts are the stages' own: the rows that they had to compute.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.harness import arguments, assign, machine, multiplied, project, result, run, table

TARGET_NOTHING_S, TARGET_NIGHT_S, TARGET_VALIDATE_S = 3.0, 12.0, 1.0
STAGES = ("validate", "split", "transform", "embed", "train_head", "audit", "evaluate", "report", "export")


def computed(stage: str, said: str) -> int:
    """Return how many rows the stage says that it computed; 0 where it did not run."""
    found = re.search(rf"^{stage}: (\d+) images computed", said, re.MULTILINE)
    return int(found[1]) if found else 0


def by_stage(root: Path, whole_s: float) -> list[float]:
    """Return the seconds of each of `STAGES`, and what is left of the whole run."""
    timings = json.loads((root / "artifacts" / "timings.json").read_bytes())
    each = [timings[stage]["seconds"] for stage in STAGES]
    return [*each, whole_s - sum(each)]


def main() -> None:
    """Build, do nothing, add, measure; name the head that was chosen, and do it again."""
    given = arguments(__doc__, images=5000)
    n_new = given.images // 100
    rows, stages = [], []
    with project() as root:
        multiplied(given.data, root / "photos", given.images)
        assign(root, data__root="photos")
        run(root, "dvc", "init", "--no-scm", "--force")
        full_s, said = run(root, "dvc", "repro")
        rows.append(["everything", computed("transform", said), computed("embed", said), full_s])
        stages.append(["everything", *by_stage(root, full_s)])
        nothing_s, said = run(root, "dvc", "repro")
        passes = computed("transform", said) + computed("embed", said)
        ran = said.count("Running stage")
        rows.append([f"nothing new ({ran} stages run)", 0, passes, nothing_s])
        multiplied(given.data, root / "photos", n_new, first=given.images)
        more_s, said = run(root, "dvc", "repro")
        decoded, embedded = computed("transform", said), computed("embed", said)
        rows.append([f"{n_new} images more", decoded, embedded, more_s])
        stages.append([f"{n_new} images more", *by_stage(root, more_s)])
        validate_s = stages[-1][1]
        head = json.loads((root / "artifacts" / "head" / "head.json").read_bytes())
        kinds = sorted({member["kind"] for member in head["recipe"]["members"]})
        assign(root, train_head__kinds=json.dumps(kinds), train_head__levels=json.dumps(head["levels"]))
        run(root, "dvc", "repro")
        multiplied(given.data, root / "photos", n_new, first=given.images + n_new)
        named_s, said = run(root, "dvc", "repro")
        named = f"{n_new} images more, {' and '.join(kinds)} on {len(head['levels'])} levels"
        rows.append([named, computed("transform", said), computed("embed", said), named_s])
        stages.append([named, *by_stage(root, named_s)])
    print(f"\n{given.images} photographs; {machine()}")
    table(["`dvc repro`", "images decoded", "images through the network", "seconds"], rows)
    table(["seconds", *STAGES, "the rest"], stages)
    result("incremental_forward_passes", embedded, "images", n_new, embedded == n_new)
    result("incremental_decodes", decoded, "images", n_new, decoded == n_new)
    result("incremental_share_of_a_full_run", more_s / full_s, "", None, None)
    result("incremental_validate", validate_s, "s", TARGET_VALIDATE_S, validate_s < TARGET_VALIDATE_S)
    result("incremental_wall", more_s, "s", TARGET_NIGHT_S, more_s < TARGET_NIGHT_S)
    result("incremental_wall_of_a_named_head", named_s, "s", TARGET_NIGHT_S, named_s < TARGET_NIGHT_S)
    result("nothing_new_passes_and_decodes", passes + ran, "", 0, passes + ran == 0)
    result("nothing_new_wall", nothing_s, "s", TARGET_NOTHING_S, nothing_s < TARGET_NOTHING_S)


if __name__ == "__main__":
    main()
