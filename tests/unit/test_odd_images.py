"""Values and colours that Pillow alone would show wrong, and what says why others are not read."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from headstart.images import colour
from headstart.images.decoding import decode, from_pillow
from headstart.images.formats import UnreadableError
from tests.support.hostile_images import chunk, grey_tiff, packed_12_bits
from tests.support.images import deep_png, encoded, photograph

RGB = photograph(1)
LEVELS = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
SEEN = np.arange(256, dtype=np.uint8).reshape(16, 16)  # what these levels look like


def test_packed_values_of_12_bits_are_as_bright_as_their_header_says() -> None:
    levels = np.linspace(0, 4095, 256).round().astype(np.uint16).reshape(16, 16)
    data = grey_tiff(packed_12_bits(levels), 16, 16, 12)
    found = decode(data)
    assert np.array_equal(found.rgb[..., 0], SEEN)
    assert found.bits is None  # the header says it, and the images together need not
    assert np.array_equal(decode(data, 10).rgb, found.rgb)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(from_pillow(image), found.rgb)


@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero_is_no_negative(order: str) -> None:
    data = grey_tiff(LEVELS.astype(f"{order}u2").tobytes(), 16, 16, 16, white=0, order=order)
    if order == ">":  # Pillow does not know the form
        with pytest.raises(UnreadableError, match="rare form"):
            decode(data)
        return
    assert np.array_equal(decode(data).rgb[..., 0], 255 - SEEN)
    twelve = grey_tiff((LEVELS >> 4).astype("<u2").tobytes(), 16, 16, 16, white=0)
    assert decode(twelve, 12).rgb[0, 0].tolist() == [255] * 3
    assert decode(twelve, 12).rgb[-1, -1].tolist() == [0] * 3


def test_the_transparent_level_of_deep_grey_shows_white() -> None:
    data = encoded(Image.fromarray(LEVELS))
    clear = data[:33] + chunk(b"tRNS", struct.pack(">H", int(LEVELS[3, 4]))) + data[33:]
    found = decode(clear).rgb
    assert found[3, 4].tolist() == [255] * 3
    others = np.ones((16, 16), bool)
    others[3, 4] = False
    assert np.array_equal(found[..., 0][others], SEEN[others])


@pytest.mark.parametrize("bits", [12, 16])
def test_the_transparent_colour_of_deep_colours_shows_white(bits: int) -> None:
    levels = np.dstack([LEVELS >> (16 - bits)] * 3)
    levels[..., 1] = levels[::-1, :, 1]
    data = deep_png(levels)
    clear = data[:33] + chunk(b"tRNS", struct.pack(">HHH", *map(int, levels[3, 4]))) + data[33:]
    found, plain = decode(clear, bits).rgb, decode(data, bits).rgb.copy()
    assert found[3, 4].tolist() == [255] * 3
    plain[3, 4] = 255
    assert np.array_equal(found, plain)


def test_what_is_not_read_is_named_by_what_it_is() -> None:
    signed = grey_tiff(LEVELS.astype("<u2").tobytes(), 16, 16, 16, signed=True)
    with pytest.raises(UnreadableError, match="signed values of 16 bits, with an unknown range"):
        decode(signed)
    unknown = grey_tiff(bytes(512), 16, 16, 16, white=7)
    with pytest.raises(UnreadableError, match="a TIFF that is broken or of a rare form; save it as 8-bit RGB"):
        decode(unknown)


def test_grey_that_is_multiplied_by_its_opacity_is_divided_by_it() -> None:
    associated = grey_tiff(bytes((100, 200, 0, 0)) * 128, 16, 16, (8, 8), extra=1)
    separate = grey_tiff(bytes((127, 200, 0, 0)) * 128, 16, 16, (8, 8), extra=2)
    found = decode(associated).rgb
    assert np.abs(found.astype(int) - decode(separate).rgb).max() <= 1
    assert found[0, 1].tolist() == [255] * 3


# Colour profiles


def profile(gamma: float, primaries: tuple[tuple[float, float], ...] | None = None) -> bytes:
    """Return the profile of a colour space with another gamma than sRGB: its tone curves replaced."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    n_tags = struct.unpack(">I", data[128:132])[0]
    curve = struct.pack(">4sIIH", b"curv", 0, 1, round(gamma * 256)) + bytes(2)
    for entry in range(132, 132 + 12 * n_tags, 12):
        name = bytes(data[entry : entry + 4])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            data[entry + 4 : entry + 12] = struct.pack(">II", len(data), 14)
    data += curve
    data[0:4] = struct.pack(">I", len(data))
    return bytes(data)


LINEAR = profile(1.0)


def by_pillow(image: Image.Image, of: bytes) -> np.ndarray:
    """Return the image in sRGB, as Pillow's own function says."""
    managed = ImageCms.profileToProfile(image, io.BytesIO(of), ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert managed is not None
    return np.asarray(managed)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_a_colour_profile_is_applied(image_format: str) -> None:
    options: dict[str, object] = {"WEBP": {"lossless": True}}.get(image_format, {})
    plain = decode(encoded(RGB, image_format, **options)).rgb
    found = decode(encoded(RGB, image_format, icc_profile=LINEAR, **options)).rgb
    assert np.array_equal(found, by_pillow(Image.fromarray(plain), LINEAR))
    assert np.abs(found.astype(int) - plain).mean() > 20


def test_pillow_images_and_turned_ones_have_their_profile_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(RGB, "JPEG", icc_profile=LINEAR, exif=exif)
    upright = decode(encoded(RGB, "JPEG", icc_profile=LINEAR)).rgb
    assert np.array_equal(decode(data).rgb, np.rot90(upright, -1))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(from_pillow(image), decode(data).rgb)


def test_large_images_are_converted_in_bands_to_the_same_colours() -> None:
    large = photograph(2, 2100, 2000)
    assert np.array_equal(decode(encoded(large)).rgb, large)
    managed = decode(encoded(large, icc_profile=LINEAR, compress_level=1)).rgb
    assert np.array_equal(managed, by_pillow(Image.fromarray(large), LINEAR))


@pytest.mark.parametrize("broken", [b"no profile at all", LINEAR[:200], LINEAR[:16] + b"CMYK" + LINEAR[20:]])
def test_a_broken_profile_or_one_of_other_colours_leaves_the_pixels(broken: bytes) -> None:
    assert np.array_equal(decode(encoded(RGB, icc_profile=broken)).rgb, RGB)


def test_a_pillow_without_littlecms_refuses_what_it_would_show_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour.features, "check", lambda name: False)
    with pytest.raises(UnreadableError, match="this Pillow lacks LittleCMS"):
        decode(encoded(RGB, icc_profile=LINEAR))
    assert np.array_equal(decode(encoded(RGB)).rgb, RGB)
