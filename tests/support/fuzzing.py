"""What strangers hand over, mutated, and how it may end: with a result, or with an error that is told in a line.

`make fuzz` mutates the kept corpus (tests/corpus, and the pictures and the model of the tests) for some minutes. An
input that ends in a new way is mutated further; one that ends as it must not is written to tests/corpus/TARGET, all of
which tests/hostile/test_fuzzed.py tries in every test run.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import shutil
import socket
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from headstart import params_file
from headstart.base.errors import DataError, ParamError
from headstart.commands.main import main as headstart
from headstart.images.formats import UnreadableError
from headstart.images.limited import Limits, Reader
from headstart.listing import list_images
from tests.support.images import ROOT
from tests.support.serving import PICTURE, SMALL, Serving, served

CORPUS = ROOT / "tests" / "corpus"
MOST_BYTES = 200_000  # of an input
_SLOW_S = 20.0  # longer than any limit for one input
_QUIET_S = 0.3  # without an answer, until the connection is closed from this side
_INFER = b"/v2/models/format-1/infer"  # the name of SMALL's folder
Target = Callable[[bytes], str]  # returns how it ended; whatever it raises is a finding

_INTERESTING = (
    *(b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"-1", b"1e999", b"NaN", b"'", b'"'),
    *(b"\n", b"\r\n", b",", b"../", b"/", b"%00", b"\xe2\x80\xae", b"&a *a", b"!!python/object:os.system"),
)


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return the bytes with one to eight changes: bits, bytes, numbers, parts left out, doubled, moved or of others."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(changed) + 1)
        end = min(len(changed), at + int(2 ** chance.uniform(0, 10)))
        match chance.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(changed):
                changed[at] = chance.randrange(256)
            case 2:
                some = chance.choice(_INTERESTING)
                changed[at : at + (len(some) if chance.random() < 0.5 else 0)] = some
            case 3:
                del changed[at:end]
            case 4:
                changed[at:at] = changed[at:end] * chance.randint(1, 4)
            case 5:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                changed[at:end] = other[start : start + end - at]
            case 6:
                changed[at:end] = bytes(chance.randrange(256) for _ in range(min(end - at, 64)))
    return bytes(changed[:MOST_BYTES])


def seeds(name: str) -> list[bytes]:
    """Return the inputs that a target begins with: the kept corpus, and what the tests have of the kind."""
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))] if (CORPUS / name).is_dir() else []
    match name:
        case "images":
            found = [path.read_bytes() for path in sorted((ROOT / "tests" / "pictures").iterdir())]
        case "params":
            found = [(ROOT / "params.yaml").read_bytes()]
        case "manifests":
            found = [
                b"path,label,split,group\na.jpg,ant,train,1\nb.jpg,bee,,2\n",
                b'path,label,camera\n\'=a.jpg,"a\nb",x\n',
            ]
        case "models":
            found = [bytes([number]) + path.read_bytes() for number, path in enumerate(_files_of_model())]
        case _:
            picture = PICTURE.read_bytes()
            form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%s\r\n--b--\r\n' % picture
            in_form = b"Content-Type: multipart/form-data; boundary*0=b; boundary*1=\r\n"
            pixel = b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], %s}], "id": "a"}'
            in_json, in_bytes = pixel % b'"data": [1, 2, 3]', pixel % b'"parameters": {"binary_data_size": 3}'
            length = b"Inference-Header-Content-Length: %d\r\n" % len(in_bytes)
            found = [
                _request(picture, b"/predict"),
                _request(form, b"/predict/format-1", in_form),
                _request(in_json, _INFER),
                _request(in_bytes + b"abc", _INFER, length),
            ]
    return [each[:MOST_BYTES] for each in found + kept]


def _request(body: bytes, path: bytes, header: bytes = b"") -> bytes:
    header += b"Content-Length: %d\r\nConnection: close\r\n" % len(body)
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (path, header, body)


def _files_of_model() -> list[Path]:
    return sorted(path for path in SMALL.rglob("*") if path.is_file())


@contextmanager
def target(name: str) -> Iterator[Target]:
    """Yield the target of this name: images, manifests, params, models or http."""
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    with tempfile.TemporaryDirectory(prefix="headstart-fuzz-") as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        match name:
            case "images":
                reader = stack.enter_context(Reader(Limits(4_000_000, 2)))
                yield lambda data: _image(reader, data)
            case "manifests":
                yield lambda data: _manifest(root, data)
            case "params":
                yield lambda data: _params(root, data)
            case "models":
                yield lambda data: _model(root, data)
            case "http":
                serving = stack.enter_context(served(SMALL, root / "log", "--send-seconds", "2"))
                yield lambda data: _http(serving, data)
            case _:
                raise ValueError(name)


TARGETS = ("images", "manifests", "params", "models", "http")


def _image(reader: Reader, data: bytes) -> str:
    try:
        with reader.decoded(data) as image:
            assert image.rgb.ndim == 3
            assert image.rgb.shape[2] == 3
            return f"read as {image.format}{', damaged' if image.damage else ''}"
    except UnreadableError as error:
        return _shape(str(error))


def _manifest(root: Path, data: bytes) -> str:
    (root / "list.csv").write_bytes(data)
    for name in ("a.jpg", "b.jpg"):
        (root / name).write_bytes(b"x")
    try:
        listing = list_images(root / "list.csv", "list.csv")
        assert all(Path(root, found.path).resolve().is_relative_to(root) for found in listing.found)
        return "read"
    except DataError as error:
        return _shape(str(error))


def _params(root: Path, data: bytes) -> str:
    (root / "params.yaml").write_bytes(data)
    try:
        params_file.load(root / "params.yaml")
        return "read"
    except ParamError as error:
        assert "\n" not in str(error).strip() or len(str(error)) < 5000
        return _shape(str(error))


def _model(root: Path, data: bytes) -> str:
    """Replace one file of a model, whose number is the first byte, and verify the folder."""
    folder = root / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SMALL, folder)
    files = _files_of_model()
    chosen = files[(data[0] if data else 0) % len(files)].relative_to(SMALL)
    is_changed = data[1:] != (SMALL / chosen).read_bytes()
    (folder / chosen).write_bytes(data[1:])
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = headstart(["verify", str(folder)])
    assert "Traceback" not in said.getvalue()
    assert status or not is_changed, f"yes to a changed {chosen}"
    return f"{chosen}: {_shape(said.getvalue()[-300:])}"


def _http(serving: Serving, data: bytes) -> str:
    """Send a request; every other one has the length of its body put right, so that more than its header is read."""
    head, end, body = data.partition(b"\r\n\r\n")
    if zlib.crc32(data) % 2:
        data = re.sub(rb"(?i)(content-length:) *\d+", rb"\1 %d" % len(body), head) + end + body
    reply, may_wait = b"", True
    with contextlib.suppress(OSError), serving.connected(data, timeout_s=6) as connection:
        while True:
            connection.settimeout(_QUIET_S if may_wait else 6)
            try:
                part = connection.recv(65_536)
            except TimeoutError:
                if not may_wait:
                    raise
                may_wait = False
                connection.shutdown(socket.SHUT_WR)  # the server takes that for a client that has hung up
                continue
            if not part:
                break
            reply += part
    assert serving.process.poll() is None, "the server has ended"
    found = re.match(rb"HTTP/1\.1 (\d+)", reply)
    status = int(found[1]) if found else 0
    assert status < 500 or status == 503, reply[:500]
    log = serving.log.read_text(errors="replace")
    assert "Traceback" not in log, log[-3000:]
    return f"{status} {_shape(reply.partition(b'{')[2][:80].decode('latin-1'))}"


def _shape(text: str) -> str:
    """Return a message without what is particular: numbers, names, paths."""
    return re.sub(r"\([^)]*\)?|'[^']*'|\"[^\"]*\"|\d+|/\S+|[^ -~]+", "_", text)[:60]


class Fuzzed(NamedTuple):
    """What became of a series of inputs."""

    n_tried: int
    ways: dict[str, bytes]  # how they ended, and the first that ended so
    findings: list[bytes]  # those that ended as they must not


def fuzzed(name: str, seconds: float, seed: int) -> Fuzzed:
    """Mutate for so long."""
    chance, ways, findings = random.Random(seed), dict[str, bytes](), list[bytes]()
    pool = seeds(name)
    n_tried, until = 0, time.monotonic() + seconds
    with target(name) as run:
        while time.monotonic() < until:
            data = mutated(chance.choice(pool), pool, chance)
            n_tried += 1
            began = time.monotonic()
            try:
                how = run(data)
                if time.monotonic() - began > _SLOW_S:
                    how = "slow"
                    findings.append(data)
            except Exception as error:
                how = f"{type(error).__name__}: {_shape(str(error))}"
                print(f"fuzz: {name}: {how}", file=sys.stderr, flush=True)
                findings.append(data)
            if how not in ways:
                ways[how] = data
                pool.append(data)
    return Fuzzed(n_tried, ways, findings)
