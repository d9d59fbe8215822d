"""The piece `resize`: an image of any size becomes a square, as Pillow makes it, by operators that every runtime has.

`image` uint8 [N, H, W, 3], any H and W -> `pixels` uint8 [N, S, S, 3]

ONNX has an operator for this, Resize with antialiasing. Its implementations give different images, and some runtimes
have none. Here the graph computes the weights of Pillow's filter from the image's height and width, and applies them as
matrix products, first along the rows and then along the columns (Pillow, src/libImaging/Resample.c).

A position of the square depends on few pixels of the image. So positions are taken in blocks, and the product of a
block reads only the pixels that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.onnx.pieces import finished

if TYPE_CHECKING:
    import onnx

    from headstart.onnx.backbone_folder import Fit

_BLOCK = 16  # positions; fewer read pixels more often, more multiply by zeros
_SUPPORT = {"bilinear": 1, "bicubic": 2}  # reach of the filter, in pixels of the square or the image, the larger ones
_HIGH, _LOW = 2**14, 2**8  # a weight's two parts; see `_digits`
_HEIGHT, _WIDTH = 1, 3  # axes of the planes, [N, H, 3, W]: a row of each channel, so that a product reads along rows


def resize_graph(size_px: int, interpolation: str, fit: Fit = "crop", bar_level: int = 0) -> onnx.ModelProto:
    """Return the graph that makes an image a square of `size_px`, by Pillow's filter `interpolation`.

    `fit` crop takes the centre square, squeeze the whole image, and pad the whole image with bars of the grey
    `bar_level` above and below, or left and right.

    Bilinear values are Pillow's. About one bicubic value in ten thousand differs, by one level, since Pillow computes
    the weights in double precision. Pillow 13 takes the columns of a tall image first; earlier versions and this graph
    always take the rows first.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    image, sides = "image", [graph("Shape", "image", start=axis, end=axis + 1) for axis in (1, 2)]
    if fit == "crop":
        image, side = _centre_square(graph, image, sides)
        rows = columns = _weights(graph, side, _Target(size_px, graph.int64(size_px)), interpolation)
    else:
        targets = [_Target(size_px, graph.int64(size_px))] * 2
        if fit == "pad":
            targets = [_padded(graph, side, graph("Max", *sides), size_px) for side in sides]
        rows, columns = (_weights(graph, *each, interpolation) for each in zip(sides, targets, strict=True))
    planes = _across(graph, graph("Transpose", image, perm=[0, 1, 3, 2]), columns, bar_level)
    planes = _down(graph, planes, rows, bar_level)
    graph("Transpose", graph("Cast", planes, to=TensorProto.UINT8), perm=[0, 1, 3, 2], name="pixels")
    return finished(
        helper.make_graph(
            graph.nodes,
            "resize",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size_px, size_px, 3])],
            graph.constants,
        )
    )


