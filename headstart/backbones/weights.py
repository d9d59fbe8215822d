"""Where a backbone's weights come from: verified against a SHA-256 before they are read, and never unpickled."""

from __future__ import annotations

import hashlib
import http.client
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener, urlopen

from headstart.backbones import bundled
from headstart.base import files, progress
from headstart.base.errors import ParamError, UnreachableError, did_you_mean
from headstart.base.licences import NONE, UNKNOWN, Licence

if TYPE_CHECKING:
    import torch

    from headstart import params as parameters

    State = dict[str, torch.Tensor]
    Report = Callable[[str], None]
    Judge = Callable[[Licence], None]

_TIMEOUT_S = 30
_TRY_LATER = (408, 429)  # of the HTTP statuses below 500
_PREFIX_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[a-z.]+$")  # resnet18-f37072fd.pth: torch.hub's convention
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Published:
    """What a library says of the weights that it publishes for a model."""

    weights: str
    licence: Licence
    url: str  # empty if there are none
    file_name: str  # in the weights folder
    is_on_hub: bool  # the checksum is in a header, not in the file's name


def choose(
    params: parameters.Backbone, canonical: str, published: Published, folder: Path, report: Report, judge: Judge
) -> tuple[Published, Path | None]:
    """Return what is known of the weights that `params` asks for, and their verified file, None for random ones.

    `judge` may raise to refuse their licence, before the library's weights are downloaded.
    """
    carried = bundled.of(canonical) if params.weights == "bundled" else None
    licence = licence_of(params, carried.licence if carried else published.licence)
    if carried:
        judge(licence)
        path = bundled.verified(carried, params.sha256)
        return replace(published, weights=f"bundled: {path.name}", licence=licence), path
    if params.weights == "default":
        judge(licence)
        return replace(published, licence=licence), _default(params, published, folder, report)
    if params.weights == "random":
        if params.sha256:
            raise ParamError(
                "backbone.sha256 is given, and backbone.weights is 'random', so there is no file to verify."
                " Set backbone.sha256 to null in params.yaml."
            )
        if params.licence:
            raise ParamError(
                f"backbone.licence is {params.licence}, and backbone.weights is 'random': these have no licence."
                " Set backbone.licence to null in params.yaml."
            )
        return replace(published, weights="random", licence=licence), None
    path = given(params, folder, report)
    judge(licence)
    return replace(published, weights=f"file: {path.name}", licence=licence), path


def licence_of(params: parameters.Backbone, published: Licence) -> Licence:
    """Return the licence of the weights that `params` asks for, which the user may know better than their publisher."""
    own = {
        "bundled": published,
        "default": published,
        "random": Licence(NONE, "the weights are random"),
    }.get(params.weights, Licence(UNKNOWN, "they are a file that you gave"))
    if not params.licence:
        return own
    return Licence(params.licence, f"backbone.licence in params.yaml; without it {own.name}, for {own.source}")


def read(path: Path) -> State:
    """Return the tensors of a safetensors or torch file by name; ParamError if that would need unpickling."""
    import torch
    from safetensors.torch import load_file

    try:
        is_safe = path.suffix == ".safetensors"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which are read all the same
            held = load_file(path) if is_safe else torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # of a dozen kinds; all say that the file is not what it should be
        raise ParamError(
            f"{path.name} cannot be read as tensors alone ({type(error).__name__}). Nothing is ever unpickled, because"
            " that can run code. Save the model's state_dict() as .safetensors, or by torch.save, and use that file."
        ) from error
    for key in ("state_dict_ema", "state_dict", "model"):  # in timm's order
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
            break
    if not isinstance(held, dict) or not held or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise ParamError(
            f"{path.name} holds no state dict. Tensors by name were expected, or such under 'state_dict', 'model' or"
            " 'state_dict_ema'. Save the model's state_dict() and set backbone.weights to that file in params.yaml."
        )
    is_parallel = all(key.startswith("module.") for key in held)  # saved from DataParallel
    return {key.removeprefix("module.") if is_parallel else key: value for key, value in held.items()}


def download(url: str, target: Path, sha256: str | None, sha256_prefix: str | None, report: Report) -> str:
    """Return the SHA-256 of `target`, fetched from `url` if it is not there; ParamError unless the digest is expected.

    One of `sha256` and `sha256_prefix`, its first digits, must be given. Nothing unverified is left at `target`.
    """
    expected = sha256 or sha256_prefix
    if not expected:
        raise ValueError("a digest or the beginning of one is needed")
    if target.is_file():
        todo = "Remove it, and it is downloaded again, or mend backbone.sha256 in params.yaml."
        return _expect(expected, files.sha256_of(target), shown(target), todo)
    with files.replacing(target) as partial:
        with _network(url, target):
            digest = _fetch(url, partial, report)
        todo = "The download was removed. Try again, or mend backbone.sha256 in params.yaml."
        return _expect(expected, digest, _bare(url), todo)


