"""`/v2` of `headstart serve`, asked by Triton's client of the Open Inference Protocol; and `/metrics` after it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

import headstart
from headstart.images.decoding import decode
from tests.support.images import encoded, photograph
from tests.support.serving import PICTURE, SMALL, Serving, served

EXPECTED = json.loads((SMALL / "conformance" / "expected.json").read_text())


@pytest.fixture(scope="module", params=[(), ("--batch-ms", "20")], ids=["alone", "batched"])
def serving(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with served(f"small={SMALL}", tmp_path_factory.mktemp("serving") / "log", *request.param) as started:
        yield started


@pytest.fixture
def client(serving: Serving) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(serving.address, concurrency=8) as opened:
        yield opened


def image_input(images: np.ndarray, is_binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("image", images.shape, "UINT8")
    tensor.set_data_from_numpy(images, binary_data=is_binary)
    return tensor


def file_input(*files: bytes) -> triton.InferInput:
    tensor = triton.InferInput("file", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array(files, dtype=object))
    return tensor


def test_it_tells_what_it_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("small")
    assert not client.is_model_ready("large")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    said = client.get_model_metadata("small")
    assert client.is_model_ready("small", said["versions"][0])
    assert not client.is_model_ready("small", "1")
    assert {each["name"]: (each["datatype"], each["shape"]) for each in [*said["inputs"], *said["outputs"]]} == {
        "image": ("UINT8", [-1, -1, -1, 3]),
        "file": ("BYTES", [-1]),
        "probabilities": ("FP32", [-1, 2]),
        "label_index": ("INT64", [-1]),
        "novelty": ("FP32", [-1]),
    }
    assert said["parameters"]["classes"] == headstart.load(SMALL).classes


def test_the_conformance_images_are_answered_as_files_together_and_as_tensors_alone(
    client: triton.InferenceServerClient,
) -> None:
    files = [(SMALL / "conformance" / each["file"]).read_bytes() for each in EXPECTED["images"]]
    expected = np.array([each["probabilities"] for each in EXPECTED["images"]], np.float32)
    together = client.infer("small", [file_input(*files)], request_id="a")
    assert together.get_response()["id"] == "a"
    np.testing.assert_allclose(together.as_numpy("probabilities"), expected, atol=EXPECTED["tolerance"])
    np.testing.assert_array_equal(together.as_numpy("label_index"), expected.argmax(axis=1))
    images = [decode(file).rgb[None] for file in files]
    small = [(image, row) for image, row in zip(images, expected, strict=True) if image.size < 10_000_000]
    waiting = [(client.async_infer("small", [image_input(image)]), row) for image, row in small]
    for one, row in waiting:  # eight at a time, of different sizes
        np.testing.assert_allclose(one.get_result().as_numpy("probabilities")[0], row, atol=EXPECTED["tolerance"])


def test_json_and_binary_tensors_give_the_same_for_a_batch_of_one_size(client: triton.InferenceServerClient) -> None:
    images = np.stack([photograph(number) for number in range(3)])
    expected = headstart.load(SMALL).outputs(images)
    for is_binary in (True, False):
        asked = [triton.InferRequestedOutput(name, binary_data=is_binary) for name in ("novelty", "probabilities")]
        found = client.infer("small", [image_input(images, is_binary)], outputs=asked)
        for name in ("novelty", "probabilities"):
            np.testing.assert_allclose(found.as_numpy(name), expected[name], atol=1e-6)
        assert found.as_numpy("label_index") is None


@pytest.mark.parametrize(
    ("tensor", "status", "reason"),
    [
        (file_input(b"<html>"), "422", "not an image of a known format"),
        (file_input(*[b""] * 65), "413", "65 images, more than 64"),
        (triton.InferInput("pixels", [1], "UINT8").set_data_from_numpy(np.zeros(1, np.uint8)), "400", "One was expec"),
    ],
    ids=["no-image", "too-many", "other-input"],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    client: triton.InferenceServerClient, tensor: triton.InferInput, status: str, reason: str
) -> None:
    with pytest.raises(InferenceServerException, match=reason) as refused:
        client.infer("small", [tensor])
    assert refused.value.status() == status


def test_another_model_and_compression_are_refused(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="'large' is not a model of this server") as refused:
        client.infer("large", [file_input(b"")])
    assert refused.value.status() == "404"
    with pytest.raises(InferenceServerException, match="a compressed body"):
        client.infer("small", [file_input(b"")], request_compression_algorithm="gzip")


def test_metrics_and_the_access_log_tell_of_requests_and_of_no_content(serving: Serving) -> None:
    def counted() -> dict[str, float]:
        names = ("headstart_images_total", "headstart_novelty_count", "headstart_compute_seconds_count")
        return {name: serving.metric(name) for name in names}

    before, abstained = counted(), serving.metric("headstart_abstentions_total")
    status, answer = serving.predict(PICTURE.read_bytes(), "/predict/small?secret=1")
    assert status == 200
    assert serving.predict(b"<html>")[0] == 422
    assert counted() == {name: count + 1 for name, count in before.items()}
    assert serving.metric("headstart_abstentions_total") - abstained == answer["abstains"]
    text = serving.text("/metrics")
    assert 'headstart_requests_total{model="small",route="/predict",status="422"} ' in text
    for name in ("queue_seconds", "batch_images", "request_seconds", "novel_total", "waiting", "held_bytes"):
        assert f"headstart_{name}" in text
    assert serving.metric("headstart_waiting") == 0 == serving.metric("headstart_held_bytes")
    line = serving.lines("/predict/small")[-1]
    assert line["status"] == 200 and line["model"] == "small" and line["bytes"] == PICTURE.stat().st_size
    assert 0 < line["compute_ms"] <= line["ms"] and line["batch"] == 1
    assert set(line) == {
        *("time", "client", "method", "path", "status", "ms", "bytes", "model", "queue_ms", "compute_ms", "batch")
    }


def test_an_image_of_one_pixel_is_answered(client: triton.InferenceServerClient) -> None:
    found = client.infer("small", [file_input(encoded(np.zeros((1, 1, 3), np.uint8), "PNG"))])
    assert found.as_numpy("probabilities").sum() == pytest.approx(1, abs=1e-5)
