"""Runs a finished model in one of several runtimes, from pixels to probabilities.

onnxruntime is the one that `export` checks the model in. The others are implementations of their own, so that an answer
they share is the model's and not one library's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headstart.base.errors import CheckError
from headstart.onnx.runtime import session

if TYPE_CHECKING:
    from collections.abc import Mapping

Run = Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, 3] -> float32 [N, C], probabilities
DEFAULT = "onnxruntime"


class Runtime(NamedTuple):
    """A model, loaded by a runtime."""

    name: str
    version: str
    run: Run


def opened(name: str, model: Path) -> Runtime:
    """Return the runtime `name` of `NAMES` with a model.onnx; CheckError if its package is missing, or refuses it."""
    try:
        return _OPENERS[name](model)
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        if package != _PACKAGES[name]:
            raise  # a package that is installed, and broken
        raise CheckError(
            f"--runtime {name} needs the package {package}, which is not installed. Run `pip install {package}`."
        ) from None


def _onnxruntime(model: Path) -> Runtime:
    import onnxruntime

    loaded = session(model)

    def run(pixels: np.ndarray) -> np.ndarray:
        found: np.ndarray = loaded.run(["probabilities"], {"image": pixels})[0]
        return found

    return Runtime("onnxruntime", onnxruntime.__version__, run)


def _openvino(model: Path) -> Runtime:
    import openvino

    version = openvino.__version__.partition("-")[0]
    try:  # in float32: OpenVINO would take bfloat16 or float16 where a processor has it
        precise = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(str(model), "CPU", precise).create_infer_request()
    except RuntimeError as error:
        raise _refused(model, f"OpenVINO {version}", error) from None

    def run(pixels: np.ndarray) -> np.ndarray:
        request.infer({"image": np.ascontiguousarray(pixels)})
        return np.array(request.get_tensor("probabilities").data, np.float32)

    return Runtime("openvino", version, run)


def _reference(model: Path) -> Runtime:
    """Return onnx's own evaluator, which says in numpy what each operator means. It is slow."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    version = onnx.__version__
    try:
        loaded = ReferenceEvaluator(str(model))
    except Exception as error:  # it raises of many kinds for operators that it does not know
        raise _refused(model, f"onnx {version}", error) from None

    def run(pixels: np.ndarray) -> np.ndarray:
        found: Any = loaded.run(["probabilities"], {"image": pixels})
        return np.asarray(found[0], np.float32)

    return Runtime("reference", version, run)


def _refused(model: Path, runtime: str, error: Exception) -> CheckError:
    said = " ".join(str(error).split())[-300:]  # OpenVINO names the operator last
    return CheckError(
        f"{model} cannot be loaded by {runtime}: {said} Every operator of the model was expected to be known."
        " Install a newer version, or use onnxruntime."
    )


_OPENERS: Mapping[str, Callable[[Path], Runtime]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "reference": _reference,
}
_PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "reference": "onnx"}
NAMES = tuple(_OPENERS)
