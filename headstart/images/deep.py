"""Files with more than 8 bits a channel. Pillow keeps the higher byte of deep colours, and says little of the rest."""

from __future__ import annotations

import io
import sys
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from headstart.base.errors import count_and_name
from headstart.images.formats import FORMATS, UnreadableError

# Of files with 16 bits a channel: how many of them the values use. `LEAST_BITS` are those of an ordinary file.
LEAST_BITS, ALL_BITS = 8, 16
BACKGROUND = (255, 255, 255)  # shown behind transparent pixels

_SEPARABLE = {f"{channels};16{order}" for channels in ("RGB", "RGBA", "RGBX") for order in "LBN"}
_BITS_TAG, _PHOTOMETRIC_TAG, _SAMPLE_FORMAT_TAG = 258, 262, 339  # TIFF 6.0
_WHITE_IS_ZERO, _SIGNED = 0, 2


def is_grey(image: Image.Image) -> bool:
    """Return whether an image is grey of 9 to 16 bits."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")


def grey(image: Image.Image, bits: int) -> tuple[np.ndarray, int | None]:
    """Return uint8 [H, W, 3], and how many bits the values use; None where the header says how many they have."""
    levels = np.asarray(image)
    tags = _tags(image)
    said = _first(tags.get(_BITS_TAG, ALL_BITS))
    used = max(LEAST_BITS, n_bits(levels)) if said == ALL_BITS else None
    values = _scaled(levels, bits if said == ALL_BITS else said)
    if _is_white_zero(tags):
        values = 255 - values
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        values[levels == clear] = BACKGROUND[0]
    return np.repeat(values[..., None], 3, axis=2), used


def unknown_range(image: Image.Image) -> str:
    """Return why values of another kind are not read."""
    tags = _tags(image)
    is_signed = _first(tags.get(_SAMPLE_FORMAT_TAG, 1)) == _SIGNED and _first(tags.get(_BITS_TAG, 0)) == ALL_BITS
    kind = "signed values of 16 bits" if is_signed else "32 bits per channel"
    return f"{kind}, with an unknown range; save it with 8 or 16 bits"


def on_white(image: Image.Image) -> np.ndarray:
    """Return uint8 [H, W, 3] of an image in RGBA."""
    white = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def n_bits(levels: np.ndarray) -> int:
    """Return how many bits the largest value takes."""
    return int(levels.max()).bit_length()


def has_deep_colours(image: Image.Image) -> bool:
    """Return whether an image that was opened, and not yet loaded, has 16 bits a colour."""
    return image.mode in ("RGB", "RGBA") and any(";16" in _raw_mode(tile) for tile in getattr(image, "tile", ()))


def colours(data: bytes, bits: int) -> np.ndarray:
    """Return uint8 [H, W, 3], not turned, of a file whose values use `bits` of 16 bits.

    UnreadableError where its form is rare.
    """
    higher, clear = _bytes_of_values(data, lower=False)
    lower, _ = _bytes_of_values(data, lower=True)
    levels = higher[..., :3].astype(np.uint16)
    levels <<= 8
    levels |= lower[..., :3]
    rgb = higher[..., :3].copy() if bits == ALL_BITS else _scaled(levels, bits)
    if clear is not None:
        rgb[(levels == clear).all(axis=-1)] = BACKGROUND
    return rgb if higher.shape[2] == 3 else on_white(Image.fromarray(np.dstack([rgb, higher[..., 3]])))


def _scaled(levels: np.ndarray, bits: int) -> np.ndarray:
    """Return uint8 for values of `bits` bits; UnreadableError where one is larger."""
    white, highest = 2**bits - 1, int(levels.max())
    if highest > white:
        raise UnreadableError(f"a value of {highest}, where at most {white} ({bits} bits) is expected")
    scaled: np.ndarray = _levels_of(bits)[levels]
    return scaled


@lru_cache
def _levels_of(bits: int) -> np.ndarray:
    """Return what each value of so many bits becomes, rounded: uint8 [2 ** bits]."""
    white = 2**bits - 1
    table: np.ndarray = ((np.arange(2**bits, dtype=np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    return table


def _bytes_of_values(data: bytes, lower: bool) -> tuple[np.ndarray, Any]:
    """Return the higher or the lower byte of each value, uint8 [H, W, 3 or 4], and the colour that is transparent.

    Pillow takes the higher byte. Told that the bytes have the other order, it takes the lower one.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        modes = {_raw_mode(tile) for tile in image.tile}
        if not modes <= _SEPARABLE:
            raise UnreadableError(
                f"16 bits a channel in the form {count_and_name(sorted(modes))}, which is read only where all are used;"
                " save it as RGB or grey without transparency"
            )
        if lower:
            image.tile = [tile._replace(args=_swapped(tile.args)) for tile in image.tile]
        clear = image.info.get("transparency")
        image.load()
        return np.asarray(image), clear


def _raw_mode(tile: Any) -> str:
    """Return how a file's bytes become values, such as 'RGB;16B'."""
    return str(tile.args if isinstance(tile.args, str) else tile.args[0])


def _swapped(args: Any) -> Any:
    """Return the arguments of a tile with the other order of bytes."""
    if not isinstance(args, str):
        return (_swapped(args[0]), *args[1:])
    order = args[-1] if args[-1] != "N" else sys.byteorder[0].upper()  # N is that of this machine
    return args[:-1] + ("L" if order == "B" else "B")


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {}) if image.format in ("TIFF", None) else {}


def _is_white_zero(tags: Any) -> bool:
    return bool(tags) and tags.get(_PHOTOMETRIC_TAG, _WHITE_IS_ZERO) == _WHITE_IS_ZERO


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
