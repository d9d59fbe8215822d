"""An ONNX graph that another framework has written -> its image input, its features, and how its images are prepared.

Layout, type and size of the input are read from the graph. It says neither how its images were prepared nor which of
its tensors are features: the first comes from params.yaml, the second is found before the classifier unless params.yaml
names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from headstart.backbones import weights
from headstart.backbones.preprocessing import Preprocessing
from headstart.base import files
from headstart.base.errors import ParamError, count_and_name
from headstart.base.licences import Licence

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from headstart import params as parameters

Layout = Literal["NCHW", "NHWC"]
_TYPES = ("FLOAT", "FLOAT16", "DOUBLE", "UINT8")  # of pixels
_AFTER = {"Softmax", "LogSoftmax", "Sigmoid", "Identity", "Cast", "Flatten", "Reshape", "Squeeze"}  # a classifier
_POOLS = {"GlobalAveragePool", "AveragePool", "ReduceMean", "Relu"}  # also after it, where it is a convolution
_USUAL = (
    "Its publisher does. Usual are crop_fraction 0.875, interpolation bilinear and, for pixels scaled to 0..1, mean"
    " [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225], or [0.5, 0.5, 0.5] for both; where the graph takes 0..255,"
    " mean [0, 0, 0] and std [0.003921569, 0.003921569, 0.003921569]"
)


class ImageInput(NamedTuple):
    """The input that takes images."""

    name: str
    layout: Layout
    type: str  # ONNX's name of it
    side_px: int | None  # None: any, or not said


@dataclass(frozen=True)
class Foreign:
    """A graph of the user's, checked, and what is to be taken from it."""

    name: str  # 'onnx/' and the name of its file
    model: onnx.ModelProto  # without local functions
    image: ImageInput
    outputs: tuple[str, ...]  # tensors, each of which becomes a level
    found: str  # in words, which were taken and why
    channel_order: Literal["rgb", "bgr"]
    preprocessing: Preprocessing
    weights: str
    weights_sha256: str
    licence: Licence


def load(
    params: parameters.Backbone,
    folder: Path,
    report: Callable[[str], None],
    judge: Callable[[Licence], None] = lambda licence: None,
) -> Foreign:
    """Return the graph that `params` names, verified; ParamError where it is no extractor of images' features.

    `report` receives lines for the user; `judge` may raise to refuse the licence of the weights.
    """
    if params.weights in ("bundled", "default", "random"):
        raise ParamError(
            f"backbone.name is 'onnx' and backbone.weights is '{params.weights}'. The file or the URL of an ONNX graph"
            " was expected. Set backbone.weights, and backbone.sha256 to its digest, in params.yaml."
        )
    licence = weights.licence_of(params, Licence("", ""))
    path = weights.given(params, folder, report)
    judge(licence)
    model = _parsed(path)
    image = _image_input(model, path.name)
    preprocessing = _preprocessing(params, image)
    outputs, found = _outputs(params.outputs, model)
    return Foreign(
        f"onnx/{path.stem}",
        model,
        image,
        outputs,
        found,
        params.channel_order or "rgb",
        preprocessing,
        f"file: {path.name}",
        files.sha256_of(path),
        licence,
    )


# The file


