"""What the routes of a server share: its models, workers and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
from fastapi import HTTPException, Request

from headstart.handover.model import Model
from headstart.images import UnreadableError, size_of
from headstart.serving.limits import Bodies, ClientDisconnect, Limits, Pixels
from headstart.serving.models import Models, Served
from headstart.serving.telemetry import Metrics, record_of
from headstart.serving.workers import Done, Workers


class Server:
    """What the routes share."""

    def __init__(self, models: Models, workers: Workers, limits: Limits, metrics: Metrics) -> None:
        self.models, self.workers, self.limits, self.metrics = models, workers, limits, metrics
        self.bodies = Bodies(limits)
        self._pixels = Pixels(limits.max_pixels)

    def model(self, name: str | None) -> Served:
        """Return the model of this name, the first if it is None; HTTPException 404 if there is none."""
        if name is None:
            return self.models.first
        if name not in self.models.current:
            known = ", ".join(self.models.current)
            raise HTTPException(404, f"'{name[:100]}' is not a model of this server. One of {known} was expected.")
        return self.models.current[name]

    async def answered(self, request: Request, served: Served, data: list[bytes] | np.ndarray) -> Done:
        """Return what the model says to files, or to uint8 [N, H, W, 3]; ClientDisconnect if nobody waits for it."""
        work = asyncio.ensure_future(self.workers.run(served, lambda: self._images(served.alone, data)))
        hanging_up = asyncio.ensure_future(_hung_up(request))
        hanging_up.add_done_callback(lambda _: work.cancel())  # what waits in the queue is then not done
        try:
            done = await work
        except asyncio.CancelledError:
            if hanging_up.done():
                raise ClientDisconnect from None
            raise
        finally:
            hanging_up.cancel()
        record_of(request.scope).done = done
        return done

    def _images(self, model: Model, data: list[bytes] | np.ndarray) -> Iterator[np.ndarray]:
        """Yield uint8 [N, H, W, 3] in a thread; the pixels count until the next is asked for."""
        if isinstance(data, np.ndarray):
            self._check(data.shape[2], data.shape[1] * len(data))
            with self._pixels.taken(data.size // 3):
                yield data
            return
        for file in data:
            width_px, height_px = size_of(file)
            self._check(width_px, height_px)
            with self._pixels.taken(width_px * height_px):
                yield model.decode(file)[None]

    def _check(self, width_px: int, height_px: int) -> None:
        """Raise UnreadableError for too many pixels; `Pixels` could never let them in."""
        most = self.limits.max_pixels
        if width_px * height_px > most:
            raise UnreadableError(f"{width_px} x {height_px} pixels, more than {most}")


async def _hung_up(request: Request) -> None:
    """Return when the client of a request whose body was read to its end has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
