"""The cached features of a finished run as arrays, for notebooks: the function `headstart.features`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from headstart import params_file
from headstart.base import dataset
from headstart.base.errors import CheckError
from headstart.embedding import features as cached
from headstart.layout import Layout

PARAMS = "params.yaml"


class Features(NamedTuple):
    """Every usable image of a run, sorted by image_id."""

    features: np.ndarray  # float [N, D], the frozen backbone's output: all its levels, side by side
    labels: np.ndarray  # int64 [N], indices of `classes`
    classes: list[str]
    splits: np.ndarray  # str [N]: 'train', 'val' or 'test'
    image_ids: list[str]  # SHA-256 of each image's bytes
    paths: list[str]  # relative to the data's folder
    groups: np.ndarray  # str [N]; images of one group always stay together
    levels: dict[str, slice]  # the columns of each level; 'last' has what the network's own classifier would read


def features(artifacts: str | Path) -> Features:
    """Return the features that `embed` wrote to a project's folder `artifacts`, with the labels and splits of `split`.

    CheckError if they are missing or damaged. Needs `headstart[pipeline]`.
    """
    folder = Path(artifacts)
    root = folder.resolve().parent
    if not (folder.is_dir() and (root / PARAMS).is_file() and folder.resolve() == Layout(root).artifacts):
        raise CheckError(f"'{artifacts}' is not the folder artifacts/ of a project, beside its {PARAMS}, as expected.")
    layout = Layout.of(root, params_file.load(root / PARAMS))
    data = dataset.read(layout)
    images, stored = data.of(*dataset.SPLITS), cached.opened(layout)
    return Features(
        stored.read(images.image_ids),
        images.labels,
        data.classes,
        data.table["split"].to_numpy(),
        list(images.image_ids),
        list(images.paths),
        images.groups,
        {each.name: slice(each.start, each.start + each.width) for each in stored.record.levels},
    )
