"""Decodes an image file to upright RGB uint8, or gives the reason why not. Training and deployment decode alike.

It imports only numpy, Pillow and, if installed, simplejpeg: the command line for deployment uses this module too.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import (  # Pillow would load the decoders at first use, which is not safe in threads
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,  # noqa: F401 many phones write it as .jpg; the JPEG decoder passes it on
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from headstart.base.errors import DataError, UnreachableError

try:
    import simplejpeg
except ImportError:  # a deployment may lack it; Pillow gives the same bytes
    simplejpeg = None

_DECODERS = (
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)
FORMATS = tuple(str(decoder.format) for decoder in _DECODERS)
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MAX_PIXELS = 178_956_970  # Pillow's own limit: half a gigabyte of RGB

# The version of `decode`, part of the fingerprint of stores. Change it when `decode` gives other pixels; a test detects
# that. The first version was the digest of this file, under which the first stores were built.
VERSION = "59fb9964abadd47be5e97c2f99baff9ef11646f08f773e9092663cab414c9166"

_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF
_BACKGROUND = (255, 255, 255)  # shown behind transparent pixels


class UnreadableError(Exception):
    """The bytes are not a usable image; the message is the reason, in a few words."""


class Decoded(NamedTuple):
    """An upright image."""

    rgb: np.ndarray  # uint8 [H, W, 3]
    format: str


def decoder() -> str:
    """Return what identifies the output of `decode` here: its version and those of its libraries."""
    jpeg = simplejpeg.__version__ if simplejpeg else "none"
    return f"{VERSION} pillow {PIL.__version__} simplejpeg {jpeg}"


def read_unchanged(path: Path, image_id: str) -> bytes:
    """Return the bytes of an image file; DataError if it is missing or its SHA-256 is no longer `image_id`.

    UnreachableError if its URL does not answer.
    """
    try:
        data = path.read_bytes()
    except Exception as error:  # OSError, or whatever the file system of a URL raises
        said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        where: object = path  # a Path, or a URL that behaves like one
        lasts = isinstance(where, Path) or isinstance(error, FileNotFoundError)
        kind = DataError if lasts else UnreachableError
        raise kind(f"{path} cannot be read ({said}), but the manifest lists it. Run `dvc repro`.") from None
    if hashlib.sha256(data).hexdigest() != image_id:
        raise DataError(
            f"{path} has changed since `validate` read it. The bytes that the manifest lists were expected."
            " Run `dvc repro --force validate`."
        )
    return data


def decode(data: bytes) -> Decoded:
    """Return the first frame, rotated as EXIF says, as RGB uint8 [H, W, 3]; UnreadableError if that is impossible.

    Transparent pixels become white. 16-bit grey is scaled to 8 bits, not clipped.
    """
    if not data:
        raise UnreadableError("empty file")
    with _told(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        rgb = _plain_jpeg(image, data)
        if rgb is None:
            image.load()
            rgb = np.asarray(_to_rgb(_upright(image)))
        return Decoded(rgb, str(image.format))


@contextmanager
def _told() -> Iterator[None]:
    """Turn what a decoder raises into UnreadableError."""
    try:
        yield
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        raise UnreadableError("not an image of a known format") from None
    except Exception as error:  # a decoder may raise almost anything for broken bytes
        said = " ".join(str(error).split())
        raise UnreadableError(f"cannot be decoded: {said or type(error).__name__}"[:200]) from None


def from_pillow(image: Image.Image) -> np.ndarray:
    """Return an opened Pillow image as `decode` would return it: upright, RGB, uint8 [H, W, 3]; UnreadableError too."""
    with _told():
        if not image.width * image.height:
            raise UnreadableError(f"{image.width} x {image.height} pixels")
        image.load()
        return np.asarray(_to_rgb(_upright(image)))


def _plain_jpeg(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Return an upright colour JPEG decoded by libjpeg-turbo, without Pillow's buffers; None if Pillow must decode it.

    It gives the same bytes as Pillow in 0.7 to 0.85 of the time (benchmarks/decode.py).
    """
    if simplejpeg is None or image.format != "JPEG" or image.mode != "RGB":
        return None
    try:
        if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
            return None
        rgb: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except Exception:  # Pillow then decides whether the file is usable
        return None
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF gives no rotation, but the pixels are sound
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnreadableError("32 bits per channel, with an unknown range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (*_BACKGROUND, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
