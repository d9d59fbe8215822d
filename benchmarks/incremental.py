"""What 1 % more images cost: forward passes, counted, and wall time of `dvc repro` against a full run.

Also what nothing new costs. The counts are the stages' own: the rows that they had to compute.
"""

from __future__ import annotations

import re

from benchmarks.harness import arguments, assign, machine, multiplied, project, result, run, table

TARGET_NOTHING_S = 3.0


def computed(stage: str, said: str) -> int:
    """Return how many rows the stage says that it computed; 0 where it did not run."""
    found = re.search(rf"^{stage}: (\d+) images computed", said, re.MULTILINE)
    return int(found[1]) if found else 0


def main() -> None:
    """Build, do nothing, add, measure."""
    given = arguments(__doc__, images=5000)
    n_new = given.images // 100
    rows = []
    with project() as root:
        multiplied(given.data, root / "photos", given.images)
        assign(root, data__root="photos")
        run(root, "dvc", "init", "--no-scm", "--force")
        full_s, said = run(root, "dvc", "repro")
        rows.append(["everything", computed("transform", said), computed("embed", said), full_s])
        nothing_s, said = run(root, "dvc", "repro")
        passes = computed("transform", said) + computed("embed", said)
        ran = said.count("Running stage")
        rows.append([f"nothing new ({ran} stages run)", 0, passes, nothing_s])
        multiplied(given.data, root / "photos", n_new, first=given.images)
        more_s, said = run(root, "dvc", "repro")
        decoded, embedded = computed("transform", said), computed("embed", said)
        rows.append([f"{n_new} images more", decoded, embedded, more_s])
    print(f"\n{given.images} photographs; {machine()}")
    table(["`dvc repro`", "images decoded", "images through the network", "seconds"], rows)
    result("incremental_forward_passes", embedded, "images", n_new, embedded == n_new)
    result("incremental_decodes", decoded, "images", n_new, decoded == n_new)
    result("incremental_share_of_a_full_run", more_s / full_s, "", None, None)
    result("nothing_new_passes_and_decodes", passes + ran, "", 0, passes + ran == 0)
    result("nothing_new_wall", nothing_s, "s", TARGET_NOTHING_S, nothing_s < TARGET_NOTHING_S)


if __name__ == "__main__":
    main()
