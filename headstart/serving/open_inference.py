"""The routes of the Open Inference Protocol, version 2: `/v2`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import anyio
from fastapi import FastAPI, HTTPException, Request, Response

from headstart.images.formats import UnreadableError
from headstart.serving.inference_protocol import (
    DATATYPES,
    FILE,
    HEADER_LENGTH,
    IMAGE,
    Asked,
    ProtocolError,
    answer,
    parsed,
)
from headstart.serving.models import Served
from headstart.serving.server import Server
from headstart.serving.telemetry import record_of

_SOON_BYTES = 100_000  # JSON that is parsed in the event loop; longer one in a thread, one at a time
_VERSIONED = "/versions/{model_version}"


def add(app: FastAPI, server: Server) -> None:
    """Add the routes."""
    _add_about(app, server)
    _add_infer(app, server)


def _model(server: Server, name: str, model_version: str | None) -> Served:
    served = server.model(name)
    if model_version not in (None, served.version):
        raise HTTPException(404, f"'{name}' has version {served.version}, not '{str(model_version)[:100]}'.")
    return served


def _add_about(app: FastAPI, server: Server) -> None:
    @app.get("/v2", summary="Open Inference Protocol: what this server is")
    async def about() -> dict[str, Any]:
        return {"name": "headstart", "version": version("headstart"), "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live", summary="Open Inference Protocol: 200 as long as the process is alive")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="Open Inference Protocol: 200 once all models answer")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/v2/models/{name}" + _VERSIONED + "/ready", include_in_schema=False)
    @app.get("/v2/models/{name}/ready", summary="Open Inference Protocol: 200 once this model answers")
    async def model_ready(name: str, model_version: str | None = None) -> dict[str, Any]:
        return {"name": _model(server, name, model_version).name, "ready": True}

    @app.get("/v2/models/{name}" + _VERSIONED, include_in_schema=False)
    @app.get("/v2/models/{name}", summary="Open Inference Protocol: inputs, outputs and classes of a model")
    async def model(name: str, model_version: str | None = None) -> dict[str, Any]:
        served = _model(server, name, model_version)
        return {
            "name": served.name,
            "versions": [served.version],
            "platform": "onnx_onnxv1",
            "inputs": [
                {"name": IMAGE, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
                {"name": FILE, "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": output, "datatype": DATATYPES[dtype], "shape": [-1, *rest]}
                for output, (dtype, rest) in served.outputs.items()
            ],
            "parameters": {"classes": served.alone.classes, "abstain_below": served.alone.abstain_below},
        }


def is_short(header_length: str | None) -> bool:
    """Return whether a header says that the JSON before binary tensors is short; it may say anything."""
    digits = header_length or ""
    return digits.isdecimal() and len(digits) <= len(str(_SOON_BYTES)) and int(digits) < _SOON_BYTES


def _add_infer(app: FastAPI, server: Server) -> None:
    at_a_time = anyio.CapacityLimiter(1)

    async def asked(request: Request, data: bytes, served: Served) -> Asked:
        header_length = request.headers.get(HEADER_LENGTH)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "a compressed body. Send it as it is.")
        arguments = data, header_length, list(served.outputs)
        if len(data) < _SOON_BYTES or is_short(header_length):
            return parsed(*arguments)
        return await anyio.to_thread.run_sync(parsed, *arguments, limiter=at_a_time)

    @app.post("/v2/models/{name}" + _VERSIONED + "/infer", include_in_schema=False)
    @app.post("/v2/models/{name}/infer", summary="Open Inference Protocol: tensors in, tensors out")
    async def infer(request: Request, name: str, model_version: str | None = None) -> Response:
        record = record_of(request.scope)
        record.route = "/v2"
        served = _model(server, name, model_version)
        record.model = served.name
        with server.bodies.held() as body:
            data = await body.read(request)
            record.n_bytes = len(data)
            try:
                given = await asked(request, data, served)
                if given.n_images > server.limits.max_images:
                    raise ProtocolError(f"{given.n_images} images, more than {server.limits.max_images}", 413)
                done = await server.answered(request, served, given.files if given.images is None else given.images)
            except ProtocolError as error:
                raise HTTPException(error.status, str(error)) from None
            except UnreadableError as error:
                raise HTTPException(422, str(error)) from None
        server.metrics.count_answers(served.name, served.alone.answers(done.outputs, top=1))
        content, n_json = answer(served.name, served.version, given, done.outputs)
        if n_json is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(n_json)})
