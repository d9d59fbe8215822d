"""The local page: what it asks, and what it is answered. Nothing but this page may read or decide anything.

Every address begins with a random token, so that another page of the browser cannot know it. The headers Host and
Origin are checked too: against a name that another page lets point at this machine, and against its forms.
"""

from __future__ import annotations

import io
from pathlib import Path
from secrets import compare_digest
from typing import TYPE_CHECKING, Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from headstart.base.errors import CheckError, HeadstartError
from headstart.base.files import located
from headstart.images import decoding, formats
from headstart.reviewed import Choice, Decision
from headstart.reviewing.answers import Action, Answer, Changes
from headstart.reviewing.desk import ChangedError, Desk, Done

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FILES = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
_MAX_BODY = 200_000  # bytes; a label may be long
_MAX_SIDE_PX = 1600  # of a picture on the page
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Shown(BaseModel):
    """A decision as the page has it."""

    model_config = ConfigDict(extra="forbid")

    decision: Choice
    label: str
    group: str
    split: str


class Said(BaseModel):
    """What the page sends."""

    model_config = ConfigDict(extra="forbid")

    number: int
    action: Action
    label: str = ""
    may_be_new: bool = False  # the label
    shown: dict[str, Shown | None] = {}  # image_id -> the decision that the person saw


def application(desk: Desk, project: str, pictures: Pictures, token: str, port: int) -> ASGIApp:
    """Return the application; its page is at /TOKEN/."""

    async def state(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(_state, desk, project))

    async def decisions(_: Request) -> Response:
        found = await run_in_threadpool(desk.decisions)
        return JSONResponse({"decisions": _told({**found}), "n_steps": desk.n_steps})

    async def picture(request: Request) -> Response:
        data = await run_in_threadpool(pictures.jpeg, request.path_params["image_id"])
        return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    async def decide(request: Request) -> Response:
        said = Said.model_validate_json(await request.body())
        if not 0 <= said.number < len(desk.cases.all):
            raise CheckError(f"there is no finding {said.number}. Reload the page.")
        paths = desk.cases.images
        shown: dict[str, Decision | None] = {
            each: None if decision is None else Decision(each, paths[each].path, **decision.model_dump())
            for each, decision in said.shown.items()
            if each in paths
        }
        answer = Answer(said.action, said.label)
        done = await run_in_threadpool(desk.decide, said.number, answer, shown, said.may_be_new)
        return JSONResponse(_done(done, desk))

    async def undo(_: Request) -> Response:
        done = await run_in_threadpool(desk.undo)
        return JSONResponse(_done(done, desk) if done else {"changed": {}, "number": None, "n_steps": 0})

    def file(name: str, kind: str) -> Any:
        async def send(_: Request) -> Response:
            return Response((Path(__file__).parent / name).read_bytes(), media_type=kind)

        return send

    routes = [
        *(Route(f"/{token}/{path}", file(*found)) for path, found in _FILES.items()),
        Route(f"/{token}/state", state),
        Route(f"/{token}/decisions", decisions),
        Route(f"/{token}/image/{{image_id}}", picture),
        Route(f"/{token}/decide", decide, methods=["POST"]),
        Route(f"/{token}/undo", undo, methods=["POST"]),
    ]
    refusals: dict[Any, Any] = {HeadstartError: _refused, ValidationError: _refused}
    return Guard(Starlette(routes=routes, exception_handlers=refusals), token, port)


class Guard:
    """ASGI middleware: lets only the page itself in, and says what the browser may do with it."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._begin = app, f"/{token}/".encode()
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send) if scope["type"] == "lifespan" else None

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                added = [
                    (name.encode(), value.encode()) for name, value in _HEADERS.items() if name.encode() not in there
                ]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send_guarded)
        return None

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        host = headers.get("host", "")
        if host not in self._hosts:
            return PlainTextResponse("This page is at 127.0.0.1 alone.", 421)
        if not compare_digest(request.url.path.encode()[: len(self._begin)], self._begin):
            return PlainTextResponse("Open the address that the command has printed.", 404)
        if request.method == "POST":
            is_own = headers.get("origin", f"http://{host}") == f"http://{host}"
            is_own = is_own and headers.get("sec-fetch-site", "same-origin") == "same-origin"
            if not is_own or headers.get("content-type", "") != "application/json":
                return PlainTextResponse("Only the page itself may decide.", 403)
            length = headers.get("content-length", "")
            if not length.isdigit() or int(length) > _MAX_BODY:
                return PlainTextResponse("The decision is too long.", 413)
        return None


class Pictures:
    """The images of the findings as JPEG: what is sent is drawn anew, so that no file reaches the browser as it is."""

    def __init__(self, desk: Desk, folder: Path, bits: int) -> None:
        """`folder`: that paths are relative to. `bits`: that the values of files with 16 bits a channel have."""
        self._folder, self._bits = folder, bits
        ids = {image_id for case in desk.cases.all for image_id in case.pictures}
        self._paths = {image_id: desk.cases.images[image_id].path for image_id in ids}

    def jpeg(self, image_id: str) -> bytes:
        """Return an image of a finding; CheckError if it is another one, or cannot be shown."""
        if image_id not in self._paths:
            raise CheckError("this image is in no finding. Reload the page.")
        path = located(self._paths[image_id], self._folder)
        try:
            image = Image.fromarray(decoding.decode(decoding.read_unchanged(path, image_id), self._bits).rgb)
        except formats.UnreadableError as error:
            raise CheckError(f"{self._paths[image_id]} cannot be shown: {error}. Run `dvc repro validate`.") from None
        image.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()


async def _refused(_: Request, error: Exception) -> Response:
    said = "what was sent is no decision. Reload the page." if isinstance(error, ValidationError) else str(error)
    return JSONResponse({"error": said, "is_stale": isinstance(error, ChangedError)}, 409)


def _state(desk: Desk, project: str) -> dict[str, Any]:
    """Return everything that the page shows."""
    cases = desk.cases
    return {
        "project": project,
        "file": desk.file.name,
        "classes": list(cases.classes),
        "cases": [{**case.finding._asdict(), "cluster": len(case.cluster)} for case in cases.all],
        "images": {
            image_id: {"path": about.path, "label": about.label, "split": cases.split_of[image_id]}
            for case in cases.all
            for image_id in case.pictures
            for about in [cases.images[image_id]]
        },
        "decisions": _told({**desk.decisions()}),
        "n_steps": desk.n_steps,
        "n_gone": cases.n_gone,
    }


def _told(changes: Changes) -> dict[str, Any]:
    return {
        image_id: decision and Shown(**{name: getattr(decision, name) for name in Shown.model_fields}).model_dump()
        for image_id, decision in changes.items()
    }


def _done(done: Done, desk: Desk) -> dict[str, Any]:
    return {"changed": _told(done.changed), "number": done.number, "n_steps": desk.n_steps}
