"""Writes the site: the page, the model, and onnxruntime-web, which `npm pack` fetches and whose digest is checked.

Any web server can serve it. It asks no other host: the page forbids it to itself (Content-Security-Policy).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from headstart.base.errors import CheckError
from headstart.base.files import replacing_folder
from headstart.handover.integrity import check_sums
from headstart.handover.model import NOVEL_ABOVE, Model
from headstart.handover.verify import ELSEWHERE
from headstart.onnx.model_folder import CARD, CONFORMANCE, MODEL, RECORD

# To renew: the version, and what `npm view onnxruntime-web@VERSION dist.integrity` prints behind `sha512-`.
VERSION = "1.30.0"
_PACKAGE = f"onnxruntime-web@{VERSION}"
_ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="

PAGE = ("index.html", "page.css", "page.js", "worker.js", "decode.js")
SITE = "site.json"
# By the names in the site: a web server may not know that .mjs is JavaScript.
_WASM = {
    "ort.wasm.js": "ort.wasm.min.mjs",
    "wasm.js": "ort-wasm-simd-threaded.mjs",
    "wasm.wasm": "ort-wasm-simd-threaded.wasm",
}
_WEBGPU = {
    "ort.webgpu.js": "ort.webgpu.min.mjs",
    "webgpu.js": "ort-wasm-simd-threaded.asyncify.mjs",
    "webgpu.wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}
# The npm package has no text of its licence. Both are of onnxruntime, whose Python package has it.
_LICENCES = {"LICENSE.txt": "LICENSE", "ThirdPartyNotices.txt": "ThirdPartyNotices.txt"}


def page(arguments: argparse.Namespace) -> int:
    """Write the site of a model folder; CheckError if the model, the runtime or the place is not as expected."""
    model = Model(arguments.model)
    source, out = model.file.parent, arguments.out
    check_sums(source)
    _check_free(out)
    with replacing_folder(out) as folder:
        _copy_page(folder)
        _copy_model(source, folder / "model", arguments.conformance)
        with _archive(arguments.onnxruntime_web) as archive:
            _unpack(archive, {**_WASM, **(_WEBGPU if arguments.webgpu else {})}, folder / "runtime")
        _copy_licences(folder / "runtime")
        told = {"novel_above": NOVEL_ABOVE, "tolerance": ELSEWHERE, "onnxruntime_web": VERSION}
        told |= {"webgpu": arguments.webgpu, "conformance": arguments.conformance}
        (folder / SITE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        n_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"page: {out} is a site of {n_mb:.0f} MB with onnxruntime-web {VERSION}")
    if arguments.conformance:
        n_images = len(list((out / "model" / CONFORMANCE).iterdir())) - 1
        print(
            f"page: {n_images} conformance images, some of them your own photographs, are in it; --no-conformance"
            " leaves them out"
        )
    print(f"page: look at it by `python -m http.server --directory {out}`, and put it on any web server")
    return 0


def _check_free(out: Path) -> None:
    is_ours = (out / SITE).is_file() and (out / "index.html").is_file()
    if out.exists() and not is_ours and (not out.is_dir() or any(out.iterdir())):
        raise CheckError(
            f"{out} exists and is no site that `headstart page` has written. A new or an empty folder was expected, or"
            " an earlier site, which is replaced. Choose another one by --out."
        )


def _copy_page(folder: Path) -> None:
    for name in PAGE:
        shutil.copyfile(Path(__file__).parent / name, folder / name)


def _copy_model(source: Path, target: Path, with_images: bool) -> None:
    target.mkdir()
    for name in (MODEL, RECORD, CARD):
        shutil.copyfile(source / name, target / name)
    if with_images:
        shutil.copytree(source / CONFORMANCE, target / CONFORMANCE)


@contextmanager
def _archive(given: Path | None) -> Iterator[Path]:
    """Yield the path of onnxruntime-web's archive, as given or as npm fetches it; CheckError unless it is the one."""
    with tempfile.TemporaryDirectory() as folder:
        file = given or fetched(Path(folder))
        try:
            found = base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
        except OSError as error:
            raise CheckError(f"{file} cannot be read ({error.strerror}). {_ARCHIVE} was expected.") from None
        if found != _SHA512:
            raise CheckError(
                f"{file} has SHA-512 {found[:12]}.., but {_ARCHIVE} has {_SHA512[:12]}... That file was expected."
                f" Fetch it again by `npm pack {_PACKAGE}`."
            )
        yield file


def fetched(folder: Path) -> Path:
    """Return the archive that npm, as its user has set it up, has put into `folder`."""
    elsewhere = f"Or run `npm pack {_PACKAGE}` on another machine, and give the file by --onnxruntime-web."
    npm = shutil.which("npm")
    if npm is None:
        raise CheckError(
            f"npm, which fetches onnxruntime-web, is not installed. Install Node.js, of which it is a part. {elsewhere}"
        )
    done = subprocess.run([npm, "pack", _PACKAGE, "--silent"], cwd=folder, capture_output=True, text=True)
    if done.returncode or not (folder / _ARCHIVE).is_file():
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise CheckError(f"`npm pack {_PACKAGE}` has failed: {said or 'it says nothing'}. {elsewhere}")
    return folder / _ARCHIVE


def _unpack(archive: Path, names: Mapping[str, str], target: Path) -> None:
    """Write files of the archive's `dist` under the names of the site."""
    target.mkdir()
    with tarfile.open(archive) as packed:
        for name, packed_name in names.items():
            content = packed.extractfile(f"package/dist/{packed_name}")
            assert content is not None  # the digest says what is in it
            (target / name).write_bytes(content.read())


def _copy_licences(target: Path) -> None:
    for name, source in _LICENCES.items():
        shutil.copyfile(Path(onnxruntime.__file__).parent / source, target / name)
