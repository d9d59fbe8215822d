"""Colour profiles (ICC.1:2022): what a file's numbers mean, turned into sRGB by LittleCMS, as Pillow has it."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, features

from headstart.images.formats import UnreadableError

_SAME = 2  # levels of 255: a profile that changes no colour by more is sRGB, and nothing is converted
_BAND_ROWS = 512


def managed(rgb: np.ndarray, profile: bytes | None) -> np.ndarray:
    """Return uint8 [H, W, 3] in sRGB; `rgb` itself where there is no profile, or that of sRGB, or a broken one."""
    if not profile:
        return rgb
    mode = _mode_of(profile)
    if mode == "L" and not (np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2])):
        return rgb  # a profile of grey in a file with colours
    transform = transform_of(profile, mode) if mode in ("RGB", "L") else None
    if transform is None:
        return rgb
    managed = rgb if rgb.flags.writeable else np.empty_like(rgb)
    for top in range(0, len(rgb), _BAND_ROWS):
        band = rgb[top : top + _BAND_ROWS]
        part = Image.fromarray(np.ascontiguousarray(band[..., 0]) if mode == "L" else band)
        managed[top : top + _BAND_ROWS] = np.asarray(transform.apply(part))
    return managed


def transform_of(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what turns images of Pillow's `mode` into sRGB; None where nothing has to be done, or can be."""
    if not profile or _mode_of(profile) != mode:
        return None
    if not features.check("littlecms2"):
        raise UnreadableError("it has a colour profile, and this Pillow lacks LittleCMS; install Pillow's own wheel")
    return _transform(bytes(profile), mode)


def _mode_of(profile: bytes) -> str:
    """Return Pillow's mode for the colour space that a profile's header names (ICC.1:2022, 7.2.6)."""
    return {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(bytes(profile[16:20]), "")


@lru_cache(64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), mode, "RGB"
        )
        return None if mode != "CMYK" and _is_srgb(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # broken: the numbers are taken as they are
        return None


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform changes no colour of a fine grid."""
    levels = np.append(np.arange(0, 256, 15), 255).astype(np.uint8)
    if mode == "L":
        grid = np.arange(256, dtype=np.uint8)[None]
        there = np.repeat(grid[..., None], 3, 2)
    else:
        there = grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    back = np.asarray(transform.apply(Image.fromarray(grid)))
    return bool(np.abs(back.astype(int) - there).max() <= _SAME)
