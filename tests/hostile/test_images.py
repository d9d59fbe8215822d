"""Image files that ask for too much, lie, or are broken: each ends in a reason, in bounded time and memory.

docs/reliability.md names these tests. Memory is that of the whole process and its workers, as the system counts it.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from headstart.images.decoding import decode
from headstart.images.formats import UnreadableError
from headstart.images.limited import Limits, Reader
from headstart.layout import Layout
from tests.support import hostile_images as hostile
from tests.support.images import ROOT, encoded, photograph
from tests.support.validation import run

Folders = Callable[..., Path]

MOST_MB, MOST_SECONDS = 400, 20  # of a file that is refused, interpreter and libraries included

# Runs the code it is given, then says what the process and its largest child took.
MEASURED = """
import json, resource, sys, time
began = time.monotonic()
{}
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
kib = own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({{"said": said, "seconds": time.monotonic() - began, "mb": kib * 1024 / 1e6}}))
"""
READ = """
from pathlib import Path
from headstart.base.reading import of_file
from headstart.images.formats import UnreadableError
from headstart.images.limited import Limits, Reader
with Reader(Limits(**json.loads(sys.argv[2]))) as reader:
    try:
        said = reader.facts(of_file(Path(sys.argv[1]), 10**9))._asdict()
    except UnreadableError as error:
        said = str(error)
