"""What `headstart predict` and `serve` are given: folders of every kind, names that cannot be, lists from elsewhere."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.commands import main as cli
from headstart.image_files import no_image
from headstart.images.formats import EXTENSIONS
from headstart.listing import list_images
from tests.support.images import ROOT

MODEL = str(ROOT / "tests" / "models" / "format-1")
PICTURE = ROOT / "tests" / "pictures" / "baseline.jpg"


def predict(*words: str | bytes, given: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command: list[str | bytes] = [sys.executable, "-m", "headstart", "predict", MODEL, *words]
    strict = {"PYTHONIOENCODING": "utf-8:strict", **environment}  # as in most people's locales
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **strict}, input=given, capture_output=True, timeout=60)


def fill(folder: Path) -> None:
    """Write a folder of every kind of name."""
    inside = folder / "ants"
    inside.mkdir(parents=True)
    for name in ("a.jpg", "b.JPE", "c.jfif", "d.jpeg", ".hidden.jpg", "notes.txt", "-rf.jpg", "=1.jpg"):
        shutil.copy(PICTURE, inside / name)
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(PICTURE, elsewhere / "linked.jpg")
    (folder / "bees").symlink_to(elsewhere)
    (folder / "bees" / "up").symlink_to(folder)


def test_a_folder_is_listed_as_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "photos")
    assert cli.main(["predict", MODEL, str(tmp_path / "photos"), "--json"]) == 0
    out, err = capsys.readouterr()
    answered = sorted(os.path.relpath(json.loads(line)["path"], tmp_path / "photos") for line in out.splitlines())
    trained = [each.path for each in list_images(tmp_path / "photos", "photos", outside=True).found]
    assert answered == sorted(trained)
    assert len(answered) == 7
    assert err == (
        f"predict: 2 files that are no images are skipped in {tmp_path}/photos: ants/.hidden.jpg, ants/notes.txt\n"
    )


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_extension_of_training_is_read(extension: str) -> None:
    assert no_image(f"a/b{extension}") is None


def test_bad_names_in_a_folder_are_named_and_the_rest_is_answered(tmp_path: Path) -> None:
    shutil.copy(PICTURE, tmp_path / "good.jpg")
    shutil.copy(PICTURE, os.fsencode(tmp_path) + b"/\xff.jpg")  # which can be read
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    done = predict(str(tmp_path))
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 2
    told = done.stderr.decode()
    assert f"{tmp_path}/fifo.jpg: a FIFO, no regular file. An image was expected." in told
    assert f"{tmp_path}/dangling.jpg: No such file or directory." in told
    assert f"{tmp_path}/loop.jpg: Too many levels of symbolic links." in told
    assert "Traceback" not in told


BAD = (
    b"a" * 300 + b".jpg",
    b"nul\0.jpg",
    b"\xff\xfe.jpg",
    b"a/" * 3000,
    b"/dev/zero",
    b"/proc/self/mem",
    b"/tmp",
    b"\x1b[2J",
)


@pytest.mark.parametrize("output", ["table", "csv", "json"])
def test_bad_names_in_a_list_are_named_and_the_rest_is_answered(output: str) -> None:
    good = os.fsencode(PICTURE)
    given = b"\xef\xbb\xbf" + b"\r\n".join([good, *BAD, b"", b"  ", good]) + b"\r\n"
    done = predict("-", "--format", output, given=given)
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == (3 if output == "csv" else 2)
    told = done.stderr.decode().splitlines()
    assert len(told) == len(BAD)
    assert all(line.startswith("predict: ") and line.endswith(" An image was expected.") for line in told)
    assert all(line.isprintable() for line in told)


def test_bad_names_among_the_arguments_too() -> None:
    done = predict(str(PICTURE), *(name for name in BAD if b"\0" not in name and name != b"/tmp"))
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1
    assert b"Traceback" not in done.stderr


def test_names_that_are_not_utf8_come_back_as_they_are(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.jpg"
    shutil.copy(PICTURE, name)
    assert predict(name, "--format", "csv").stdout.splitlines()[1].startswith(name)
    line = json.loads(predict(name, "--json").stdout)
    assert os.fsencode(line["path"]) == name
    assert rb"/\xff.jpg" in predict(name).stdout


def test_a_name_and_a_label_begin_no_formula(tmp_path: Path) -> None:
    names = ["=1+1.jpg", "@a.jpg", "-1.jpg"]
    for name in names:
        shutil.copy(PICTURE, tmp_path / name)
    command = [sys.executable, "-m", "headstart", "predict", MODEL, "-", "--format", "csv"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, input="\n".join(names), capture_output=True, text=True, timeout=60
    )
    assert [row[0] for row in csv.reader(done.stdout.splitlines())][1:] == [f"'{name}" for name in names]


def test_what_a_shell_hands_over_as_a_pipe_is_read() -> None:
    line = f"{sys.executable} -m headstart predict {MODEL} <(cat {PICTURE})"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("/dev/fd/")


@pytest.mark.parametrize("command", ["predict", "info", "verify", "serve", "sign", "page"])
def test_a_model_that_cannot_be_is_told(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"predict": ["x.jpg"], "sign": ["--key", "k.pem"], "page": ["--out", "site"]}
    words = [command, "a" * 300, *more.get(command, [])]
    assert cli.main(words) == 1
    assert "does not exist. A model.onnx, or a folder with one, was expected." in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-1", "65536", "99999", "1" * 5000, "8000.5", "\u0663x"])
def test_a_port_out_of_range_is_told(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", MODEL, f"--port={port}"])
    assert ended.value.code == 2
    assert "argument --port: " in capsys.readouterr().err
