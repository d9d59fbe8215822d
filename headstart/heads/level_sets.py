"""Which levels of the backbone a head may read: the sets that cross-validation chooses among."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.errors import ParamError, count_and_name
from headstart.onnx.backbone_folder import LAST, LevelRecord


@dataclass(frozen=True)
class LevelSet:
    """Levels that a head reads together."""

    name: str  # 'last', 'stages', 'stages + last', 'upper half + last' or 'named'
    levels: tuple[str, ...]
    columns: np.ndarray  # int [D], of all features


def level_sets(known: Sequence[LevelRecord], wanted: str | Sequence[str]) -> list[LevelSet]:
    """Return the sets for train_head.levels, `known` being the backbone's levels from the input to `last`.

    `auto` gives up to four. ParamError for a level that the backbone does not have.
    """
    names = [level.name for level in known]
    *stages, last = names
    everything = (("stages + last", names) if stages else (LAST, names),)
    sets: tuple[tuple[str, list[str]], ...]
    if wanted == LAST:
        sets = ((LAST, [last]),)
    elif wanted == "all":
        sets = everything
    elif wanted == "auto":
        upper = [*stages[len(stages) // 2 :], last]
        sets = ((LAST, [last]), ("stages", stages), ("upper half + last", upper), *everything)
    else:
        if unknown := [name for name in wanted if name not in names]:
            raise ParamError(
                f"train_head.levels names {count_and_name(unknown)}, which the backbone does not have. Levels of"
                f" {', '.join(names)} were expected. Set train_head.levels in params.yaml."
            )
        sets = (("named", [name for name in names if name in wanted]),)
    first_of = {tuple(levels): name for name, levels in reversed(sets) if levels}
    return [LevelSet(name, levels, columns_of(known, levels)) for levels, name in reversed(first_of.items())]


def columns_of(known: Sequence[LevelRecord], levels: Sequence[str]) -> np.ndarray:
    """Return int [D]: the columns of some levels, in the order in which they are stored."""
    return np.concatenate([np.arange(each.start, each.start + each.width) for each in known if each.name in levels])
