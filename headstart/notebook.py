"""The cached features of a finished run as arrays, for a notebook. `headstart.features` is this module's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from headstart import params_file
from headstart.base import dataset
from headstart.base.errors import CheckError
from headstart.embedding import features as cached
from headstart.layout import Layout


class Features(NamedTuple):
    """Every usable image of a run, in the order of its image_id."""

    features: np.ndarray  # float [N, D], what the frozen backbone makes of the image
    labels: np.ndarray  # int64 [N], an index of `classes`
    classes: list[str]
    splits: np.ndarray  # str [N]: 'train', 'val' or 'test'
    image_ids: list[str]  # SHA-256 of the bytes of each image
    paths: list[str]  # relative to the data's folder
    groups: np.ndarray  # str [N]: images of one group are never separated


def features(artifacts: str | Path) -> Features:
    """Return what the stages `split` and `embed` have left in a project's folder `artifacts`.

    CheckError where there is nothing, or where it is damaged. It takes `headstart[pipeline]`.
    """
    folder = Path(artifacts)
    if not folder.is_dir():
        raise CheckError(f"{folder} does not exist. The folder artifacts/ of a finished project was expected.")
    root = folder.resolve().parent
    layout = Layout.of(root, params_file.load(root / "params.yaml"))
    data = dataset.read(layout)
    images = data.of(*dataset.SPLITS)
    return Features(
        cached.opened(layout).read(images.image_ids),
        images.labels,
        data.classes,
        data.table["split"].to_numpy(),
        list(images.image_ids),
        list(images.paths),
        images.groups,
    )
