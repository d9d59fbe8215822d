from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from headstart.base.errors import DataError
from headstart.base.files import sha256_of
from headstart.images import decoding, formats
from headstart.images.decoding import decode, read_unchanged
from headstart.images.formats import EXTENSIONS, UnreadableError
from tests.support.images import ROOT, encoded, photograph

RGB = photograph(1)


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_to_the_pixel(image_format: str) -> None:
    found = decode(encoded(RGB, image_format))
    assert found.format == image_format
    assert found.rgb.dtype == np.uint8
    assert np.array_equal(found.rgb, RGB)


def test_lossless_webp_comes_back_to_the_pixel() -> None:
    assert np.array_equal(decode(encoded(RGB, "WEBP", lossless=True)).rgb, RGB)


def test_jpeg_comes_back_nearly() -> None:
    found = decode(encoded(RGB, "JPEG", quality=95))
    assert found.format == "JPEG"
    assert np.abs(found.rgb.astype(int) - RGB).mean() < 3


def test_of_an_animated_gif_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    found = decode(buffer.getvalue())
    assert found.format == "GIF"
    assert np.array_equal(found.rgb, np.asarray(frames[0]))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: a.transpose(1, 0, 2)[:, ::-1]),
        (7, lambda a: a.transpose(1, 0, 2)[::-1, ::-1]),
        (8, lambda a: a.transpose(1, 0, 2)[::-1]),
    ],
)
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, upright: object, image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(RGB, image_format, exif=exif.tobytes())).rgb
    assert np.array_equal(found, upright(RGB))  # type: ignore[operator]


def test_broken_exif_does_not_lose_the_image() -> None:
    data = encoded(RGB, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode(data).rgb.shape == RGB.shape


def test_grayscale_becomes_three_equal_channels() -> None:
    gray = RGB[..., 0]
    assert np.array_equal(decode(encoded(gray)).rgb, np.repeat(gray[..., None], 3, axis=2))


def test_a_palette_becomes_its_colours() -> None:
    palette = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(decode(encoded(palette)).rgb, np.asarray(palette.convert("RGB")))


def test_one_bit_becomes_black_and_white() -> None:
    bits = Image.fromarray(RGB[..., 0]).convert("1")
    assert set(np.unique(decode(encoded(bits)).rgb)) == {0, 255}


def test_transparent_pixels_show_white_not_what_is_hidden_below() -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[:10, :, 3] = 0
    found = decode(encoded(rgba)).rgb
    assert (found[:10] == 255).all()
    assert np.array_equal(found[10:], RGB[10:])


def test_a_transparent_palette_entry_shows_white() -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 1)
    found = decode(encoded(palette, "PNG", transparency=0)).rgb
    assert found[0, 0].tolist() == [200, 100, 50]
    assert (found[1:] == 255).all()


def test_gray_with_alpha_shows_white() -> None:
    image = Image.fromarray(np.dstack([RGB[..., 0], np.zeros(RGB.shape[:2], np.uint8)]), "LA")
    assert (decode(encoded(image)).rgb == 255).all()


def test_cmyk_becomes_what_it_looks_like() -> None:
    cmyk = Image.new("CMYK", (8, 8), (255, 0, 0, 0))  # all cyan ink
    red, green, blue = decode(encoded(cmyk, "JPEG", quality=95)).rgb[4, 4].tolist()
    assert red < 30
    assert green > 200
    assert blue > 200


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(image_format: str) -> None:
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    found = decode(encoded(Image.fromarray(levels), image_format)).rgb
    assert np.array_equal(found[..., 0].ravel(), np.arange(256))


# Formats that are not read

UNREAD = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
    "DICOM": bytes(128) + b"DICM\x02\0\0\0",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "JPEG XL": b"\xff\x0a\0\0",
    "Photoshop": b"8BPS\0\1",
}


@pytest.mark.parametrize("kind", UNREAD)
def test_a_format_that_is_not_read_is_named(kind: str) -> None:
    with pytest.raises(UnreadableError, match=f"^{kind}, which is not read; convert it to PNG or JPEG$"):
        decode(UNREAD[kind])


@pytest.mark.parametrize(("name", "kind"), [("IMG_1.HEIC", "HEIC"), ("scan.dcm", "DICOM"), ("a.CR2", "camera raw")])
def test_a_format_that_is_not_read_is_named_by_the_files_name(name: str, kind: str) -> None:
    assert formats.not_read(name) == f"{kind}, which is not read; convert it to PNG or JPEG"


def test_formats_that_are_read_are_not_among_those_that_are_not() -> None:
    assert [extension for extension in EXTENSIONS if formats.not_read(f"a{extension}")] == []


def test_floating_point_pixels_are_refused_with_a_reason() -> None:
    with pytest.raises(UnreadableError, match="32 bits per channel"):
        decode(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image of a known format"),
        (encoded(RGB, "JPEG")[:-200], "cannot be decoded"),
        (encoded(RGB, "PNG")[:200], "cannot be decoded"),
    ],
)
def test_what_cannot_be_decoded_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        decode(data)


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    header = bytearray(encoded(RGB, "PNG"))
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(UnreadableError):
        decode(bytes(header))


@given(st.binary(max_size=300), st.integers(0, 250))
def test_no_bytes_whatsoever_raise_anything_else(junk: bytes, keep: int) -> None:
    for data in (junk, encoded(RGB, "JPEG")[:keep] + junk, encoded(RGB, "PNG")[:keep] + junk):
        try:
            found = decode(data).rgb
        except UnreadableError:
            continue
        assert found.ndim == 3


