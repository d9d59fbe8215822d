"""Copies of an image as people make them: cropped, compressed, scaled, mirrored, lightened, or all of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance

Make = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def cropped(pixels: np.ndarray, draw: np.random.Generator, share: float = 0.85) -> np.ndarray:
    """Return a random square part, of this share of the side, at the size of the whole."""
    side = len(pixels)
    part = round(share * side)
    top, left = draw.integers(0, side - part + 1, 2)
    return _resized(pixels[top : top + part, left : left + part], side)


def compressed(pixels: np.ndarray, draw: np.random.Generator, quality: int = 30) -> np.ndarray:
    """Return the picture as a JPEG of this quality shows it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def scaled(pixels: np.ndarray, draw: np.random.Generator, share: float = 0.5) -> np.ndarray:
    """Return the picture after it was scaled down to a share of its side."""
    side = len(pixels)
    return _resized(_resized(pixels, max(1, round(share * side))), side)


def mirrored(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return the mirror image."""
    return np.ascontiguousarray(pixels[:, ::-1])


def lightened(pixels: np.ndarray, draw: np.random.Generator, factor: float = 1.3) -> np.ndarray:
    """Return the picture, lighter or, at random, as much darker."""
    by = factor if draw.integers(2) else 1 / factor
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(by))


def altered(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return the picture after all of it."""
    for make in (cropped, mirrored, scaled, lightened, compressed):
        pixels = make(pixels, draw)
    return pixels


KINDS: Mapping[str, Make] = {
    "cropped": cropped,
    "compressed": compressed,
    "scaled": scaled,
    "mirrored": mirrored,
    "lightened": lightened,
    "all of it": altered,
}


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))