def _default(params: parameters.Backbone, published: Published, folder: Path, report: Report) -> Path:
    if not published.url:
        raise ParamError(
            f"backbone.weights is 'default', and there are no pretrained weights for '{params.name}'."
            " Set backbone.weights to a file, a URL or random, or choose another backbone.name, in params.yaml."
        )
    target = folder / published.file_name
    note = target.with_name(f"{target.name}.sha256")  # what a header said; with it, later runs need no network
    noted = note.read_text(encoding="utf-8").partition(" ")[0] if note.is_file() else None
    in_name = None if published.is_on_hub else _PREFIX_IN_NAME.search(target.name)
    sha256, prefix = params.sha256, in_name and in_name[1]
    if not sha256 and not prefix:
        if target.is_file():
            sha256 = noted
            if not sha256:
                raise ParamError(
                    f"{shown(target)} was put there by hand, and no checksum of it is known. If you trust it,"
                    f" set backbone.sha256 in params.yaml to its digest: {files.sha256_of(target)}"
                )
        elif published.is_on_hub:
            with _network(published.url, target):
                sha256 = _digest_on_hub(published.url)
        if not sha256:
            raise ParamError(
                f"No checksum is published for {published.url}, so a download could not be verified."
                " If you know its SHA-256, set backbone.sha256 to it in params.yaml."
            )
    digest = download(published.url, target, sha256, prefix, report)
    if published.is_on_hub and digest != noted:
        files.write_text(note, f"{digest}  {target.name}\n")  # as `sha256sum --check` reads it
    return target


def is_url(named: str) -> bool:
    """Return whether backbone.weights names a URL."""
    return named.startswith(("http://", "https://"))


def given(params: parameters.Backbone, folder: Path, report: Report) -> Path:
    """Return the file that the user names by path or URL, verified."""
    if is_url(params.weights):
        if not params.sha256:
            raise ParamError(
                "backbone.weights is a URL and backbone.sha256 is null. A download is verified against a known digest:"
                " set backbone.sha256 in params.yaml to the 64 digits that its publisher names."
            )
        named, begin = PurePosixPath(urlsplit(params.weights).path), params.sha256[:8]
        stem = named.stem if named.stem.endswith(begin) else f"{named.stem}-{begin}"
        target = folder / f"{stem}{named.suffix}"  # many publishers call all their files model.safetensors
        download(params.weights, target, params.sha256, None, report)
        return target
    path = Path(params.weights)
    if not path.is_file():
        hint = did_you_mean(params.weights, ("bundled", "default", "random"))
        raise ParamError(
            f"backbone.weights is '{params.weights}', and there is no such file.{hint}"
            " bundled, default, random, a file or a URL was expected. Set backbone.weights in params.yaml."
        )
    digest = files.sha256_of(path)
    if not params.sha256:
        raise ParamError(
            f"backbone.weights is the file '{params.weights}' and backbone.sha256 is null. If you trust it,"
            f" set backbone.sha256 in params.yaml to its digest: {digest}"
        )
    todo = "Make sure that it is the file you want, then mend backbone.sha256 in params.yaml."
    _expect(params.sha256, digest, params.weights, todo)
    return path


def _expect(expected: str, digest: str, what: str, todo: str) -> str:
    if not digest.startswith(expected):
        raise ParamError(f"{what} has SHA-256 {digest}; {expected} was expected. {todo}")
    return digest


# The network


class _StayPut(HTTPRedirectHandler):
    def http_error_302(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any) -> Any:
        return fp  # the redirect itself, for its headers

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _digest_on_hub(url: str) -> str | None:
    """Return the SHA-256 that a Hugging Face hub names in a header, if it does.

    It stands on the redirect to the storage behind the hub, whose own ETag is another hash. Redirects without a host
    (renamed repositories) are followed, as huggingface_hub does.
    """
    opener = build_opener(_StayPut)
    for _ in range(5):
        with opener.open(Request(url, method="HEAD"), timeout=_TIMEOUT_S) as response:
            tag = response.headers.get("X-Linked-ETag") or response.headers.get("ETag") or ""
            location = response.headers.get("Location") or ""
        if _SHA256.fullmatch(tag := tag.removeprefix("W/").strip('"')):
            return tag
        if not location or urlsplit(location).netloc:
            break
        url = urljoin(url, location)
    return None


def _fetch(url: str, partial: Path, report: Report) -> str:
    """Stream `url` to `partial` and return the SHA-256 of what came; OSError if less came than was promised."""
    sha256, n_bytes, megabyte = hashlib.sha256(), 0, 1_000_000
    with urlopen(url, timeout=_TIMEOUT_S) as response, partial.open("wb") as file:
        promised = int(response.headers.get("Content-Length") or 0)
        report(f"downloading {_bare(url)}" + (f" ({promised / megabyte:.1f} MB)" if promised else ""))
        bar = progress.bar("downloading", -(-promised // megabyte), "megabyte")
        with bar if promised else nullcontext(lambda _: None) as advance:
            while chunk := response.read(megabyte):
                file.write(chunk)
                sha256.update(chunk)
                n_bytes += len(chunk)
                advance(1)
    if n_bytes < promised:
        raise OSError(f"the connection closed after {n_bytes} of {promised} bytes")
    return sha256.hexdigest()


@contextmanager
def _network(url: str, target: Path) -> Iterator[None]:
    """Turn what goes wrong on the way to `url` into an error that says where to put the file instead.

    ParamError if a later try would end the same, UnreachableError if it may not.
    """
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
        is_vouched = _PREFIX_IN_NAME.search(target.name)
        also = "" if is_vouched else " and set backbone.sha256 to its digest in params.yaml"
        refused = isinstance(error, HTTPError) and error.code < 500 and error.code not in _TRY_LATER
        kind = ParamError if refused or isinstance(error, ValueError) else UnreachableError
        raise kind(
            f"{_bare(url)} cannot be fetched ({reason}). Try again, or fetch it by other means"
            f" and put it at {shown(target)}{also}."
        ) from error


def _bare(url: str) -> str:
    return url.partition("?")[0]  # what follows may be a signature


def shown(path: Path) -> str:
    """Return a path as it is typed in this folder, where it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
