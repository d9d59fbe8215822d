"""Where the project and the photographs are, and pictures that are drawn."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


HYMENOPTERA = Path(os.environ.get("HEADSTART_TEST_PHOTOGRAPHS", ROOT.parent / "shared" / "data" / "hymenoptera"))


def photograph(number: int, height_px: int = 40, width_px: int = 60) -> np.ndarray:
    """Return a smooth uint8 [H, W, 3] picture, another one for each number."""
    random = np.random.default_rng(number)
    small = random.integers(0, 256, (4, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width_px, height_px), Image.Resampling.BICUBIC))


def encoded(image: np.ndarray | Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()
