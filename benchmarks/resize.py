"""The piece `resize` beside ONNX's operator Resize and beside Pillow: processor time, and differences from Pillow.

Each direction of Pillow is asked for by itself, since their order depends on its version. Times are of one thread and
count the processor alone, so other work on the machine matters less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.harness import arguments, machine, result, table
from headstart.images import decoding
from headstart.onnx import pieces, runtime
from headstart.onnx.resize import resize_graph

SHAPES = ((375, 500), (1200, 1600), (3000, 4000), (8, 20_000))
SIDES_PX = (64, 256, 700)
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
Resize = Callable[[np.ndarray], np.ndarray]


def operator(size_px: int, interpolation: str) -> onnx.ModelProto:
    """Return a graph that cuts out the centre square and resizes it by ONNX's operator."""
    kernels = {
        "bilinear": {"mode": "linear"},
        "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
    }
    nodes = [
        helper.make_node("Shape", ["image"], ["sides"], start=1, end=3),
        helper.make_node("ReduceMin", ["sides"], ["side"], keepdims=1),
        helper.make_node("Sub", ["sides", "side"], ["margins"]),
        helper.make_node("Div", ["margins", "two"], ["starts"]),
        helper.make_node("Add", ["starts", "side"], ["ends"]),
        helper.make_node("Slice", ["image", "starts", "ends", "axes"], ["square"]),
        helper.make_node("Resize", ["square", "", "", "shape"], ["pixels"], antialias=1, **kernels[interpolation]),
    ]
    constants = {"two": [2], "axes": [1, 2], "shape": [1, size_px, size_px, 3]}
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "H", "W", 3])],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, size_px, size_px, 3])],
        [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in constants.items()],
    )
    return pieces.finished(graph)


def ways(size_px: int, interpolation: str) -> dict[str, Resize]:
    """Return what makes a square of uint8 [H, W, 3]."""

    def of(model: onnx.ModelProto) -> Resize:
        session = runtime.session(pieces.to_bytes(model), threads=1)
        return lambda rgb: session.run(None, {"image": rgb[None]})[0][0]

    def pillow(rgb: np.ndarray) -> np.ndarray:
        height, width = rgb.shape[:2]
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        square = Image.fromarray(rgb[top : top + side, left : left + side])
        rows = square.resize((size_px, side), FILTERS[interpolation])
        return np.asarray(rows.resize((size_px, size_px), FILTERS[interpolation]))

    return {
        "resize.onnx": of(resize_graph(size_px, interpolation)),
        "Resize": of(operator(size_px, interpolation)),
        "Pillow": pillow,
    }


def times(interpolation: str, shape: tuple[int, int], repeats: int) -> dict[str, float]:
    """Return the median milliseconds of each way, side by side."""
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    known = ways(256, interpolation)
    found: dict[str, list[float]] = {name: [] for name in known}
    for _ in range(repeats + 1):
        for name, resize in known.items():
            began = time.thread_time()
            resize(rgb)
            found[name].append((time.thread_time() - began) * 1000)
    return {name: float(np.median(each[1:])) for name, each in found.items()}  # the first opens and allocates


def differences(folder: Path) -> list[list[object]]:
    """Return a row for each filter, way and size: the largest difference from Pillow, and the share that differs."""
    photographs = [decoding.decode(path.read_bytes()).rgb for path in sorted(folder.rglob("*.jpg"))[:40]]
    rows: list[list[object]] = []
    for interpolation in FILTERS:
        for name in ("resize.onnx", "Resize"):
            row: list[object] = [interpolation, name]
            for size_px in SIDES_PX:
                known = ways(size_px, interpolation)
                apart = [np.abs(known[name](rgb).astype(int) - known["Pillow"](rgb)) for rgb in photographs]
                row.append(f"{max(each.max() for each in apart)}; {max((each > 0).mean() for each in apart):.4%}")
            rows.append(row)
    return rows


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, repeats=15)
    print(f"{machine()}; one thread; medians of {given.repeats}; the centre square to 256 px")
    rows = []
    for interpolation in FILTERS:
        for height, width in SHAPES:
            found = times(interpolation, (height, width), given.repeats)
            ratio = found["resize.onnx"] / found["Resize"]
            rows.append([interpolation, f"{width} x {height}", *found.values(), ratio])
            if interpolation == "bicubic" and height > 8:
                limit = 1.1 if height == 375 else 1.0
                result(f"resize_over_operator_{width}x{height}", ratio, "times", limit, ratio <= limit)
    table(["filter", "image", "resize.onnx, ms", "Resize, ms", "Pillow, ms", "resize.onnx over Resize"], rows)
    print("Largest difference from Pillow in levels; share of values that differ, worst photograph")
    table(["filter", "", *(f"to {size_px} px" for size_px in SIDES_PX)], differences(given.data))


if __name__ == "__main__":
    main()
