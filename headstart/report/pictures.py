"""The images of the report: small JPEGs as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

_QUALITY = 80


def picture(pixels: np.ndarray, side_px: int) -> str:
    """Return uint8 [S, S, 3] as a data URI, at most `side_px` wide."""
    return _uri(Image.fromarray(_resized(pixels, min(side_px, len(pixels)))))


def strip(images: Sequence[np.ndarray], side_px: int) -> str:
    """Return images, uint8 [S, S, 3] each, side by side in one picture, as a data URI."""
    tiles = [_resized(pixels, side_px) for pixels in images]
    return _uri(Image.fromarray(np.concatenate(tiles, axis=1)))


def sprite(images: Sequence[np.ndarray], side_px: int, columns: int) -> str:
    """Return images in rows of `columns`, as one data URI; the page shows one image at a time."""
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * side_px, columns * side_px, 3), np.uint8)
    for number, pixels in enumerate(images):
        top, left = side_px * (number // columns), side_px * (number % columns)
        sheet[top : top + side_px, left : left + side_px] = _resized(pixels, side_px)
    return _uri(Image.fromarray(sheet))


def overlaid(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return uint8 [S, S, 3] under an overlay of float [G, G]: red where highest, transparent where 0 or less."""
    side = len(pixels)
    share = np.clip(heat / max(float(heat.max()), 1e-12), 0, 1).astype(np.float32)
    mask = np.asarray(Image.fromarray(share).resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)[..., None] * 0.6
    mixed: np.ndarray = (pixels * (1 - mask) + np.array([255, 40, 0]) * mask).round().astype(np.uint8)
    return mixed


def _resized(pixels: np.ndarray, side_px: int) -> np.ndarray:
    if pixels.shape[1] == side_px:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BICUBIC))


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
