"""Requests and answers of the Open Inference Protocol; tests/pipeline/test_open_inference.py asks by a real client."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from headstart.serving.inference_protocol import Asked, ProtocolError, answer, parsed

OUTPUTS = ["probabilities", "label_index"]
IMAGES = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=4).map(lambda shape: (*shape, 3)))


def body(name: str, datatype: str, shape: list[int], **rest: object) -> bytes:
    return json.dumps({"inputs": [{"name": name, "datatype": datatype, "shape": shape, **rest}]}).encode()


@given(images=IMAGES, is_flat=st.booleans())
def test_an_image_is_read_from_json_and_from_binary_data(images: np.ndarray, is_flat: bool) -> None:
    shape = list(images.shape)
    data = (images.ravel() if is_flat else images).tolist()
    from_json = parsed(body("image", "UINT8", shape, data=data), None, OUTPUTS).images
    header = body("image", "UINT8", shape, parameters={"binary_data_size": images.nbytes})
    from_binary = parsed(header + images.tobytes(), str(len(header)), OUTPUTS).images
    assert from_json is not None and from_binary is not None
    np.testing.assert_array_equal(from_json, images)
    np.testing.assert_array_equal(from_binary, images)


@given(files=st.lists(st.binary(max_size=20), min_size=1, max_size=4))
def test_files_are_read_from_json_and_from_binary_data(files: list[bytes]) -> None:
    texts = [base64.b64encode(file).decode() for file in files]
    assert parsed(body("file", "BYTES", [len(files)], data=texts), None, OUTPUTS).files == files
    data = b"".join(struct.pack("<I", len(file)) + file for file in files)
    header = body("file", "BYTES", [len(files)], parameters={"binary_data_size": len(data)})
    assert parsed(header + data, str(len(header)), OUTPUTS).files == files


PIXEL = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}


@pytest.mark.parametrize(
    ("request_body", "header_length", "reason"),
    [
        (b"<html>", None, "no inference request"),
        (b"[]", None, "no inference request"),
        (b"{}", None, "no inference request"),
        (b"[" * 100_000, None, "no inference request"),
        (json.dumps({"inputs": []}), None, "the inputs are: none"),
        (json.dumps({"inputs": [PIXEL, PIXEL | {"name": "file"}]}), None, "One was expected"),
        (json.dumps({"inputs": [PIXEL | {"data": [1, 2]}]}), None, "2 values, and its shape"),
        (json.dumps({"inputs": [PIXEL | {"data": [1, 2, 256]}]}), None, "whole numbers from 0 to 255"),
        (json.dumps({"inputs": [PIXEL | {"data": [1, 2, 0.5]}]}), None, "whole numbers from 0 to 255"),
        (json.dumps({"inputs": [PIXEL | {"data": [[1], [2, 3]]}]}), None, "whole numbers from 0 to 255"),
        (json.dumps({"inputs": [PIXEL | {"datatype": "FP32"}]}), None, "UINT8 [N, H, W, 3], RGB, was expected"),
        (json.dumps({"inputs": [PIXEL | {"shape": [-1, 1, -1, 3]}]}), None, "UINT8 [N, H, W, 3], RGB, was expected"),
        (json.dumps({"inputs": [PIXEL | {"shape": "abcd"}]}), None, "no inference request"),
        (json.dumps({"inputs": [PIXEL | {"shape": [float("inf")]}]}), None, "no inference request"),
        (json.dumps({"inputs": [PIXEL | {"shape": [10**4000, 10**4000, 1, 3]}]}), None, "no inference request"),
        (json.dumps({"inputs": [PIXEL], "outputs": [{"name": "nonsense"}]}), None, "'nonsense' is no output"),
        (json.dumps({"inputs": [PIXEL]}), "1000000", "1000000, but the body has"),
        (json.dumps({"inputs": [PIXEL]}), "-1", "A number of bytes was expected"),
        (json.dumps({"inputs": [PIXEL]}) + "x", str(len(json.dumps({"inputs": [PIXEL]}))), "1 bytes follow the JSON"),
        (body("file", "BYTES", [1], data=["not base64!"]), None, "other values than text in base64"),
        (body("file", "BYTES", [2], data=[""]), None, "1 files, and its shape is [2]"),
    ],
)
def test_what_is_no_request_is_told_why(request_body: str | bytes, header_length: str | None, reason: str) -> None:
    data = request_body if isinstance(request_body, bytes) else request_body.encode()
    with pytest.raises(ProtocolError) as refused:
        parsed(data, header_length, OUTPUTS)
    assert reason in str(refused.value)
    assert refused.value.status == 400


def test_numbers_in_json_are_bounded_for_they_take_twenty_times_their_text() -> None:
    with pytest.raises(ProtocolError, match="Send the tensor as binary data") as refused:
        parsed(b" " * 8_000_001, None, OUTPUTS)
    assert refused.value.status == 413


@given(
    start=st.sampled_from([b"", b'{"inputs": [{"name": "file", "datatype": "BYTES", "shape": [1], ', b'{"inputs": [']),
    rest=st.binary(max_size=60),
    length=st.one_of(st.none(), st.text(max_size=4)),
)
def test_no_bytes_raise_anything_else(start: bytes, rest: bytes, length: str | None) -> None:
    with pytest.raises(ProtocolError):
        parsed(start + rest, length, OUTPUTS)


def test_an_answer_has_the_outputs_that_were_asked_for_in_their_form() -> None:
    found = {
        "probabilities": np.array([[0.25, 0.75]], np.float32),
        "label_index": np.array([1], np.int64),
    }
    asked = Asked(None, [b""], {"label_index": False, "probabilities": True}, "7")
    content, n_json = answer("birds", "abc", asked, found)
    said = json.loads(content[:n_json])
    assert said == {
        "model_name": "birds",
        "model_version": "abc",
        "id": "7",
        "outputs": [
            {"name": "label_index", "datatype": "INT64", "shape": [1], "data": [1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
        ],
    }
    assert np.frombuffer(content[n_json:], "<f4").tolist() == [0.25, 0.75]
    content, n_json = answer("birds", "abc", asked._replace(outputs={"label_index": False}, id=None), found)
    assert n_json is None and "id" not in json.loads(content)
