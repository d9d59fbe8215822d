"""What the routes of a server share: its models, workers and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
from fastapi import HTTPException, Request

from headstart.images import headers, limited
from headstart.serving.drift import Drift
from headstart.serving.limits import Bodies, ClientDisconnect, Limits
from headstart.serving.models import Models, Served
from headstart.serving.telemetry import Metrics, record_of
from headstart.serving.workers import Done, Workers


class Server:
    """What the routes share."""

    def __init__(
        self, models: Models, workers: Workers, limits: Limits, metrics: Metrics, drift: Drift | None = None
    ) -> None:
        self.drift = drift
        self.models, self.workers, self.limits, self.metrics = models, workers, limits, metrics
        self.bodies = Bodies(limits)
        self._pixels = limited.Pixels(limits.max_pixels)
        self.reader = limited.Reader(limited.Limits(limits.max_pixels, limits.max_seconds), self._pixels)

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
        work = asyncio.ensure_future(self.workers.run(served, lambda: self._images(served.alone.bits, data)))
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
        if self.drift:
            self.drift.count(served, done.outputs, data)
        return done

    def _images(self, bits: int, data: list[bytes] | np.ndarray) -> Iterator[np.ndarray]:
        """Yield uint8 [N, H, W, 3] in a thread; the pixels count until the next is asked for."""
        if isinstance(data, np.ndarray):
            n_images, height_px, width_px, _ = data.shape
            headers.Header("", width_px, height_px * n_images, True).check(self.limits.max_pixels)
            with self._pixels.taken(data.size // 3):
                yield data
            return
        for file in data:
            with self.reader.decoded(file, bits) as image:
                yield image.rgb[None]


async def _hung_up(request: Request) -> None:
    """Return when the client of a request whose body was read to its end has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
