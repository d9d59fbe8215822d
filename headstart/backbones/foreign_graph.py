"""A graph of the user's as the ONNX piece `backbone`, compared with the file as it was given.

`pixels` uint8 [N, S, S, 3] -> `features` float32 [N, D]. Its first nodes are crop, normalisation and the layout that
the graph wants; its last ones average each tensor that is a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.foreign import Foreign, inputs_of, nodes_of
from headstart.backbones.levels import Level, pooling_of
from headstart.base.errors import CheckError, ParamError
from headstart.onnx import pieces, runtime
from headstart.onnx.backbone_folder import LAST, Pooling
from headstart.onnx.pieces import OPSET

if TYPE_CHECKING:
    import onnx

    from headstart.backbones.preprocessing import Preprocessing

_INNER = "network/"  # before every name of the graph, so that none meets one of ours
_AVERAGED: dict[Pooling, tuple[int, ...]] = {"map": (2, 3), "map_channels_last": (1, 2), "tokens": (1,)}  # the axes
_FOR_ONE = (
    "The graph was exported for one image at a time. Export it with a batch of any size, as tf2onnx does for an input"
    " signature of [None, H, W, 3] and torch.onnx.export for dynamic_shapes, or choose another backbone.weights in"
    " params.yaml."
)


def reference_values(foreign: Foreign, pixels: np.ndarray) -> list[np.ndarray]:
    """Return each wanted tensor [N, ...] of the graph as it was given, one image at a time.

    Crop, normalisation and layout are numpy's here, so that ours are checked too. `pixels`: uint8 [N, S, S, 3].
    ParamError where onnxruntime cannot run the graph on such images.
    """
    import onnx

    settings, image = foreign.preprocessing, foreign.image
    start = round((pixels.shape[1] - settings.input_px) / 2)
    square = pixels[:, start : start + settings.input_px, start : start + settings.input_px].astype(np.float64)
    given = (square / 255 - settings.mean) / settings.std
    if foreign.channel_order == "bgr":
        given = given[..., ::-1]
    if image.layout == "NCHW":
        given = given.transpose(0, 3, 1, 2)
    given = (np.rint(given) if image.type == "UINT8" else given).astype(_numpy_type(image.type))
    model = onnx.ModelProto()
    model.CopyFrom(foreign.model)
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in foreign.outputs if name not in known)
    try:
        session = runtime.session(pieces.to_bytes(model))
        batch = session.get_inputs()[0].shape[0]
        n_at_once = batch if isinstance(batch, int) and batch > 0 else 1
        runs = [session.run(foreign.outputs, {image.name: np.repeat(one[None], n_at_once, 0)}) for one in given]
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise ParamError(
            f"the graph cannot be run on images of {settings.input_px} pixels: {str(error).splitlines()[0]}. A graph"
            " that onnxruntime runs was expected. Set backbone.input_px or backbone.weights in params.yaml."
        ) from None
    return [np.concatenate([run[number][:1] for run in runs]) for number in range(len(foreign.outputs))]


def levels_of(foreign: Foreign, values: Sequence[np.ndarray]) -> tuple[Level, ...]:
    """Return what each tensor becomes; ParamError where one holds no finite numbers of an image's own."""
    levels = []
    for name, value in zip(foreign.outputs, values, strict=True):
        if value.ndim not in (2, 3, 4) or value.dtype.kind != "f" or not np.isfinite(value).all():
            shape = "N, " + ", ".join(map(str, value.shape[1:]))
            said = "values that are not finite" if value.dtype.kind == "f" and value.ndim in (2, 3, 4) else value.dtype
            raise ParamError(
                f"the tensor '{name}' has the shape [{shape}] and {said}, which are no features. Floating-point"
                " numbers of [N, D], [N, D, H, W], [N, H, W, D] or [N, T, D] were expected. Set backbone.outputs in"
                " params.yaml."
            )
        pooling = pooling_of(value.shape, n_class_tokens=1 if value.ndim == 3 else 0)
        is_last = name == foreign.outputs[-1]
        levels.append(Level(LAST if is_last else name, pooled(value, pooling).shape[1], pooling))
    return tuple(levels)


def pooled(value: np.ndarray, pooling: Pooling) -> np.ndarray:
    """Return float32 [N, width]: the same as `levels.pool` gives for a tensor of torch."""
    value = value.astype(np.float32)
    if axes := _AVERAGED.get(pooling):
        return np.asarray(value.mean(axes))
    if pooling == "class_and_tokens":
        return np.concatenate([value[:, 0], value[:, 1:].mean(1)], 1)
    return value


