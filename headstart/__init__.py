"""Transfer learning as a reproducible pipeline: a folder of labelled images in, one checked ONNX model out.

From Python: `headstart.load(FOLDER)` is a finished model, `headstart.features(ARTIFACTS)` the cached features of a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.handover.model import load as load
    from headstart.notebook import features as features

__all__ = ["features", "load"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: a stage wants neither, and those who deploy only `load`."""
    if name == "load":
        from headstart.handover.model import load

        return load
    if name == "features":
        from headstart.notebook import features

        return features
    raise AttributeError(f"module 'headstart' has no attribute '{name}'")
