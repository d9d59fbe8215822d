"""Bytes of an image file -> upright RGB uint8, or the reason why not. What trains and what ships decode alike.

numpy and Pillow only: the command line for deployment uses this module too.
"""

from __future__ import annotations

import hashlib
import io
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
    MpoImagePlugin,  # noqa: F401 what many phones write as .jpg; the JPEG decoder hands it on
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from headstart.base.errors import DataError, UnreachableError

try:
    import simplejpeg
except ImportError:  # where a model is only deployed; Pillow gives the same bytes
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
MAX_PIXELS = 178_956_970  # where Pillow itself refuses: half a gigabyte of RGB

# Of what `decode` does: stores are kept under it. Count it up when other pixels would come out; a test notices that.
# It began as the digest of this file, under which the first stores were built.
VERSION = "59fb9964abadd47be5e97c2f99baff9ef11646f08f773e9092663cab414c9166"

_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF
_BACKGROUND = (255, 255, 255)  # what shows through transparent pixels


class UnreadableError(Exception):
    """The bytes are no image that can be used; the message is the reason, in a few words."""


class Decoded(NamedTuple):
    """An upright image."""

    rgb: np.ndarray  # uint8 [H, W, 3]
    format: str


def decoder() -> str:
    """Return a name for what `decode` does here: its own version and those of its libraries."""
    jpeg = simplejpeg.__version__ if simplejpeg else "none"
    return f"{VERSION} pillow {PIL.__version__} simplejpeg {jpeg}"


def read_unchanged(path: Path, image_id: str) -> bytes:
    """Return the bytes of an image file; DataError if they are no longer those of `image_id`, their SHA-256.

    UnreachableError where its URL does not answer.
    """
    try:
        data = path.read_bytes()
    except Exception as error:  # OSError, or whatever the file system of a URL raises
        said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        where: object = path  # a Path, or a URL that behaves like one
        lasts = isinstance(where, Path) or isinstance(error, FileNotFoundError)
        kind = DataError if lasts else UnreachableError
        raise kind(f"{path} cannot be read ({said}). The manifest names it. Run `dvc repro`.") from None
    if hashlib.sha256(data).hexdigest() != image_id:
        raise DataError(
            f"{path} has changed since `validate` read it. The bytes that the manifest names were expected."
            " Run `dvc repro --force validate`."
        )
    return data


def decode(data: bytes) -> Decoded:
    """Return the first frame, turned as EXIF says, as RGB uint8 [H, W, 3].

    Transparent pixels show white. 16-bit gray is scaled to 8 bits, not clipped. UnreadableError otherwise.
    """
    if not data:
        raise UnreadableError("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            rgb = _plain_jpeg(image, data)
            if rgb is None:
                image.load()
                rgb = np.asarray(_to_rgb(_upright(image)))
            return Decoded(rgb, str(image.format))
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        raise UnreadableError("not an image of a known format") from None
    except Exception as error:  # a decoder fed with broken bytes raises almost anything
        said = " ".join(str(error).split())
        raise UnreadableError(f"cannot be decoded: {said or type(error).__name__}"[:200]) from None


def from_pillow(image: Image.Image) -> np.ndarray:
    """Return an image that Pillow has opened as `decode` returns it: upright, RGB, uint8 [H, W, 3]."""
    return np.asarray(_to_rgb(_upright(image)))


def _plain_jpeg(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Decode an upright colour JPEG by libjpeg-turbo, without the detour through Pillow's own memory.

    The same bytes as Pillow's, in 0.7 to 0.85 of the time (benchmarks/decode.py). None where Pillow has to see to it.
    """
    if simplejpeg is None or image.format != "JPEG" or image.mode != "RGB":
        return None
    try:
        if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
            return None
        rgb: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except Exception:  # whatever is odd about it, Pillow says whether it can be used
        return None
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF says nothing about how to turn the image, and its pixels are sound
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnreadableError("32 bits a channel, whose range is unknown; save it with 8 or 16")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (*_BACKGROUND, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
