"""Serves a finished model over HTTP: POST an image, get its label; a page tries the model in a browser.

It is small on purpose: one process, one model, no queue. To scale, run one process per core behind a proxy.
"""

from __future__ import annotations

import re
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import anyio
import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field

from headstart.base.cores import n_cores
from headstart.handover.model import NOVEL_ABOVE, Model
from headstart.images import UnreadableError

_STOPS_WITHIN_S = 10  # time that requests in progress get to finish when the server stops
_THROWN_AWAY = 5  # multiple of the limit up to which a body is read; a longer one is cut off
_WARM_UP_PX = 64
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


def application(model: Model, max_mb: int) -> FastAPI:
    """Return the application, after the model has answered a first image."""
    app = FastAPIOffline(title="headstart", version=version("headstart"), description="One image in, one label out.")
    page = _page(max_mb)
    limit = max_mb * 1_000_000
    at_a_time = anyio.CapacityLimiter(n_cores())  # more would only use memory
    too_large = f"more than {max_mb} MB. Send a smaller file, or start `headstart serve` with a larger --max-mb."
    model(np.zeros((1, _WARM_UP_PX, _WARM_UP_PX, 3), np.uint8))

    async def body_of(request: Request) -> bytes:
        """Return the body; status 413 if it exceeds the limit, and the excess is discarded.

        A client that is still sending when the connection closes never sees the status, so some excess is read.
        """
        announced = int(request.headers.get("content-length", 0))  # the server has checked that it is a number
        asks_first = "expect" in request.headers
        if announced > _THROWN_AWAY * limit or (announced > limit and asks_first):
            raise HTTPException(413, too_large)
        body, n_bytes = bytearray(), 0
        async for part in request.stream():
            n_bytes += len(part)
            if n_bytes <= limit:
                body += part
            elif n_bytes > _THROWN_AWAY * limit:
                break
        if n_bytes > limit:
            raise HTTPException(413, too_large)
        return bytes(body)

    @app.get("/", include_in_schema=False)
    def show() -> Response:
        return Response(page, media_type="text/html; charset=utf-8")

    @app.get("/health", summary="200 as long as the process is alive")
    def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready", summary="200 once the model answers")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.get("/model", summary="Classes, threshold and further metadata of the model")
    def about() -> About:
        return About(classes=model.classes, abstain_below=model.abstain_below, metadata=model.metadata)

    @app.post(
        "/predict",
        summary="Classify an image: the request body is the file, or a form with it",
        openapi_extra={"requestBody": {"required": True, "content": _BODIES}},
        responses={413: {"description": "The file is too large."}, 422: {"description": "It is not an image."}},
    )
    async def predict(request: Request) -> Prediction:
        data = await body_of(request)
        try:
            data = file_of(data, request.headers.get("content-type", ""))
            return await anyio.to_thread.run_sync(_prediction, model, data, limiter=at_a_time)
        except UnreadableError as error:
            raise HTTPException(422, f"{error}. {_EXPECTED}") from None

    return app


def _page(max_mb: int) -> str:
    page = (Path(__file__).parent / "serving.html").read_text(encoding="utf-8")
    for name, value in {"MAX_MB": max_mb, "NOVEL_ABOVE": NOVEL_ABOVE}.items():
        page = page.replace(f"{{{{{name}}}}}", str(value))
    return page


def file_of(body: bytes, content_type: str) -> bytes:
    """Return the first file of a form (RFC 7578), or a body that is no form; UnreadableError for a form without one."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        return body
    # The boundary stands in no file (RFC 2046, section 5.1.1), so a split finds the parts.
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"))[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        if re.search(rb";\s*filename\*?=", head, re.IGNORECASE):
            return content
    raise UnreadableError("a form without a file")


def _prediction(model: Model, data: bytes) -> Prediction:
    (answer,) = model(model.decode(data)[None])
    return Prediction(
        label=answer.label,
        probability=answer.probability,
        abstains=answer.abstains,
        novelty=answer.novelty,
        label_set=answer.label_set,
        probabilities=dict(answer.ranked),
    )


def run(model: Model, host: str, port: int, max_mb: int) -> None:
    """Serve until SIGINT or SIGTERM; requests in progress are then answered, new ones refused."""
    uvicorn.run(
        application(model, max_mb),
        host=host,
        port=port,
        timeout_graceful_shutdown=_STOPS_WITHIN_S,
        log_level="info",
        server_header=False,
    )