def backbone_graph(foreign: Foreign, levels: Sequence[Level]) -> onnx.ModelProto:
    """Return the piece; ParamError where the graph's operators cannot be said in our version of ONNX."""
    from onnx import compose, helper

    network = compose.add_prefix(_converted(_cut(foreign)), _INNER).graph
    nodes, constants = _before(foreign, _INNER + foreign.image.name)
    nodes.extend(network.node)
    ends = []
    for number, (name, level) in enumerate(zip(foreign.outputs, levels, strict=True)):
        end = "features" if len(levels) == 1 else f"level_{number}"
        more, needed = _pooling(_INNER + name, level.pooling, end)
        nodes.extend(more)
        constants.extend(needed)
        ends.append(end)
    if len(levels) > 1:
        nodes.append(helper.make_node("Concat", ends, ["features"], axis=1))
    side = foreign.preprocessing.resize_px
    types = helper.np_dtype_to_tensor_dtype(np.dtype(np.uint8)), helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
    graph = helper.make_graph(
        nodes,
        "backbone",
        [helper.make_tensor_value_info("pixels", types[0], ["N", side, side, 3])],
        [helper.make_tensor_value_info("features", types[1], ["N", sum(level.width for level in levels)])],
        [*constants, *network.initializer],
    )
    for node in graph.node:  # what exporters note there names files of their machines
        del node.metadata_props[:]
        node.doc_string = ""
    return pieces.finished(graph)


def check_batch(foreign: Foreign, graph: bytes, pixels: np.ndarray, n_features: int) -> np.ndarray:
    """Return the piece's features [N, D] of all images at once; ParamError unless each is that of the image alone."""
    try:
        session = runtime.session(graph)
        together = session.run(None, {"pixels": pixels})[0]
        alone = np.concatenate([session.run(None, {"pixels": one[None]})[0] for one in pixels])
    except Exception as error:
        said = str(error).splitlines()[0]
        raise ParamError(
            f"{foreign.name} cannot be run on {len(pixels)} images at a time: {said}. {_FOR_ONE}"
        ) from None
    if together.shape != (len(pixels), n_features) or runtime.difference(together, alone).relative > 1e-3:
        raise ParamError(
            f"{foreign.name} gives features of shape {list(together.shape)} for {len(pixels)} images, where"
            f" [{len(pixels)}, {n_features}] as for each alone was expected. {_FOR_ONE}"
        )
    return np.asarray(together)