def _parsed(path: Path) -> onnx.ModelProto:
    """Return the model of a file; ParamError unless it is one, whole and of ONNX's own operators."""
    import onnx
    from onnx.external_data_helper import uses_external_data
    from onnx.inliner import inline_local_functions

    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except Exception:  # protobuf's own, of several kinds; all say that it is no model
        model = onnx.ModelProto()
    if not model.graph.node:
        raise ParamError(
            f"{path.name} holds no ONNX graph. Set backbone.weights in params.yaml to a file that onnx.load reads."
        )
    outside = [tensor.name for tensor in _tensors(model.graph) if uses_external_data(tensor)]
    if outside:
        raise ParamError(
            f"{path.name} keeps {len(outside)} of its tensors in other files ({count_and_name(outside)}), which"
            " backbone.sha256 does not vouch for. Write one file, `onnx.save(onnx.load(OLD), NEW)`, and set"
            " backbone.weights and backbone.sha256 in params.yaml to it."
        )
    model = inline_local_functions(model)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    custom = {
        f"{node.domain or 'ai.onnx'}.{node.op_type}"
        for node in nodes_of(model.graph)
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, versions.get("", 1), "")
    }
    if custom:
        raise ParamError(
            f"{path.name} has {len(custom)} operators that are not ONNX's own ({count_and_name(sorted(custom), 10)}),"
            " and a runtime without them cannot run the model. Export the network to plain ONNX, or choose another"
            " backbone.weights in params.yaml."
        )
    return model


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield all nodes, those of branches and loops too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from nodes_of(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in nodes_of(graph):
        for attribute in node.attribute:
            yield from [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
            for inner in [attribute.g, *attribute.graphs]:
                yield from inner.initializer


# The input


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return what the graph is given: old ones list their weights among the inputs too."""
    own = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in own]


def _image_input(model: onnx.ModelProto, file: str) -> ImageInput:
    """Return the only input; ParamError unless it takes square images of three channels."""
    found = inputs_of(model.graph)
    told = "; ".join(_spelled(value) for value in found)
    expected = (
        "One input of images was expected, [N, 3, H, W] or [N, H, W, 3] in float32, float16, float64 or uint8. Choose"
        " another backbone.weights in params.yaml."
    )
    type_, dims = _type_and_dims(found[0]) if found else ("", [])
    if len(found) != 1 or len(dims) != 4 or type_ not in _TYPES:
        raise ParamError(f"{file} is no extractor of images' features: its input is {told or 'missing'}. {expected}")
    by_size: dict[tuple[bool, bool], Layout] = {(True, False): "NCHW", (False, True): "NHWC"}
    layout = by_size.get((dims[1] == 3, dims[3] == 3)) or _layout_by_use(model.graph, found[0].name, dims)
    sides = {side for side in (dims[2:] if layout == "NCHW" else dims[1:3]) if isinstance(side, int)}
    if layout is None or len(sides) > 1:
        raise ParamError(f"{file} is no extractor of square images' features: its input is {told}. {expected}")
    return ImageInput(found[0].name, layout, type_, sides.pop() if sides else None)


def _type_and_dims(value: onnx.ValueInfoProto) -> tuple[str, list[int | str]]:
    import onnx

    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    return onnx.TensorProto.DataType.Name(tensor.elem_type), [-1 if dim == 0 else dim for dim in dims]


def _spelled(value: onnx.ValueInfoProto) -> str:
    type_, dims = _type_and_dims(value)
    return f"{value.name}, {type_.lower()} [{', '.join(map(str, dims))}]"


def _layout_by_use(graph: onnx.GraphProto, name: str, dims: list[int | str]) -> Layout | None:
    """Return the layout of an input whose number of channels is not said, by what reads it first."""
    if any(isinstance(dims[axis], int) for axis in (1, 3)):
        return None
    three = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 4 and tensor.dims[1] == 3}
    reached = {name}
    for node in graph.node:
        if not reached.intersection(node.input[:1]):
            continue
        if node.op_type == "Conv" and node.input[1] in three:
            return "NCHW"
        if node.op_type == "Transpose":
            (order,) = [list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"] or [[]]
            return "NHWC" if order == [0, 3, 1, 2] else None
        if node.op_type in ("Cast", "Identity", "Add", "Sub", "Mul", "Div"):
            reached.update(node.output)
    return None


# Its features


def _outputs(named: tuple[str, ...] | None, model: onnx.ModelProto) -> tuple[tuple[str, ...], str]:
    """Return the tensors to take, and in words which; ParamError for a name that no tensor has."""
    known = [output for node in model.graph.node for output in node.output if output]
    if named is None:
        name, why = before_classifier(model.graph)
        return (name,), f"features are taken from the tensor '{name}', {why}"
    for name in named:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.4) or known[-3:]
            raise ParamError(
                f"backbone.outputs names '{name}', which is none of the graph's {len(known)} tensors. The nearest names"
                f" are {', '.join(near)}. Set backbone.outputs in params.yaml, or set it to null to have it found."
            )
    if len(set(named)) < len(named):
        raise ParamError(f"backbone.outputs is {list(named)}, which names a tensor twice. Mend it in params.yaml.")
    return named, f"features are taken from {len(named)} tensors, of which '{named[-1]}' is the level last"


def before_classifier(graph: onnx.GraphProto) -> tuple[str, str]:
    """Return the tensor that the classifier reads, and what it is in words; without one, the last output itself.

    A classifier is one matrix product with weights, or one convolution of a pixel, after which nothing comes but a
    softmax and changes of shape. Of several outputs the one with a classifier counts, else the last that has a
    row an image.
    """
    reads = Reads(graph)
    for output in graph.output:
        if (found := reads.input_of_classifier(output.name)) is not None:
            return found, f"which the classifier of the output '{output.name}' reads"
    rows = [output.name for output in graph.output if len(output.type.tensor_type.shape.dim) == 2]
    return (rows or [output.name for output in graph.output])[-1], "an output that no classifier gives"


class Reads:
    """Which node gives a tensor, and which tensors are weights."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._maker = {output: node for node in graph.node for output in node.output}
        self._shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        self._given = {value.name for value in inputs_of(graph)}

    def input_of_classifier(self, output: str) -> str | None:
        """Return what the classifier that ends in `output` reads; None if there is none."""
        name, has_softmax = output, False
        while (node := self._maker.get(name)) is not None:
            first = node.input[0] if node.input else ""
            if node.op_type in ("Gemm", "MatMul") and self._is_weight(node.input[1]):
                return first
            if node.op_type == "Conv" and self._shapes.get(node.input[1], [])[2:] == [1, 1]:
                return first if has_softmax or name == output else None
            if node.op_type == "Add":  # of a bias
                name = next((other for other in node.input if not self._is_weight(other)), "")
            elif node.op_type in _AFTER or (has_softmax and node.op_type in _POOLS):
                name, has_softmax = first, has_softmax or "Softmax" in node.op_type
            else:
                return None
        return None

    def _is_weight(self, name: str) -> bool:
        """Return whether a tensor is the same for all images."""
        if name in self._shapes or name == "":
            return True
        node: Any = self._maker.get(name)
        return name not in self._given and node is not None and all(map(self._is_weight, node.input))


# How its images are prepared


def _preprocessing(params: parameters.Backbone, image: ImageInput) -> Preprocessing:
    """Return what params.yaml says; ParamError where it says too little, or other than the graph."""
    input_px = image.side_px or params.input_px
    if input_px is None:
        raise ParamError(
            f"the input '{image.name}' of the graph takes images of any size, and backbone.input_px is null. A size was"
            " expected. Set backbone.input_px in params.yaml to that which the weights were trained with, such as 224."
        )
    if params.input_px not in (None, input_px):
        raise ParamError(
            f"backbone.input_px is {params.input_px}, and the graph takes images of {input_px} pixels. Set"
            " backbone.input_px to null in params.yaml."
        )
    wanted = {name: getattr(params, name) for name in ("crop_fraction", "interpolation", "mean", "std")}
    if image.type == "UINT8":
        if wanted["mean"] or wanted["std"]:
            raise ParamError(
                "backbone.mean and backbone.std are given, and the graph takes bytes, so it normalises them itself. Set"
                " both to null in params.yaml."
            )
        wanted |= {"mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3}
    missing = [f"backbone.{name}" for name, value in wanted.items() if value is None]
    if missing:
        raise ParamError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} null, and an ONNX graph does not say how"
            f" its images were prepared. {_USUAL}. Set them in params.yaml."
        )
    return Preprocessing(input_px, **wanted)
