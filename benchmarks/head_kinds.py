"""Every kind of head on every set of levels, cross-validated on the features of this project; and what each costs.

To be run in a project whose `dvc repro` has finished. The test split is not read.
"""

from __future__ import annotations

import time

from benchmarks.harness import ROOT, arguments, machine, table
from headstart.base import dataset
from headstart.base.dataset import TRAIN, VAL
from headstart.base.errors import CheckError
from headstart.embedding import features
from headstart.heads import sweep
from headstart.heads.design import Source
from headstart.heads.kinds import KINDS
from headstart.heads.level_sets import level_sets
from headstart.layout import Layout
from headstart.params_file import load


def main() -> None:
    """Print a line for each kind and set of levels."""
    arguments(__doc__, data=False)
    params = load(ROOT / "params.yaml")
    values, layout = params.train_head, Layout.of(ROOT, params)
    try:
        data, cached = dataset.read(layout), features.opened(layout)
    except CheckError as error:
        raise SystemExit(f"this project has no features yet: {error}") from error
    images = data.of(TRAIN, VAL)
    source = Source(cached.rows(images.image_ids), None, images.labels, images.groups)
    lines = []
    for levels in level_sets(cached.record.levels, "auto"):
        for kind in KINDS.values():
            settings = sweep.Settings(
                [kind], [levels], values.strengths, values.folds, values.seed, values.memory_mb, with_blend=False
            )
            began = time.perf_counter()
            found = sweep.select(source, len(data.classes), settings).chosen
            seconds = time.perf_counter() - began
            nested = "" if found.nested_accuracy is None else f"{found.nested_accuracy:.2%}"
            interval = "" if found.nested_low is None else f"{found.nested_low:.2%} to {found.nested_high:.2%}"
            lines.append(
                [
                    kind.NAME,
                    levels.name,
                    found.n_features,
                    f"{found.cv_accuracy:.2%}",
                    f"{found.cv_log_loss:.4f} ± {found.cv_log_loss_se:.4f}",
                    nested,
                    interval,
                    round(4 * found.n_numbers / 1000),
                    seconds,
                ]
            )
    print(f"{len(images)} images, {len(data.classes)} classes; {machine()}")
    header = ["kind", "levels", "features", "accuracy", "log loss", "nested", "95% interval", "head, kB", "seconds"]
    table(header, lines)


if __name__ == "__main__":
    main()