def _cut(foreign: Foreign) -> onnx.ModelProto:
    """Return what the wanted tensors need of the graph, for a batch of any size."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(foreign.model)
    graph = model.graph
    (image,) = [value for value in inputs_of(graph) if value.name == foreign.image.name]
    image.type.tensor_type.shape.dim[0].dim_param = "N"
    for axis in (2, 3) if foreign.image.layout == "NCHW" else (1, 2):
        image.type.tensor_type.shape.dim[axis].dim_value = foreign.preprocessing.input_px
    image.type.tensor_type.shape.dim[1 if foreign.image.layout == "NCHW" else 3].dim_value = 3
    needed, nodes = set(foreign.outputs), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_read_by(node))
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    types = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    types |= {value.name: value for value in graph.output}
    outputs = []
    for name in foreign.outputs:  # of which only the type is known for any batch
        type_ = types[name].type.tensor_type.elem_type if name in types else onnx.TensorProto.FLOAT
        outputs.append(onnx.helper.make_tensor_value_info(name, type_, None))
    cut = onnx.helper.make_graph(nodes[::-1], graph.name or "graph", [image], outputs, tensors)
    made = onnx.helper.make_model(cut, opset_imports=[each for each in model.opset_import if not each.domain])
    made.ir_version = model.ir_version
    return made


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node reads, in its branches and loops too."""
    read = set(node.input)
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            read.update(*map(_read_by, graph.node), [output.name for output in graph.output])
    return read


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the operators of our version of ONNX."""
    import onnx
    from onnx import inliner, version_converter

    (opset,) = [entry.version for entry in model.opset_import if not entry.domain]
    if opset == OPSET:
        return model
    names = {value.name for value in model.graph.output}
    newer = {node.op_type for node in nodes_of(model.graph) if not onnx.defs.has(node.op_type, OPSET, "")}
    try:
        if newer:  # such as Gelu, which ONNX itself defines by operators that are older
            ids = [("", kind) for kind in sorted(newer)]
            model = inliner.inline_selected_functions(model, ids, inline_schema_functions=True)
        model.ir_version = max(model.ir_version, 4)  # below it, weights have to be among the inputs
        converted = version_converter.convert_version(model, OPSET)
        missing = names - {value.name for value in converted.graph.output}
        said = f"it loses {sorted(missing)[0]}" if missing else ""
    except Exception as error:  # the converter's own, of several kinds
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if said:
        raise ParamError(
            f"the graph is of ONNX's operator set {opset}, and cannot be converted to {OPSET} ({said}). Export the"
            f" network to opset {OPSET}, and set backbone.weights and backbone.sha256 in params.yaml to that file."
        )
    return converted


def _before(foreign: Foreign, name: str) -> tuple[list[Any], list[onnx.TensorProto]]:
    """Return the nodes from `pixels` to the input `name`, and their constants."""
    import onnx
    from onnx import helper, numpy_helper

    settings, image = foreign.preprocessing, foreign.image
    nodes: list[Any] = []
    scale, shift = normalisation(settings)
    order = [2, 1, 0] if foreign.channel_order == "bgr" else [0, 1, 2]
    start = round((settings.resize_px - settings.input_px) / 2)
    ends = [start, start], [start + settings.input_px] * 2
    constants = [
        pieces.int64("crop_starts", ends[0]),
        pieces.int64("crop_ends", ends[1]),
        pieces.int64("crop_axes", [1, 2]),
        pieces.int64("channel_order", order),
    ]
    step = "pixels"

    def add(kind: str, inputs: Sequence[str], **attributes: Any) -> None:
        nonlocal step
        nodes.append(helper.make_node(kind, [step, *inputs], [f"given_{len(nodes)}"], **attributes))
        step = f"given_{len(nodes) - 1}"

    add("Slice", ["crop_starts", "crop_ends", "crop_axes"])
    if foreign.channel_order == "bgr":
        add("Gather", ["channel_order"], axis=3)
    if image.layout == "NCHW":
        add("Transpose", [], perm=[0, 3, 1, 2])
    if image.type != "UINT8":
        shape = (3, 1, 1) if image.layout == "NCHW" else (3,)
        for kind, values in (("scale", scale), ("shift", shift)):
            constants.append(numpy_helper.from_array(values[order].reshape(shape), kind))
        add("Cast", [], to=onnx.TensorProto.FLOAT)
        add("Mul", ["scale"])
        add("Add", ["shift"])
    add("Cast", [], to=onnx.TensorProto.DataType.Value(image.type))
    nodes[-1].output[0] = name
    used = {read for node in nodes for read in node.input}
    return nodes, [tensor for tensor in constants if tensor.name in used]


def normalisation(preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Return what pixels in 0..255 are multiplied by and what is added then, float32 [3] each, as in `graph`."""
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def _pooling(tensor: str, pooling: Pooling, end: str) -> tuple[list[Any], list[onnx.TensorProto]]:
    """Return the nodes from a tensor of the network to one level's features, float32 [N, width]."""
    import onnx
    from onnx import helper

    cast = helper.make_node("Cast", [tensor], [f"{end}/float"], to=onnx.TensorProto.FLOAT)
    if axes := _AVERAGED.get(pooling):
        mean = helper.make_node("ReduceMean", [f"{end}/float", f"{end}/axes"], [end], keepdims=0)
        return [cast, mean], [pieces.int64(f"{end}/axes", [*axes])]
    if pooling == "none":
        cast.output[0] = end
        return [cast], []
    bounds = {"first": [0], "second": [1], "end": [2**31 - 1], "axis": [1]}
    name = {key: f"{end}/{key}" for key in (*bounds, "float", "class", "rest", "token", "tokens")}
    nodes = [
        cast,
        helper.make_node("Slice", [name["float"], name["first"], name["second"], name["axis"]], [name["class"]]),
        helper.make_node("Squeeze", [name["class"], name["axis"]], [name["token"]]),
        helper.make_node("Slice", [name["float"], name["second"], name["end"], name["axis"]], [name["rest"]]),
        helper.make_node("ReduceMean", [name["rest"], name["axis"]], [name["tokens"]], keepdims=0),
        helper.make_node("Concat", [name["token"], name["tokens"]], [end], axis=1),
    ]
    return nodes, [pieces.int64(name[key], value) for key, value in bounds.items()]


def _numpy_type(name: str) -> np.dtype[Any]:
    return np.dtype({"FLOAT": "float32", "FLOAT16": "float16", "DOUBLE": "float64", "UINT8": "uint8"}[name])


def check_parity(foreign: Foreign, apart: float, at_most: float) -> None:
    """Raise CheckError where the piece's features lie further from those of the graph as it was given."""
    if not apart <= at_most:
        raise CheckError(
            f"the features of {foreign.name}, cut and converted, differ from those of the graph as it was given by"
            f" {apart:.1e} of their size. At most {at_most:.0e} was expected. Export it to ONNX's operator set {OPSET},"
            " or choose another backbone.weights in params.yaml."
        )
