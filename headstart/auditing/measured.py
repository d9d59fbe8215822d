"""What was measured of images before: each image, and each pair of images, is measured once on a machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from headstart.base.progress import warn
from headstart.store.row_cache import RowCache
from headstart.store.shards import Contract, fingerprint
from headstart.store.workers import tell_nobody, workers

if TYPE_CHECKING:
    from headstart.store.arrays import Advance
    from headstart.store.cache import Cache

Measure = Callable[[np.ndarray], np.ndarray]  # int [n], the numbers of keys -> float [n, k]


@dataclass(frozen=True)
class Measured:
    """The measures in this machine's cache of what follows from pixels of one contract."""

    cache: Cache
    pixels: str  # the contract's fingerprint

    def rows(
        self, what: str, width: int, keys: Sequence[str], measure: Measure, known: Advance = tell_nobody
    ) -> np.ndarray:
        """Return float32 [len(keys), width]: what `measure` says of each key, from the cache where it is there.

        `what` names the measure and its version. A key, a SHA-256 in hexadecimal, stands for what is measured, and
        comes once. `measure` is called once for all that is not known, and `known` with the number of the others. Where
        the cache cannot be written, all is measured.
        """
        libraries = " ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
        made_by = fingerprint(measure=what, pixels=self.pixels, libraries=libraries)
        rows = RowCache(self.cache, "measures", Contract(made_by, (width,), "float32"))
        wanted = {key: str(number) for number, key in enumerate(keys)}
        values, is_new = np.empty((len(keys), width), np.float32), np.zeros(len(keys), bool)

        def computed(some: Mapping[str, str], advance: Advance = tell_nobody) -> np.ndarray:
            numbers = np.array([int(number) for number in some.values()], np.int64)
            lacking = numbers[~is_new[numbers]]
            if len(lacking):
                values[lacking], is_new[lacking] = np.reshape(measure(lacking), (len(lacking), width)), True
            advance(len(some))
            return values[numbers]

        if rows.refusal(len(keys)):
            return computed(wanted)
        lacking = rows.lacking(wanted)
        known(len(keys) - len(lacking))
        computed(lacking)
        with workers(None) as pool:
            rows.fill(wanted, computed, pool, report=warn)
        return rows.read(wanted, computed)


def pair_keys(image_ids: Sequence[str], pairs: np.ndarray) -> list[str]:
    """Return a key for each of int [P, 2] pairs of images, whatever their order."""
    joined = ("".join(sorted((image_ids[one], image_ids[other]))) for one, other in pairs.tolist())
    return [sha256(both.encode()).hexdigest() for both in joined]
