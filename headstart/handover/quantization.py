"""Quantises the backbone to 8-bit integers by onnxruntime's static quantisation, in the ways that are worth a try.

Weights are int8 and activations uint8, as pairs of QuantizeLinear and DequantizeLinear. Which way keeps the accuracy
depends on the network. The speed, and for some ways even the result, depends on the processor's instructions.
"""

from __future__ import annotations

import itertools
import logging
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headstart.base.paired import advantage

if TYPE_CHECKING:
    import onnx

N_CALIBRATION = 128  # images whose activations set the ranges; more images change them little
_BATCH_IMAGES = 8
_MULTIPLYING = ("Conv", "Gemm", "MatMul")
Z = 1.6449  # the 95th percentile of the standard normal distribution


class Way(NamedTuple):
    """A way to quantise."""

    per_channel: bool  # one scale per output channel of a weight, not one for all
    reduce_range: bool  # 7-bit weights: without VNNI the sum of two 8-bit products may overflow 16 bits
    whole: bool  # including the first and the last layer, the most sensitive ones

    def __str__(self) -> str:
        weights = "7-bit weights" if self.reduce_range else "8-bit weights"
        scales = "one scale per channel" if self.per_channel else "one scale per layer"
        return f"{weights}, {scales}, {'all layers' if self.whole else 'all but the first and last layer'}"


class QuantizationError(Exception):
    """onnxruntime could not quantise a network; the message gives the reason."""


WAYS = tuple(Way(*way) for way in itertools.product((True, False), (False, True), (True, False)))


def quantised(backbone: bytes, calibration: np.ndarray) -> Iterator[tuple[Way, bytes]]:
    """Yield the backbone, in ONNX, quantised in each way; `calibration` uint8 [N, S, S, 3] are training images.

    Crop and normalisation stay in float: in integers they would cost more than they save. QuantizationError if
    onnxruntime fails.
    """
    with tempfile.TemporaryDirectory() as name, _quiet():
        try:
            yield from _quantised(backbone, calibration, Path(name))
        except Exception as error:  # the library may fail on a network in any way
            first_line = (str(error).splitlines() or [""])[0]
            raise QuantizationError(f"{type(error).__name__}: {first_line}") from error


def _quantised(backbone: bytes, calibration: np.ndarray, folder: Path) -> Iterator[tuple[Way, bytes]]:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    (folder / "float.onnx").write_bytes(backbone)
    quant_pre_process(folder / "float.onnx", folder / "prepared.onnx", skip_symbolic_shape=True)
    nodes = onnx.load(folder / "prepared.onnx").graph.node
    multiplying = [number for number, node in enumerate(nodes) if node.op_type in _MULTIPLYING]
    if not multiplying:
        raise ValueError(f"no node is one of {', '.join(_MULTIPLYING)}")
    before = [node.name for node in nodes[: multiplying[0]]]
    ends = [nodes[number].name for number in (multiplying[0], multiplying[-1])]
    for way in WAYS:
        quantize_static(
            folder / "prepared.onnx",
            folder / "quantised.onnx",
            _reader(calibration),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=way.per_channel,
            reduce_range=way.reduce_range,
            nodes_to_exclude=before if way.whole else before + ends,
            calibration_cache_path=folder / "ranges.json",
        )
        model = onnx.load(folder / "quantised.onnx")
        model.graph.name = "backbone"
        yield way, _shipped(model)


def drop(float_right: np.ndarray, int8_right: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return the drop of accuracy from float to int8, by right answers bool [N], and its one-sided 95 % bound.

    The bound is the larger of two: Wald's with half a pair added to each cell (Agresti & Min 2005, section 3), which
    is valid for few images, and the one that keeps groups [N] whole.
    """
    n_lost, n_won = int((float_right & ~int8_right).sum()), int((~float_right & int8_right).sum())
    n = len(float_right) + 2
    mean = (n_lost - n_won) / n
    error = ((n_lost + n_won + 1) - n * mean**2) ** 0.5 / n
    clustered = advantage((~int8_right).astype(float), (~float_right).astype(float), groups)
    bound = max(mean + Z * error, clustered.mean + Z * clustered.standard_error if len(groups) > 1 else 1.0)
    return clustered.mean, min(bound, 1.0)


def instruction_set() -> str:
    """Return this processor's architecture and its instruction sets that matter for 8-bit products."""
    wanted = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp")
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    lines = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    known = set(lines[0].split()) if lines else set()
    found = [name for name in wanted if name in known]
    return f"{platform.machine()} with {', '.join(found)}" if found else platform.machine()


def _reader(images: np.ndarray) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._starts = iter(range(0, len(images), _BATCH_IMAGES))

        def get_next(self) -> dict[str, np.ndarray] | None:
            start = next(self._starts, None)
            return None if start is None else {"pixels": images[start : start + _BATCH_IMAGES]}

    return Reader()


def _shipped(model: onnx.ModelProto) -> bytes:
    """Return the model's bytes without what depends on this machine."""
    model.producer_name, model.producer_version, model.doc_string = "headstart", "", ""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node}  # onnxruntime lists every domain that it knows
    imports = [each for each in model.opset_import if each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


class _quiet:  # noqa: N801 used as a function
    """Hides onnxruntime's warnings."""

    def __enter__(self) -> None:
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        logging.disable(self._level)
