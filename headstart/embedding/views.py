"""Random crops of an image, as additional training rows for the head.

Augmentation is the usual reason not to cache features. Views allow both: they are drawn once, from the image and a
seed, and never change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import Image

# torchvision's RandomResizedCrop, with a larger least area: pixels are a centre square already.
_AREA = (0.25, 1.0)
_LOG_RATIO = (float(np.log(3 / 4)), float(np.log(4 / 3)))
_TRIES = 10
_VIEWS_VERSION = "1"  # counted up when other views would be drawn


@dataclass(frozen=True)
class Views:
    """Random resized crops, every second one mirrored; a draw follows from the image's key, the seed and its number."""

    n_views: int
    seed: int
    input_px: int  # of the backbone, whose first nodes cut out the centre: the crop is put there
    interpolation: str

    def __str__(self) -> str:
        return f"{self.n_views} views {_VIEWS_VERSION} seed {self.seed} {self.interpolation} pillow {PIL.__version__}"

    def of(self, pixels: np.ndarray, image_id: str) -> np.ndarray:
        """Return uint8 [V, S, S, 3] for one image's pixels, uint8 [S, S, 3]."""
        side = len(pixels)
        start = round((side - self.input_px) / 2)
        inner = slice(start, start + self.input_px)
        picture = Image.fromarray(pixels)
        resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[self.interpolation]
        views = np.zeros((self.n_views, *pixels.shape), np.uint8)
        for number, view in enumerate(views):
            box, mirrored = self._draw(side, f"{self.seed}:{number}:{image_id}")
            crop = np.asarray(picture.resize((self.input_px, self.input_px), resample, box))
            view[inner, inner] = crop[:, ::-1] if mirrored else crop
        return views

    def _draw(self, side: int, key: str) -> tuple[tuple[float, float, float, float], bool]:
        random = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest(), "big"))
        mirrored = random.random() < 0.5
        for _ in range(_TRIES):
            area = side * side * random.uniform(*_AREA)
            ratio = np.exp(random.uniform(*_LOG_RATIO))
            width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
            if width <= side and height <= side:
                left, top = random.uniform(0, side - width), random.uniform(0, side - height)
                return (left, top, left + width, top + height), mirrored
        return (0, 0, side, side), mirrored