"""


def measured(code: str, *arguments: str) -> dict[str, object]:
    command = [sys.executable, "-c", MEASURED.format(code), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def read(path: Path, **limits: int) -> dict[str, object]:
    return measured(READ, str(path), json.dumps(limits))


TOO_MANY = "pixels, more than 150000000"
REASONS: dict[str, str | None] = {  # None: it is read, as what a viewer shows of it
    "GIF of 51 bytes": TOO_MANY,
    "GIF, screen of 65,535 square": TOO_MANY,
    "GIF, frame larger than its screen": TOO_MANY,
    "WebP with alpha of 16,383 x 10,900": TOO_MANY,
    "PNG of 13,370 square": TOO_MANY,
    "PNG of 60,000 square": TOO_MANY,
    "PNG, 60 MB of text in 60 kB": "Decompressed data too large",
    "PNG, EXIF in text": None,
    "PNG, EXIF of 65,535 tags": None,
    "JPEG of 3,000 scans": "pixels in 3009 scans, more than 150000000",
    "JPEG of 65,500 square": TOO_MANY,
    "TIFF of 4 billion square": TOO_MANY,
    "TIFF, 1,000 tags of 4 MB": None,
    "TIFF, a tag of 15 million numbers": None,
    "TIFF of 3 million strips": "takes more memory",
    "TIFF, a tile of 60,000 square": "cannot be decoded",
}


@pytest.mark.parametrize("kind", hostile.bombs())
def test_a_bomb_is_refused_at_little_cost(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(hostile.bombs()[kind]())
    found = read(path)
    if (reason := REASONS[kind]) is None:
        assert isinstance(found["said"], dict)
    else:
        assert reason in str(found["said"])
    allowed_mb = MOST_MB + 5 * path.stat().st_size / 1e6  # read, sent to a worker, taken there up to its limit
    assert found["mb"] < allowed_mb  # type: ignore[operator]
    assert found["seconds"] < MOST_SECONDS  # type: ignore[operator]


VALIDATE = """
from pathlib import Path
from headstart.layout import Layout
from tests.support.validation import run
run(sys.argv[1], Layout(Path(sys.argv[2])), max_quarantined_fraction=1.0)
said = ""
"""


def test_validate_sets_bombs_aside_and_loses_nothing(class_folders: Folders, tmp_path: Path) -> None:
    root = class_folders(ants=3, bees=3)
    bombs = {kind: make() for kind, make in hostile.bombs().items()}
    for number, data in enumerate(bombs.values()):
        (root / "ants" / f"bomb{number:02d}.jpg").write_bytes(data)
    found = measured(VALIDATE, str(root), str(tmp_path / "project"))
    layout = Layout(tmp_path / "project")
    reasons = dict(pl.read_csv(layout.validation / "quarantine.csv").select("path", "reason").iter_rows())
    for number, kind in enumerate(bombs):
        path, reason = f"ants/bomb{number:02d}.jpg", REASONS[kind]
        assert path not in reasons if reason is None else reason in reasons[path]
    assert len(reasons) + pl.read_parquet(layout.manifest).height == 6 + len(bombs)
    assert found["mb"] < 2 * MOST_MB + 5 * max(map(len, bombs.values())) / 1e6  # type: ignore[operator]


def test_predict_names_bombs_and_answers_the_rest(tmp_path: Path) -> None:
    for number, make in enumerate(hostile.bombs().values()):
        (tmp_path / f"bomb{number:02d}.jpg").write_bytes(make())
    (tmp_path / "good.png").write_bytes(encoded(photograph(1)))
    model = ROOT / "tests" / "models" / "format-1"
    command = [sys.executable, "-m", "headstart", "predict", str(model), str(tmp_path), "--max-pixels", "1000000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    n_refused = sum(reason is not None for reason in REASONS.values())
    assert len(done.stderr.splitlines()) == n_refused
    assert len(done.stdout.splitlines()) == len(REASONS) - n_refused + 1
    assert "good.png" in done.stdout


@pytest.mark.parametrize(
    ("name", "make", "bytes_a_pixel"),
    [
        ("gif", lambda: hostile.gif((5000, 5000)), 6),
        ("png", lambda: hostile.png(5000, 5000), 10),
        ("alpha", lambda: hostile.png(5000, 5000, colours=6), 11),
        ("grey16", lambda: hostile.png(5000, 5000, bits=16, colours=0), 10),
        ("webp", lambda: hostile.webp_with_alpha(5000, 5000), 20),
    ],
)
def test_a_large_image_takes_one_buffer_beside_its_decoders(
    name: str, make: Callable[[], bytes], bytes_a_pixel: int, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(make())
    found = read(path)
    assert isinstance(found["said"], dict)
    assert found["mb"] < 150 + bytes_a_pixel * 25  # type: ignore[operator]


# Limits of the worker


def slow_jpeg() -> bytes:
    """A file whose header passes, and that takes some ten seconds."""
    return hostile.jpeg_of_scans(800, 2000)


def test_what_takes_too_long_is_stopped_and_the_next_file_is_read() -> None:
    with Reader(Limits(max_pixels=10**9, max_seconds=1)) as reader:
        with pytest.raises(UnreadableError, match="decoding takes more than 1 seconds"):
            reader.facts(slow_jpeg())
        assert reader.facts(encoded(photograph(1), "TIFF")).format == "TIFF"


def test_a_worker_is_used_again_also_after_a_refusal() -> None:
    with Reader(Limits()) as reader:
        for data in [encoded(photograph(number), "TIFF") for number in range(3)]:
            assert reader.facts(data).width_px == 60
            (first,) = reader._workers
            with pytest.raises(UnreadableError):
                reader.facts(data[: len(data) // 2])
            assert reader._workers == [first]
            with reader.decoded(data) as image:
                assert np.array_equal(image.rgb, decode(data).rgb)
        process = first._process
    assert process.poll() is not None


def test_a_worker_that_dies_costs_the_file_alone() -> None:
    data = encoded(photograph(1), "TIFF")
    with Reader(Limits()) as reader:
        reader.facts(data)
        reader._workers[0]._process.kill()
        reader._workers[0]._process.wait()
        with pytest.raises(UnreadableError, match=r"^the decoder died of it \(status -9\)$"):
            reader.facts(data)
        assert reader.facts(data).format == "TIFF"


# Sizes of files


def test_a_file_lies_in_memory_once(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    with path.open("wb") as file:
        file.write(encoded(photograph(1)))  # bytes after the end of a PNG are no part of it
        file.truncate(300_000_000)
    found = read(path)
    assert isinstance(found["said"], dict)
    assert found["mb"] < 150 + 320  # type: ignore[operator]


# What an animation asks for


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts_however_many_there_are(image_format: str) -> None:
    frames = [Image.fromarray(photograph(number)) for number in range(40)]
    data = hostile.saved(frames[0], image_format, save_all=True, append_images=frames[1:], loop=0, lossless=True)
    with Reader(Limits()) as reader, reader.decoded(data) as image:
        assert np.array_equal(image.rgb, decode(data).rgb)
        if image_format != "GIF":  # which has 256 colours
            assert np.array_equal(image.rgb, photograph(0))


def test_a_gif_of_many_frames_takes_the_time_of_one(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(hostile.gif((4, 4), (4, 4), n_frames=500_000))
    found = read(path)
    assert isinstance(found["said"], dict)
    assert found["seconds"] < 3  # type: ignore[operator]


def test_extensions_without_end_before_the_first_frame_are_bounded(tmp_path: Path) -> None:
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 200_000 + b"\0"
    path = tmp_path / "a.gif"
    path.write_bytes(hostile.gif((4, 4), (4, 4), before=comment))
    found = read(path)
    assert found["seconds"] < MOST_SECONDS and found["mb"] < MOST_MB + 300  # type: ignore[operator]


# What is no image, or is something else too


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photo.jpg", encoded(photograph(1), "JPEG"))
    return buffer.getvalue()


NO_IMAGES = {
    "ZIP": zipped(),
    "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "HTML": b"<!doctype html><html><body>404 not found</body></html>",
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "ELF": b"\x7fELF\x02\x01\x01" + bytes(60),
    "zeros": bytes(100_000),
    "noise": hostile.noise(100_000),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
    "a PNG without its first byte": encoded(photograph(1))[1:],
}


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_is_no_image_is_told_whatever_its_name(kind: str) -> None:
    with Reader(Limits()) as reader, pytest.raises(UnreadableError, match="not an image of a known format"):
        reader.facts(NO_IMAGES[kind])


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_polyglot_is_the_image_that_it_begins_with(image_format: str) -> None:
    data = encoded(photograph(1), image_format)
    for after in (zipped(), b"<script>alert(1)</script>", encoded(photograph(2), "PNG")):
        with Reader(Limits()) as reader, reader.decoded(data + after) as image:
            assert np.array_equal(image.rgb, decode(data).rgb)
            assert image.damage is None


FORMATS: tuple[tuple[str, dict[str, object]], ...] = (
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("GIF", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
)


def test_every_file_that_is_cut_is_refused_or_gives_the_whole_picture() -> None:
    """At every 64th byte. Only what lies behind the pixels may be missing."""
    n_cut = n_read = 0
    with Reader(Limits()) as reader:
        for image_format, options in FORMATS:
            data = encoded(photograph(1, 120, 180), image_format, **options)
            whole = decode(data).rgb
            for cut in hostile.truncated(data, 64):
                n_cut += 1
                try:
                    with reader.decoded(cut) as image:
                        assert image.damage or np.array_equal(image.rgb, whole), (image_format, len(cut))
                        n_read += image.damage is None
                except UnreadableError:
                    continue
    assert n_cut > 500 and n_read < n_cut / 50, (n_cut, n_read)


# Damaged JPEGs


def cut_at_half(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff\xd9"


def zeros_in_the_middle(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(4096) + data[len(data) // 2 + 4096 :]


def test_damage_is_found_in_damaged_photographs_and_in_no_other(hymenoptera: Path) -> None:
    files = [path.read_bytes() for path in sorted(hymenoptera.rglob("*.jpg"))[::2]]
    long = [data for data in files if len(data) > 20_000]
    assert [decode(data).damage for data in files if decode(data).damage] == []
    found = [damage_of(cut_at_half(data)) for data in long]
    assert len(found) > 100 and all(found)
    found = [damage_of(zeros_in_the_middle(data)) for data in long]
    assert sum(map(bool, found)) >= 0.98 * len(found)


def damage_of(data: bytes) -> str | None:
    try:
        return decode(data).damage
    except UnreadableError as error:
        return str(error)


@pytest.mark.parametrize("kind", ["L", "CMYK", "RGB", "turned"])
def test_damage_is_found_in_jpegs_of_every_kind(kind: str) -> None:
    picture = Image.fromarray(photograph(1, 200, 300))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture, "JPEG", exif=exif) if kind == "turned" else encoded(picture.convert(kind), "JPEG")
    assert decode(data).damage is None
    assert "premature end of data segment" in str(decode(cut_at_half(data)).damage)


def test_bytes_that_cameras_leave_at_the_end_are_no_damage() -> None:
    data = encoded(photograph(1, 200, 300), "JPEG")
    assert decode(data[:-2] + bytes(300) + data[-2:]).damage is None


def test_damaged_jpegs_are_set_aside_unless_a_parameter_lets_them_in(class_folders: Folders, tmp_path: Path) -> None:
    root = class_folders(ants=3, bees=3)
    (root / "ants" / "cut.jpg").write_bytes(cut_at_half(encoded(photograph(1, 200, 300), "JPEG")))
    layout = Layout(tmp_path / "project")
    assert run(root, layout).height == 6
    (reason,) = pl.read_csv(layout.validation / "quarantine.csv")["reason"]
    assert reason == "a damaged JPEG, of which a part is lost (premature end of data segment)"
    assert run(root, layout, damaged_jpegs="accept").height == 7


@pytest.mark.parametrize(("marker", "kind"), [(0xC9, "arithmetic coding"), (0xCA, "arithmetic"), (0xC3, "lossless")])
def test_jpegs_that_not_every_library_reads_are_refused_everywhere(marker: int, kind: str) -> None:
    data = bytearray(encoded(photograph(1), "JPEG"))
    data[data.index(b"\xff\xc0") + 1] = marker
    with pytest.raises(UnreadableError, match=kind):
        decode(bytes(data))
