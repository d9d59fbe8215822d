"""Files with 16 bits a channel, of which the values use fewer."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.images import decoding
from headstart.images.decoding import decode
from headstart.images.formats import UnreadableError
from tests.support.images import deep_png, deep_tiff, encoded, photograph

RGB = photograph(1)


def of_bits(bits: int, channels: int | None = None) -> np.ndarray:
    """Return uint16 [16, 16] or [16, 16, C] from 0 to 2 ** bits - 1, with every channel in another order."""
    levels = np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16).reshape(16, 16)
    if channels is None:
        return levels
    return np.dstack([np.roll(levels.ravel(), 7 * channel).reshape(16, 16) for channel in range(channels)])


def scaled(levels: np.ndarray, bits: int) -> np.ndarray:
    """Return what they look like, rounded to 8 bits."""
    rounded: np.ndarray = np.floor(levels * 255.0 / (2**bits - 1) + 0.5).astype(np.uint8)
    return rounded


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_grey_is_scaled_by_the_bits_that_its_values_use(image_format: str, bits: int) -> None:
    data = encoded(Image.fromarray(of_bits(bits)), image_format)
    assert decode(data).bits == bits
    found = decode(data, bits)
    assert found.bits == bits
    assert np.array_equal(found.rgb, np.repeat(scaled(of_bits(bits), bits)[..., None], 3, 2))
    assert len(np.unique(found.rgb)) == 256


DEEP: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG": deep_png,
    "TIFF": deep_tiff,
    "TIFF, big end first": lambda levels: deep_tiff(levels, ">"),
    "TIFF, compressed": lambda levels: deep_tiff(levels, compressed=True),
    "TIFF, big end first, compressed": lambda levels: deep_tiff(levels, ">", compressed=True),
}


@pytest.mark.parametrize("bits", [9, 12, 15])
@pytest.mark.parametrize("form", DEEP)
def test_colours_are_scaled_by_the_bits_that_their_values_use(form: str, bits: int) -> None:
    levels = of_bits(bits, channels=3)
    data = DEEP[form](levels)
    assert decode(data).bits == bits
    assert np.array_equal(decode(data, bits).rgb, scaled(levels, bits))


@pytest.mark.parametrize("form", DEEP)
def test_colours_that_use_all_bits_are_what_they_always_were(form: str) -> None:
    levels = of_bits(16, channels=3)
    found = decode(DEEP[form](levels))
    assert found.bits == 16
    assert np.array_equal(found.rgb, levels >> 8)  # Pillow's way


def test_transparent_pixels_of_colours_in_twelve_bits_become_white() -> None:
    levels = of_bits(12, channels=4)
    levels[..., 3] = 65535
    levels[0, :, 3] = 0
    found = decode(deep_png(levels), 12).rgb
    assert (found[0] == 255).all()
    assert np.array_equal(found[1:], scaled(levels[1:, :, :3], 12))


def test_the_orientation_of_colours_in_twelve_bits_is_applied() -> None:
    levels = of_bits(12, channels=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = deep_png(levels)
    tag = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = len(tag).to_bytes(4, "big") + b"eXIf" + tag + zlib.crc32(b"eXIf" + tag).to_bytes(4, "big")
    turned = data[:33] + chunk + data[33:]
    assert np.array_equal(decode(turned, 12).rgb, scaled(levels, 12).transpose(1, 0, 2)[:, ::-1])


def test_a_value_beyond_the_bits_is_refused_not_clipped() -> None:
    grey = encoded(Image.fromarray(of_bits(13)))
    for data in (grey, deep_png(of_bits(13, channels=3))):
        with pytest.raises(UnreadableError, match=r"^a value of 8191, where at most 4095 \(12 bits\) is expected$"):
            decode(data, 12)


def test_grey_with_transparency_in_sixteen_bits_is_refused_where_fewer_are_used() -> None:
    levels = of_bits(12, channels=2)
    assert decode(deep_png(levels)).bits == 12
    with pytest.raises(UnreadableError, match=r"16 bits a channel in the form LA;16B, which is read only"):
        decode(deep_png(levels), 12)


def test_bits_have_no_effect_on_ordinary_files() -> None:
    for image_format in ("PNG", "JPEG", "TIFF"):
        data = encoded(RGB, image_format)
        assert np.array_equal(decode(data).rgb, decode(data, 12).rgb)
        assert decode(data).bits is None


def test_pillow_images_are_scaled_alike(tmp_path: Path) -> None:
    grey = Image.fromarray(of_bits(12))
    assert np.array_equal(decoding.from_pillow(grey, 12), decode(encoded(grey), 12).rgb)
    (tmp_path / "a.png").write_bytes(deep_png(of_bits(12, channels=3)))
    with Image.open(tmp_path / "a.png") as opened, pytest.raises(UnreadableError, match="pass the path or the bytes"):
        decoding.from_pillow(opened, 12)


def test_fewer_bits_are_another_decoder() -> None:
    """Rows of other bits are other rows; those of ordinary files stay what they were."""
    assert decoding.decoder() == decoding.decoder(16)
    assert len({decoding.decoder(bits) for bits in range(8, 17)}) == 9