@dataclass(frozen=True)
class _Target:
    """One side of the square."""

    size_px: int
    inner: str  # int64 [1]: how many of these the image takes
    before: str = ""  # int64 [1]: how many the bar before it takes; "" without bars

    @property
    def blocks(self) -> int:
        return -(-self.size_px // _BLOCK)

    def positions(self, step: int = 1) -> list[int]:
        """Return every position, or every one that is `step` from the last; blocks are filled up with the last one."""
        return [min(position, self.size_px - 1) for position in range(0, self.blocks * _BLOCK, step)]


@dataclass(frozen=True)
class _Weights:
    """The filter along one axis."""

    target: _Target
    digits: str  # float32 [L, 2 * positions]: for each block the high digits and then the low ones
    starts: list[str]  # int64 [1] for each block: the first of the L pixels that it reads
    ends: list[str]
    is_bar: str  # float32 [positions], 1 in a bar; "" without bars


def _centre_square(graph: _Graph, image: str, sides: list[str]) -> tuple[str, str]:
    """Cut the centre square out first, which keeps the cost of a 1 x 20000 image small; return it and its side."""
    side = graph("Min", *sides)
    starts = graph("Div", graph("Sub", graph("Concat", *sides, axis=0), side), graph.int64(2))
    return graph("Slice", image, starts, graph("Add", starts, side), graph.int64(1, 2)), side


def _padded(graph: _Graph, side: str, longer: str, size_px: int) -> _Target:
    """Return how a side lies in the square: scaled as the longer one, rounded, and 1 at least."""
    twice = graph("Add", graph("Mul", side, graph.int64(2 * size_px)), longer)
    inner = graph("Max", graph("Div", twice, graph("Mul", longer, graph.int64(2))), graph.int64(1))
    before = graph("Div", graph("Sub", graph.int64(size_px), inner), graph.int64(2))
    return _Target(size_px, inner, before)


def _weights(graph: _Graph, n_pixels: str, target: _Target, interpolation: str) -> _Weights:
    """Return the weights of `n_pixels`, int64 [1], for each position.

    Position j, of `inner`, has its centre at c = (j + 1/2) * n_pixels / inner. Pixel x has weight f((x + 1/2 - c) / s),
    s = max(n_pixels / inner, 1), and the weights of a position are scaled to the sum 1.
    """
    starts, length = _windows(graph, n_pixels, target, _SUPPORT[interpolation])
    weights = _FILTERS[interpolation](graph, *_distances(graph, n_pixels, target, starts, length))
    total = graph("ReduceSum", weights, graph.int64(0), keepdims=1)
    is_bar = ""
    if target.before:
        is_inside = graph.as_float32(graph("Equal", *_in_the_image(graph, target, target.positions())))
        is_bar = graph("Sub", graph.float32(1), is_inside)
        weights = graph("Mul", weights, is_inside)
    ones = [1] * target.blocks
    return _Weights(
        target,
        _digits(graph, weights, total, target),
        graph.split(starts, ones),
        graph.split(graph("Add", starts, length), ones),
        is_bar,
    )


def _windows(graph: _Graph, n_pixels: str, target: _Target, support: int) -> tuple[str, str]:
    """Return the first pixel that each block reads, int64 [blocks], and how many each reads, int64 [1]."""
    reach = graph("Mul", graph("Max", n_pixels, target.inner), graph.int64(2 * support))
    centres = graph("Mul", _odd(graph, target, target.positions(_BLOCK)), n_pixels)
    first = graph("Max", graph("Add", graph("Sub", centres, reach), target.inner), graph.int64(0))
    first = graph("Div", first, graph("Mul", target.inner, graph.int64(2)))
    span = graph("Add", graph("Mul", n_pixels, graph.int64(_BLOCK - 1)), reach)
    length = graph("Min", n_pixels, graph("Add", graph("Div", span, target.inner), graph.int64(1)))
    return graph("Min", first, graph("Sub", n_pixels, length)), length


def _distances(graph: _Graph, n_pixels: str, target: _Target, starts: str, length: str) -> tuple[str, str]:
    """Return |x + 1/2 - c| for each of a block's pixels and each position, float32 [L, positions], and s, float32 [1].

    Both are multiplied by 2 * inner, and so whole numbers. Fractions of c in a large image would be lost in float32.
    """
    positions = target.positions()
    start = graph("Gather", starts, graph.int64(*(number // _BLOCK for number in range(len(positions)))))
    offset = graph("Mul", graph("Add", graph("Mul", start, graph.int64(2)), graph.int64(1)), target.inner)
    offset = graph("Sub", offset, graph("Mul", _odd(graph, target, positions), n_pixels))
    steps = graph("Range", graph.scalar(0), graph("Squeeze", length), graph.scalar(1))
    steps = graph("Mul", graph("Unsqueeze", steps, graph.int64(1)), graph("Mul", target.inner, graph.int64(2)))
    scale = graph("Mul", graph("Max", n_pixels, target.inner), graph.int64(2))
    distance = graph("Abs", graph("Add", steps, offset))
    return graph.as_float32(distance), graph.as_float32(scale)


def _in_the_image(graph: _Graph, target: _Target, positions: list[int]) -> tuple[str, str]:
    """Return positions as the image counts them, and the nearest ones that are in the image, int64 [positions] each."""
    counted = graph("Sub", graph.int64(*positions), target.before)
    last = graph("Sub", target.inner, graph.int64(1))
    return counted, graph("Min", graph("Max", counted, graph.int64(0)), last)


def _odd(graph: _Graph, target: _Target, positions: list[int]) -> str:
    """Return 2 * j + 1 for positions of the square, int64 [positions]."""
    if not target.before:
        return graph.int64(*(2 * position + 1 for position in positions))
    _, nearest = _in_the_image(graph, target, positions)
    return graph("Add", graph("Mul", nearest, graph.int64(2)), graph.int64(1))


def _digits(graph: _Graph, weights: str, total: str, target: _Target) -> str:
    """Return 2 ** 14 * weights / total in two parts, whole numbers and multiples of 2 ** -8 below 1.

    So a weight has 22 bits, as Pillow's weights have. float32 adds levels times either part without error, up to 256
    pixels, in whatever order a runtime adds.
    """
    scaled = graph("Mul", weights, graph.float32(_HIGH))
    high = graph("Floor", graph("Div", scaled, total))
    rest = graph("Mul", graph("Sub", scaled, graph("Mul", high, total)), graph.float32(_LOW))
    low = graph("Floor", graph("Add", graph("Div", rest, total), graph.float32(0.5)))
    parts = high, graph("Div", low, graph.float32(_LOW))
    by_block = [graph("Reshape", part, graph.int64(0, target.blocks, _BLOCK)) for part in parts]
    return graph("Reshape", graph("Concat", *by_block, axis=2), graph.int64(0, -1))


def _across(graph: _Graph, planes: str, weights: _Weights, bar_level: int) -> str:
    """Return float32 [N, H, 3, size_px] of uint8 [N, H, 3, W]."""
    target = weights.target
    products = [
        graph("MatMul", graph.as_float32(graph("Slice", planes, start, end, graph.int64(_WIDTH))), block)
        for block, start, end in zip(
            graph.split(weights.digits, [2 * _BLOCK] * target.blocks, axis=1), weights.starts, weights.ends, strict=True
        )
    ]
    sums = graph("Reshape", graph("Concat", *products, axis=_WIDTH), graph.int64(0, 0, 3, target.blocks, 2, _BLOCK))
    levels = _levels(
        graph, *(graph("Reshape", each, graph.int64(0, 0, 3, -1)) for each in graph.split(sums, [1, 1], 4))
    )
    return _without_filling(graph, _with_bars(graph, levels, weights.is_bar, bar_level), target, _WIDTH)


def _down(graph: _Graph, planes: str, weights: _Weights, bar_level: int) -> str:
    """Return float32 [N, size_px, 3, W] of float32 [N, H, 3, W]."""
    target = weights.target
    turned = graph("Transpose", weights.digits, perm=[1, 0])
    lines = graph("Reshape", planes, graph.int64(0, 0, -1))
    products = [
        graph("MatMul", block, graph("Slice", lines, start, end, graph.int64(_HEIGHT)))
        for block, start, end in zip(
            graph.split(turned, [2 * _BLOCK] * target.blocks), weights.starts, weights.ends, strict=True
        )
    ]
    sums = graph("Reshape", graph("Concat", *products, axis=_HEIGHT), graph.int64(0, target.blocks, 2, _BLOCK, -1))
    shape = graph.int64(0, target.blocks * _BLOCK, 3, -1)
    levels = _levels(graph, *(graph("Reshape", each, shape) for each in graph.split(sums, [1, 1], axis=2)))
    is_bar = graph("Unsqueeze", weights.is_bar, graph.int64(1, 2)) if weights.is_bar else ""
    return _without_filling(graph, _with_bars(graph, levels, is_bar, bar_level), target, _HEIGHT)


def _levels(graph: _Graph, high: str, low: str) -> str:
    """Return levels 0..255 from the sums of both parts, rounded exactly as Pillow does after each direction."""
    total = graph("Add", graph("Add", high, graph("Floor", low)), graph.float32(_HIGH / 2))
    rounded = graph("Floor", graph("Mul", total, graph.float32(1 / _HIGH)))
    return graph("Clip", rounded, graph.float32(0), graph.float32(255))


def _with_bars(graph: _Graph, planes: str, is_bar: str, bar_level: int) -> str:
    return graph("Add", planes, graph("Mul", is_bar, graph.float32(bar_level))) if is_bar else planes


def _without_filling(graph: _Graph, planes: str, target: _Target, axis: int) -> str:
    """Return the planes without the positions that fill up the last block."""
    if target.size_px == len(target.positions()):
        return planes
    return graph("Slice", planes, graph.int64(0), graph.int64(target.size_px), graph.int64(axis))


def _triangle(graph: _Graph, distance: str, scale: str) -> str:
    """Return 1 - t, 0 beyond 1, for t = distance / scale, but for a factor: whole numbers, which have no rounding."""
    return graph("Max", graph("Sub", scale, distance), graph.float32(0))


def _cubic(graph: _Graph, distance: str, scale: str) -> str:
    """Return Keys' cubic of t = distance / scale with a = -1/2 (Keys 1981, equation 15), 0 beyond 2."""
    t = graph("Div", distance, scale)
    near = graph("Sub", graph("Mul", t, graph.float32(1.5)), graph.float32(2.5))
    near = graph("Add", graph("Mul", graph("Mul", near, t), t), graph.float32(1))
    within = graph("Min", t, graph.float32(2))
    far = graph("Sub", graph("Mul", within, graph.float32(-0.5)), graph.float32(-2.5))
    far = graph("Sub", graph("Mul", far, within), graph.float32(4))
    far = graph("Add", graph("Mul", far, within), graph.float32(2))
    return graph("Where", graph("Less", t, graph.float32(1)), near, far)


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}


class _Graph:
    """Nodes and constants as they are asked for; their names follow from the order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}

    @property
    def constants(self) -> list[onnx.TensorProto]:
        return list(self._constants.values())

    def __call__(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        from onnx import helper

        output = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def split(self, values: str, sizes: list[int], axis: int = 0) -> list[str]:
        """Add a Split; return the names of its parts."""
        from onnx import helper

        parts = [f"split_{len(self.nodes)}_{number}" for number in range(len(sizes))]
        self.nodes.append(helper.make_node("Split", [values, self.int64(*sizes)], parts, axis=axis))
        return parts

    def as_float32(self, values: str) -> str:
        from onnx import TensorProto

        return self("Cast", values, to=TensorProto.FLOAT)

    def int64(self, *values: int) -> str:
        """Return the name of a constant int64 [values]."""
        return self._constant(np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        """Return the name of a constant int64 []."""
        return self._constant(np.array(value, np.int64))

    def float32(self, value: float) -> str:
        """Return the name of a constant float32 []."""
        return self._constant(np.array(value, np.float32))

    def _constant(self, values: np.ndarray) -> str:
        from onnx import numpy_helper

        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(values, f"constant_{len(self._constants)}")
        return self._constants[key].name
