"""What a header tells, without a decoder: it is Pillow's size, and never less work than decoding takes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from headstart.images.decoding import decode
from headstart.images.formats import UnreadableError
from headstart.images.headers import examined
from tests.support.hostile_images import jpeg_of_scans
from tests.support.images import ROOT, deep_tiff, encoded, photograph

RGB = photograph(1, 40, 60)
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_header_tells_format_and_size(image_format: str) -> None:
    header = examined(encoded(RGB, image_format))
    assert header[:3] == (image_format, 60, 40)
    assert header.is_plain == (image_format != "TIFF")
    assert header.n_pixels == 2400


def test_the_sizes_of_all_pictures_are_pillows() -> None:
    files = [path.read_bytes() for path in (ROOT / "tests" / "pictures").iterdir()]
    files += [encoded(RGB, "WEBP", lossless=True), encoded(RGB, "WEBP", exif=Image.Exif()), deep_tiff(RGB, ">")]
    for data in files:
        with Image.open(io.BytesIO(data)) as image:
            assert (
                examined(data)[1:3] == (image.tag_v2[256], image.tag_v2[257]) if image.format == "TIFF" else image.size
            )


def test_scans_of_a_jpeg_beyond_the_usual_number_count_as_further_pictures() -> None:
    assert examined(encoded(RGB, "JPEG")).n_scans == 1
    assert examined(encoded(RGB, "JPEG", progressive=True)).n_pixels == 2400
    header = examined(jpeg_of_scans(100, 50))
    assert 100 <= header.n_scans <= 120
    assert header.n_pixels >= 5 * 2500
    with pytest.raises(UnreadableError, match=r"^50 x 50 pixels in 1\d\d scans, more than 9999$"):
        header.check(9_999)


def test_a_further_scan_of_a_jpeg_that_has_all_in_one_is_never_decoded() -> None:
    """So it need not be counted, which takes half a millisecond for a photograph."""
    data = encoded(photograph(1, 400, 600), "JPEG")
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert examined(data[:-2] + scan * 500 + data[-2:]).n_scans == 1
    with pytest.raises(UnreadableError, match="broken data stream"):
        decode(data[:-2] + scan + data[-2:])


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty file"), (b"<html>", "not an image"), (b"8BPS..", "Photosh")])
def test_what_is_no_image_is_told(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        examined(data)


@given(st.sampled_from(FORMATS), st.integers(0, 400), st.binary(max_size=200))
def test_no_bytes_whatsoever_raise_anything_else(image_format: str, keep: int, junk: bytes) -> None:
    try:
        header = examined(encoded(RGB, image_format)[:keep] + junk)
    except UnreadableError:
        return
    assert header.width_px >= 0 and header.height_px >= 0 and header.n_scans >= 0
