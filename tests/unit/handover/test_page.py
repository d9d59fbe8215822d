"""`headstart page`: what it refuses, and that a browser decodes an image file as headstart/images does."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from playwright.sync_api import Page

from headstart.commands import main as cli
from headstart.handover.page import site
from headstart.images.decoding import decode
from tests.support.browser import opened
from tests.support.images import ROOT, deep_png, encoded, photograph
from tests.support.web import served

MODEL = ROOT / "tests" / "models" / "format-1"
TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be shown rotated by 90 degrees

DECODED = """async ([text, bits]) => {
    const {decoded} = await import("./decode.js");
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    try {
        const {width, height, rgb} = await decoded(new Blob([bytes]), bits);
        return [height, width, [...rgb].map(level => String.fromCharCode(level)).join("")];
    } catch (error) { return error.message; }
}"""


def swapped_profile() -> bytes:
    """Return a colour profile in which red and blue have changed places."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"....", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"....", b"bXYZ", 1)


def pictures() -> dict[str, bytes]:
    """Return image files of which a browser is asked for the pixels."""
    picture = photograph(1)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    drawn = {
        "noise in every channel.png": encoded(noise),
        "profile.png": encoded(picture, icc_profile=swapped_profile()),
        "profile.jpg": encoded(picture, "JPEG", icc_profile=swapped_profile()),
        "turned.png": encoded(picture, exif=TURNED),
        "grey with transparency.png": encoded(Image.fromarray(picture).convert("LA")),
        "16 bits.png": encoded(Image.fromarray(photograph(2)[..., 0].astype(np.uint16) * 257)),
    }
    files = sorted((ROOT / "tests" / "pictures").iterdir())
    return {path.name: path.read_bytes() for path in files if path.suffix != ".tif"} | drawn


@pytest.fixture(scope="module")
def decoded() -> Iterator[Callable[..., np.ndarray | str]]:
    """Yield a function that returns the pixels which a browser finds in a file, or why there are none."""
    with served(Path(site.__file__).parent) as url, opened(is_ours=False) as page:
        page.goto(f"{url}/page.css")  # where a browser asks for an icon in vain
        yield lambda data, bits=16: pixels(page, data, bits)


def pixels(page: Page, data: bytes, bits: int) -> np.ndarray | str:
    found = page.evaluate(DECODED, [base64.b64encode(data).decode(), bits])
    if isinstance(found, str):
        return found
    height_px, width_px, levels = found
    return np.frombuffer(levels.encode("latin-1"), np.uint8).reshape(height_px, width_px, 3)


@pytest.mark.parametrize("name", sorted(pictures()))
def test_a_browser_finds_the_pixels_that_training_finds(name: str, decoded: Callable[..., np.ndarray]) -> None:
    data = pictures()[name]
    found, expected = decoded(data), decode(data).rgb
    assert found.shape == expected.shape
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= (1 if name == "transparent.webp" else 0)  # the browser rounds otherwise


def test_what_a_browser_cannot_read_is_refused_and_not_read_wrongly(decoded: Callable[..., np.ndarray | str]) -> None:
    deep = deep_png(np.full((8, 8, 3), 2000, np.uint16))
    assert decoded(deep, bits=12) == "deep"
    assert not isinstance(decoded(encoded(photograph(1)), bits=12), str)
    assert decoded((ROOT / "tests" / "pictures" / "lzw.tif").read_bytes()) == "unreadable"
    assert decoded(b"Dear Sir") == "unreadable"


def refusal(capsys: pytest.CaptureFixture[str], out: Path, *options: object, model: Path = MODEL) -> str:
    assert cli.main(["page", str(model), "--out", str(out), *map(str, options)]) == 1
    return capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_text("mine")
    assert "exists and is no site that `headstart page` has written" in refusal(capsys, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_another_archive_is_refused_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "onnxruntime-web.tgz"
    archive.write_bytes(b"other")
    said = refusal(capsys, tmp_path / "site", "--onnxruntime-web", archive)
    assert f"has SHA-512 4lrDhF+MvhKA.., but onnxruntime-web-{site.VERSION}.tgz has" in said
    assert f"Fetch it again by `npm pack onnxruntime-web@{site.VERSION}`." in said
    assert "cannot be read (No such file or directory)" in refusal(
        capsys, tmp_path / "site", "--onnxruntime-web", tmp_path / "none.tgz"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["onnxruntime-web.tgz"]


def test_without_npm_or_where_it_fails_the_way_out_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refusal(capsys, tmp_path / "site")
    assert "npm, which fetches onnxruntime-web, is not installed. Install Node.js" in said
    assert "give the file by --onnxruntime-web" in said
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'no network' >&2\nexit 1\n")
    npm.chmod(0o755)
    said = refusal(capsys, tmp_path / "site")
    assert f"`npm pack onnxruntime-web@{site.VERSION}` has failed: no network." in said
    assert "give the file by --onnxruntime-web" in said


def test_a_damaged_model_is_put_on_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text("{}")
    assert "but SHA256SUMS lists" in refusal(capsys, tmp_path / "site", model=tmp_path / "model")
    assert not (tmp_path / "site").exists()
