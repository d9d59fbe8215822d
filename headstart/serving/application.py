"""The application: what is asked by HTTP, and how it is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
from collections.abc import AsyncIterator
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as AnyHTTPException

from headstart.handover.model import NOVEL_ABOVE, Answer, Model
from headstart.images.formats import UnreadableError
from headstart.serving import open_inference
from headstart.serving.drift import Drift
from headstart.serving.limits import GONE, ClientDisconnect
from headstart.serving.server import Server
from headstart.serving.telemetry import Telemetry, record_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_V2 = "/v2"  # where errors have the form of the Open Inference Protocol
_FILE = {"type": "string", "format": "binary"}
_BODIES = {
    "image/*": {"schema": _FILE},
    "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _FILE}, "required": ["file"]}},
}
_EXPECTED = "An image file was expected: as the request's body, or in a form as of `curl -F file=@photo.jpg`."


class Prediction(BaseModel):
    """The model's answer for an image."""

    label: str
    probability: Annotated[float, Field(description="of the label, calibrated, 0..1")]
    abstains: Annotated[bool, Field(description="the probability is below the model's threshold: better ask a person")]
    novelty: Annotated[
        float | None,
        Field(description="0..1: the share of held-out images that are nearer to the training images"),
    ]
    label_set: Annotated[
        tuple[str, ...] | None,
        Field(description="labels, most probable first, that hold the true one as often as the model promises"),
    ]
    probabilities: Annotated[dict[str, float], Field(description="of every class, most probable first")]


class About(BaseModel):
    """The model's metadata."""

    classes: list[str]
    abstain_below: float
    metadata: dict[str, str]


def application(server: Server) -> FastAPI:
    """Return the application."""
    app = FastAPIOffline(
        title="headstart",
        version=version("headstart"),
        description="One image in, one label out.",
        lifespan=lambda _: _running(server),
    )
    _add_predict(app, server)
    _add_about(app, server)
    open_inference.add(app, server)
    app.add_exception_handler(AnyHTTPException, _told)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_middleware(Gate, server=server)
    app.add_middleware(Telemetry, metrics=server.metrics)
    return app


class Gate:
    """ASGI middleware: refuses work for which there is no room, before its body is read and at little cost."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app, self._server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; every POST is work for the model."""
        if scope["type"] == "http" and scope["method"] == "POST":
            try:
                self._server.workers.check_room()
            except HTTPException as error:
                record_of(scope).route = _V2 if scope["path"].startswith(_V2) else "/predict"
                answer = await _told(Request(scope), error)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


@contextlib.asynccontextmanager
async def _running(server: Server) -> AsyncIterator[None]:
    """Take later versions of the models while the server runs, at once on SIGHUP."""
    asked = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    watching = asyncio.create_task(server.models.watch(asked))
    try:
        yield
    finally:
        watching.cancel()
        server.workers.close()
        if server.drift:
            server.drift.close()
        server.reader.close()


async def _told(request: Request, error: Exception) -> Response:
    """Return the answer for an error: the Open Inference Protocol has a form of its own."""
    assert isinstance(error, AnyHTTPException)
    key = "error" if request.scope["path"].startswith(_V2) else "detail"
    detail = error.detail.encode("utf-8", "replace").decode()  # JSON may hold halves of characters, and UTF-8 may not
    return JSONResponse({key: detail}, error.status_code, headers=error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)  # nobody reads it


def _add_predict(app: FastAPI, server: Server) -> None:
    refusals = {
        408: "The body took too long to arrive.",
        413: "The file is too large.",
        422: "It is not an image, or has too many pixels.",
        503: "Too much to do: try again after the seconds of the header `Retry-After`.",
    }
    told: dict[int | str, dict[str, Any]] = {
        status: {"description": description} for status, description in refusals.items()
    }

    async def answer(request: Request, name: str | None) -> Prediction:
        record = record_of(request.scope)
        record.route = "/predict"
        served = server.model(name)
        record.model = served.name
        with server.bodies.held() as body:
            data = await body.read(request)
            record.n_bytes = len(data)
            try:
                file = file_of(data, request.headers.get("content-type", ""))
                done = await server.answered(request, served, [file])
            except UnreadableError as error:
                raise HTTPException(422, f"{error}. {_EXPECTED}") from None
        (said,) = answers = served.alone.answers(done.outputs)
        server.metrics.count_answers(served.name, answers)
        return _prediction(said)

    @app.post(
        "/predict",
        summary="Classify an image: the request body is the file, or a form with it",
        openapi_extra={"requestBody": {"required": True, "content": _BODIES}},
        responses=told,
    )
    async def predict(request: Request) -> Prediction:
        return await answer(request, None)

    @app.post(
        "/predict/{name}",
        summary="The same, by the model of this name",
        openapi_extra={"requestBody": {"required": True, "content": _BODIES}},
        responses=told | {404: {"description": "There is no such model."}},
    )
    async def predict_by(request: Request, name: str) -> Prediction:
        return await answer(request, name)


def _add_about(app: FastAPI, server: Server) -> None:
    page = _page(server.limits.max_mb, server.drift is not None)

    @app.get("/", include_in_schema=False)
    async def show() -> Response:
        return Response(page, media_type="text/html; charset=utf-8")

    @app.get("/health", summary="200 as long as the process is alive")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready", summary="200 once the model answers")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.get("/metrics", summary="Requests, times, batches, abstentions and novelty, for Prometheus")
    async def metrics() -> Response:
        server.metrics.waiting.set(server.workers.n_waiting)
        server.metrics.held.set(server.bodies.n_held)
        if server.drift:
            server.metrics.show_drift(server.drift.state())
        return Response(server.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    if server.drift:
        _add_drift(app, server.drift)

    @app.get("/model", summary="Classes, threshold and further metadata of the model")
    async def about() -> About:
        return _about(server.model(None).alone)

    @app.get("/model/{name}", summary="The same of the model of this name")
    async def about_one(name: str) -> About:
        return _about(server.model(name).alone)


def _about(model: Model) -> About:
    return About(classes=model.classes, abstain_below=model.abstain_below, metadata=model.metadata)


def _add_drift(app: FastAPI, drift: Drift) -> None:
    @app.get("/drift", summary="Of each model: are the images still like those that it was tested on?")
    async def tell() -> dict[str, dict[str, Any]]:
        return drift.state()


def _page(max_mb: int, is_watched: bool) -> str:
    page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    for name, value in {"MAX_MB": max_mb, "NOVEL_ABOVE": NOVEL_ABOVE, "IS_WATCHED": is_watched}.items():
        page = page.replace(f"{{{{{name}}}}}", json.dumps(value))
    return page


def file_of(body: bytes, content_type: str) -> bytes:
    """Return the first file of a form (RFC 7578), or a body that is no form; UnreadableError for a form without one."""
    header = Message()
    header["content-type"] = content_type
    try:
        boundary = header.get_boundary()
    except (LookupError, TypeError, ValueError):  # numbers of its parts, names of charsets: Python says of no error
        raise UnreadableError("a form whose boundary cannot be read") from None
    if header.get_content_type() != "multipart/form-data" or not boundary:
        return body
    # The boundary stands in no file (RFC 2046, section 5.1.1), so a split finds the parts.
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"))[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        if re.search(rb";\s*filename\*?=", head, re.IGNORECASE):
            return content
    raise UnreadableError("a form without a file")


def _prediction(answer: Answer) -> Prediction:
    return Prediction(
        label=answer.label,
        probability=answer.probability,
        abstains=answer.abstains,
        novelty=answer.novelty,
        label_set=answer.label_set,
        probabilities=dict(answer.ranked),
    )
