"""The Open Inference Protocol, version 2, over REST: its requests and answers, as JSON and as binary tensors.

https://github.com/kserve/open-inference-protocol, and the binary tensor data extension of KServe and Triton. Two
inputs exist, of which a request has one: `image`, decoded pixels, and `file`, image files as they lie on a disk.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

HEADER_LENGTH = "inference-header-content-length"  # of the JSON before binary tensors, in bytes
MAX_JSON_BYTES = 8_000_000  # parsed, numbers in lists take some twenty times that
_MAX_SIZE = 2**63 - 1  # the protocol's sizes are int64
IMAGE, FILE = "image", "file"
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}  # numpy's names: the protocol's


class ProtocolError(Exception):
    """A request is not one of the protocol; the message is for its sender."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Asked(NamedTuple):
    """A request."""

    images: np.ndarray | None  # uint8 [N, H, W, 3]
    files: list[bytes]  # if `images` is None
    outputs: dict[str, bool]  # name -> whether its data are wanted as bytes
    id: str | None

    @property
    def n_images(self) -> int:
        """The number of images."""
        return len(self.files) if self.images is None else len(self.images)


class _Tensor(NamedTuple):
    shape: list[int]
    datatype: str
    data: Any  # a list from JSON, or bytes


def parsed(body: bytes, header_length: str | None, known: list[str]) -> Asked:
    """Return the request of a body; ProtocolError if it is none. `known`: the names of the model's outputs."""
    n_json = len(body) if header_length is None else _count(header_length, HEADER_LENGTH)
    if n_json > len(body):
        raise ProtocolError(f"{HEADER_LENGTH} is {n_json}, but the body has {len(body)} bytes")
    if n_json > MAX_JSON_BYTES:
        raise ProtocolError(f"{n_json} bytes of JSON, more than {MAX_JSON_BYTES}. Send the tensor as binary data.", 413)
    try:
        request = json.loads(body[:n_json])
        tensors = _tensors(request, memoryview(body)[n_json:])
        outputs = _outputs(request, known)
        request_id = request.get("id")
    except (ArithmeticError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        said = f"{type(error).__name__}: {error}"[:200]
        raise ProtocolError(f"the body is no inference request of the Open Inference Protocol ({said})") from None
    if list(tensors) not in ([IMAGE], [FILE]):
        names = ", ".join(map(str, tensors)) or "none"
        raise ProtocolError(f"the inputs are: {names[:100]}. One was expected, '{IMAGE}' or '{FILE}'")
    (tensor,) = tensors.values()
    images, files = (_images(tensor), []) if IMAGE in tensors else (None, _files(tensor))
    return Asked(images, files, outputs, None if request_id is None else str(request_id))


def _count(value: object, name: str) -> int:
    try:
        count = int(str(value))
    except ValueError:
        count = -1
    if count < 0:
        raise ProtocolError(f"{name} is {str(value)[:40]!r}. A number of bytes was expected")
    return count


def _tensors(request: Any, binary: memoryview) -> dict[str, _Tensor]:
    """Return the inputs by name; those of binary data take their parts of `binary` in turn."""
    found, first = {}, 0
    for each in request["inputs"]:
        parameters = each.get("parameters", {})
        data: Any = None
        if "binary_data_size" in parameters:
            size = _count(parameters["binary_data_size"], "binary_data_size")
            data = bytes(binary[first : first + size])
            if len(data) != size:
                raise ProtocolError(f"input '{each['name']}' has {len(data)} bytes, and {size} were announced")
            first += size
        else:
            data = each["data"]
        shape = [int(size) for size in each["shape"]]
        if max(shape, default=0) > _MAX_SIZE:
            raise ValueError(f"a size in a shape is more than {_MAX_SIZE}")
        found[each["name"]] = _Tensor(shape, each["datatype"], data)
    if first != len(binary):
        raise ProtocolError(f"{len(binary)} bytes follow the JSON, and the inputs account for {first}")
    return found


def _outputs(request: Any, known: list[str]) -> dict[str, bool]:
    are_binary = bool(request.get("parameters", {}).get("binary_data_output", False))
    wanted = {}
    for each in request.get("outputs") or [{"name": name} for name in known]:
        parameters = each.get("parameters", {})
        if each["name"] not in known:
            raise ProtocolError(f"'{str(each['name'])[:40]}' is no output. One of {', '.join(known)} was expected")
        if "classification" in parameters:
            raise ProtocolError(
                "the classification extension is not supported; the classes are in the model's metadata"
            )
        wanted[each["name"]] = bool(parameters.get("binary_data", are_binary))
    return wanted


def _images(tensor: _Tensor) -> np.ndarray:
    """Return uint8 [N, H, W, 3]."""
    shape = tensor.shape
    if tensor.datatype != "UINT8" or len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise ProtocolError(f"input '{IMAGE}' is {tensor.datatype} {shape}. UINT8 [N, H, W, 3], RGB, was expected")
    values = np.frombuffer(tensor.data, np.uint8) if isinstance(tensor.data, bytes) else _numbers(tensor.data)
    if values.size != math.prod(shape):
        raise ProtocolError(f"input '{IMAGE}' has {values.size} values, and its shape {shape} {math.prod(shape)}")
    return values.reshape(shape)


def _numbers(data: Any) -> np.ndarray:
    try:
        values = np.asarray(data)
    except ValueError:
        values = np.empty(0)  # lists of different lengths
    if values.dtype.kind not in "iu" or values.min(initial=0) < 0 or values.max(initial=0) > 255:
        raise ProtocolError(f"input '{IMAGE}' holds other values than whole numbers from 0 to 255")
    return values.astype(np.uint8)


def _files(tensor: _Tensor) -> list[bytes]:
    if tensor.datatype != "BYTES" or len(tensor.shape) != 1:
        raise ProtocolError(f"input '{FILE}' is {tensor.datatype} {tensor.shape}. BYTES [N] was expected")
    files = _pieces(tensor.data) if isinstance(tensor.data, bytes) else _decoded(tensor)
    if [len(files)] != tensor.shape or not files:
        raise ProtocolError(f"input '{FILE}' has {len(files)} files, and its shape is {tensor.shape}")
    return files


def _pieces(data: bytes) -> list[bytes]:
    """Return the elements of a binary tensor: each its length, four bytes, and its bytes."""
    files, first = [], 0
    while first < len(data):
        if first + 4 > len(data):
            raise ProtocolError(f"input '{FILE}' ends within the length of a file")
        (size,) = struct.unpack_from("<I", data, first)
        first += 4
        if first + size > len(data):
            raise ProtocolError(f"input '{FILE}' ends within a file")
        files.append(data[first : first + size])
        first += size
    return files


def _decoded(tensor: _Tensor) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in tensor.data]
    except (binascii.Error, TypeError, ValueError):
        raise ProtocolError(f"input '{FILE}' in JSON holds other values than text in base64") from None


def answer(name: str, version: str, asked: Asked, found: Mapping[str, np.ndarray]) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON if binary tensors follow it."""
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for output, is_binary in asked.outputs.items():
        array = found[output]
        told: dict[str, Any] = {"name": output, "datatype": DATATYPES[str(array.dtype)], "shape": list(array.shape)}
        if is_binary:
            parts.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
            told["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            told["data"] = array.ravel().tolist()
        outputs.append(told)
    said = {"model_name": name, "model_version": version, "outputs": outputs}
    if asked.id is not None:
        said["id"] = asked.id
    text = json.dumps(said).encode()
    return b"".join([text, *parts]), len(text) if parts else None
