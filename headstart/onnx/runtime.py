"""Run ONNX graphs by onnxruntime on the CPU, and measure how far two results lie apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headstart.base.errors import CheckError

if TYPE_CHECKING:
    import onnxruntime


def session(model: Path | bytes, threads: int = 0, spins: bool = True) -> onnxruntime.InferenceSession:
    """Return a CPU session; `threads` 0 lets onnxruntime take every core.

    `spins`: idle threads look for work without sleeping, which is sooner where nobody else wants the cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not spins:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own exceptions share no base class
        name = "the model" if isinstance(model, bytes) else str(model)
        raise CheckError(f"{name} cannot be loaded by onnxruntime {onnxruntime.__version__}: {error}") from None


class Difference(NamedTuple):
    """How far two feature matrices lie apart."""

    absolute: float
    relative: float  # to the root mean square of the reference


def difference(got: np.ndarray, reference: np.ndarray) -> Difference:
    """Return the largest absolute difference, and that over the reference's root mean square; inf for other shapes."""
    if got.shape != reference.shape:
        return Difference(float("inf"), float("inf"))
    largest = float(np.abs(got.astype(np.float64) - reference).max())
    scale = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    return Difference(largest, largest / scale if scale else float("inf" if largest else 0))
