"""Comparing candidates: what cannot be compared is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headstart.base.errors import ParamError
from headstart.ranking.compare import _Judge, check_finite


class Few(SimpleNamespace):
    """Images that a judge takes."""

    def __getitem__(self, part: np.ndarray) -> Few:
        return self

    def __len__(self) -> int:
        return len(self.labels)


@pytest.mark.parametrize(("value", "dtype"), [(np.inf, "float16"), (np.nan, "float32")])
def test_features_that_are_not_finite_name_the_candidate_and_the_type(value: float, dtype: str) -> None:
    features = np.ones((4, 3), np.float32)
    features[1:3, 2] = value
    candidate = SimpleNamespace(label="net", record=SimpleNamespace(levels=[]))

    class Embeds(SimpleNamespace):
        def __call__(self, wanted: Any, advance: Any) -> np.ndarray:
            return features

    embeds: Any = Embeds(candidate=candidate, computing=SimpleNamespace(dtype=dtype))
    images: Any = Few(where={}, labels=np.array([0, 0, 1, 1]), groups=np.arange(4))
    settings: Any = None
    with pytest.raises(ParamError, match=rf"'net', whose features of 2 of 4 images are not finite, .*{dtype}") as told:
        _Judge([embeds], images, 2, settings, {})(0, np.arange(4))
    assert ("Set embed.dtype to float32" in str(told.value)) == (dtype != "float32")


def test_finite_features_pass() -> None:
    check_finite(np.ones((2, 2)), "net", "float32")