def test_decoding_in_threads_gives_what_decoding_alone_gives() -> None:
    data = [encoded(photograph(number), ("PNG", "JPEG", "GIF", "TIFF")[number % 4]) for number in range(40)]
    alone = [decode(item).rgb for item in data]
    with ThreadPoolExecutor(8) as pool:
        together = [found.rgb for found in pool.map(decode, data)]
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_every_photograph_decodes_upright(hymenoptera: Path) -> None:
    for path in sorted((hymenoptera / "val" / "bees").iterdir())[:20]:
        found = decode(path.read_bytes())
        assert found.rgb.dtype == np.uint8
        assert found.rgb.shape[2] == 3
        assert path.suffix in EXTENSIONS


def test_a_colour_profile_does_not_change_the_pixels() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode(encoded(RGB, "PNG", icc_profile=profile)).rgb, RGB)


def test_changed_or_missing_bytes_are_told_not_used(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(RGB))
    image_id = sha256_of(path)
    assert read_unchanged(path, image_id) == encoded(RGB)
    path.write_bytes(encoded(RGB[::-1]))
    with pytest.raises(DataError, match=r"a\.png has changed since `validate` read it"):
        read_unchanged(path, image_id)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        read_unchanged(path, image_id)


# libjpeg-turbo called directly


def either_way(data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[object, object]:
    """Return what `decode` makes of the bytes with simplejpeg and without."""

    def outcome() -> object:
        try:
            found = decode(data)
        except UnreadableError as reason:
            return str(reason)
        return found.rgb.shape, found.rgb.tobytes()

    direct = outcome()
    with monkeypatch.context() as without:
        without.setattr(decoding, "simplejpeg", None)
        return direct, outcome()


JPEGS = {
    "4:2:0": {"quality": 80},
    "4:4:4": {"quality": 95, "subsampling": 0},
    "4:2:2": {"quality": 60, "subsampling": 1},
    "progressive": {"quality": 70, "progressive": True},
    "restart markers": {"quality": 90, "restart_marker_rows": 1},
    "turned": {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"},
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_pillows_bytes_and_refusals_also_for_broken_jpegs(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(photograph(7, 51, 67), "JPEG", **options)
    random = np.random.default_rng(0)
    broken = [data[:end] for end in range(0, len(data), 7)]
    for _ in range(150):
        flipped = bytearray(data)
        for place in random.integers(0, len(data), random.integers(1, 4)):
            flipped[place] = random.integers(0, 256)
        broken.append(bytes(flipped))
    for each in (data, *broken):
        direct, by_pillow = either_way(each, monkeypatch)
        assert direct == by_pillow


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_other_colours_are_pillows_too(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(photograph(5, 50, 70)).convert(mode)
    direct, by_pillow = either_way(encoded(picture, "JPEG"), monkeypatch)
    assert direct == by_pillow


def test_pillows_bytes_on_photographs(hymenoptera: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in sorted(hymenoptera.rglob("*.jpg"))[::4]:
        direct, by_pillow = either_way(path.read_bytes(), monkeypatch)
        assert direct == by_pillow, path


def test_another_decoder_has_another_version() -> None:
    """Where this fails, other pixels come out: raise decoding.VERSION, or old rows of stores are taken for new."""
    gray16 = Image.fromarray((np.arange(2400, dtype=np.uint16) * 27).reshape(40, 60))
    turned = Image.Exif()
    turned[0x0112] = 6
    picture = Image.fromarray(RGB)
    files = [
        encoded(picture),
        encoded(picture, "PNG", exif=turned),
        encoded(picture.convert("L")),
        encoded(picture.quantize(7)),
        encoded(picture.convert("CMYK"), "TIFF"),
        encoded(gray16),
        encoded(Image.merge("RGBA", (*picture.split(), picture.convert("L")))),
        encoded(Image.merge("LA", (picture.convert("L"), picture.convert("L")))),
    ]
    digest = hashlib.sha256(b"".join(decode(file).rgb.tobytes() for file in files)).hexdigest()
    assert (decoding.VERSION, digest[:16]) == ("2", "cc7f50269910b95b")


@pytest.mark.parametrize("decoder", ["as installed", "Pillow alone"])
def test_another_decoder_of_any_format_has_another_version(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for formats whose encoders differ from one release of Pillow to the next."""
    if decoder == "Pillow alone":
        monkeypatch.setattr(decoding, "simplejpeg", None)
    files = sorted((ROOT / "tests" / "pictures").iterdir())
    assert {decode(file.read_bytes()).format for file in files} == {"JPEG", "GIF", "WEBP", "BMP", "TIFF"}
    digests = {file.name: hashlib.sha256(decode(file.read_bytes()).rgb.tobytes()).hexdigest()[:8] for file in files}
    assert (decoding.VERSION, digests) == ("2", PICTURES)


PICTURES = {
    "baseline.jpg": "1334e9c5",
    "cmyk.jpg": "e284c0f0",
    "every-pixel-chroma.jpg": "c0dbca50",
    "grey.bmp": "f96a0ba2",
    "grey.jpg": "650d5424",
    "lossless.webp": "da440f4b",
    "lossy.webp": "d5cae14c",
    "lzw.tif": "da440f4b",
    "palette.gif": "20f81724",
    "progressive.jpg": "1334e9c5",
    "transparent.webp": "23749b9d",
    "true-colour.bmp": "da440f4b",
    "turned.jpg": "7539f956",
}
