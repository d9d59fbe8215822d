"""A repository on the Hugging Face hub -> one commit of it, verified files, and the licence that its model card states.

Everything goes through the hub's own library, with its cache of files, its tokens and its settings (`HF_TOKEN`,
`HF_ENDPOINT`, `HF_HUB_OFFLINE`). A branch is resolved to a commit once: the commit and the digests that the hub names
are noted beside the downloaded weights, and later runs read the same bytes, without a network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from headstart.backbones.hub_errors import HUB, Wanted, endpoint, no_hub, told
from headstart.backbones.weights import shown
from headstart.base import files, licences, progress
from headstart.base.errors import CheckError, ParamError, count_and_name
from headstart.base.licences import UNKNOWN, Licence
from headstart.base.records import Digest, Record

if TYPE_CHECKING:
    from tqdm import tqdm

    Report = Callable[[str], None]

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
_MAX_TEXT_MB = 16  # of a file that is not weights
_PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".h5", ".msgpack")
_TIMEOUT_S = 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


class FileRecord(Record):
    """A file as the hub describes it."""

    n_bytes: int | None
    sha256: Digest | None  # of large files
    git_sha1: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None  # git's own digest, of all others


class Pin(Record):
    """The commit that a revision was when it was first asked for."""

    repository: str
    asked: str
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: dict[str, FileRecord]  # those that are of use
    others: list[str]  # names of weights in other formats

    @property
    def name(self) -> str:
        """The network's canonical name, such as 'hf-hub:timm/resnet18.a1_in1k'."""
        return f"{HUB}{self.repository}"


def wanted(name: str) -> Wanted:
    """Return what a backbone.name asks for; ParamError unless it reads hf-hub:OWNER/NAME, with or without @REVISION."""
    repository, _, revision = name.removeprefix(HUB).partition("@")
    is_odd = not _NAME.fullmatch(repository) or "--" in repository or ".." in repository or ".." in revision
    if is_odd or ("@" in name and not re.fullmatch(r"[A-Za-z0-9._/-]+", revision)):
        raise ParamError(
            f"backbone.name is '{name}'. {HUB}OWNER/NAME, such as {HUB}timm/resnet18.a1_in1k, was expected, or"
            f" {HUB}OWNER/NAME@REVISION with a branch, a tag or a commit. Set backbone.name in params.yaml."
        )
    return Wanted(repository, revision or "main")


def pinned(name: str, folder: Path, report: Report) -> Pin:
    """Return the commit of what backbone.name asks for, from its note in `folder` or from the hub.

    `report` receives a line when a branch is resolved. ParamError where the hub refuses, UnreachableError where it does
    not answer.
    """
    asked = wanted(name)
    note = _note(asked, folder)
    if note.is_file():
        try:
            return Pin.read(note, "backbone")
        except CheckError:
            note.unlink()  # of another version, or cut off: the hub is asked again
    pin = _asked(asked)
    files.write_text(note, pin.model_dump_json(indent=2) + "\n")
    if not asked.is_pinned:
        report(
            f"{pin.repository}: '{asked.revision}' is commit {pin.commit[:12]}, which {shown(note)} keeps for"
            f" later runs. For the same on other machines set backbone.name={pin.name}@{pin.commit}"
        )
    return pin


def commit_of(name: str, folder: Path, report: Report) -> str:
    """Return the commit that backbone.name stands for; the hub is asked only where neither it nor a note says so."""
    asked = wanted(name)
    return asked.revision if asked.is_pinned else pinned(name, folder, report).commit


def by_commit(name: str, folder: Path, report: Report) -> str:
    """Return backbone.name with the commit that it stands for, which is the same network anywhere and at any time.

    Where a note or the hub told the commit, it is noted as such too: the hub isn't asked again for what it then names.
    """
    asked = wanted(name)
    if asked.is_pinned:
        return name
    pin = pinned(name, folder, report)
    note = _note(asked._replace(revision=pin.commit), folder)
    if not note.is_file():
        files.write_text(note, pin.model_copy(update={"asked": pin.commit}).model_dump_json(indent=2) + "\n")
    return f"{HUB}{asked.repository}@{pin.commit}"


def _note(asked: Wanted, folder: Path) -> Path:
    name = f"{asked.repository}@{asked.revision}".replace("/", "--")
    return folder / "hf-hub" / f"{name}.json"


def _asked(asked: Wanted) -> Pin:
    from huggingface_hub import HfApi

    try:
        with told(asked):
            info = HfApi(endpoint=endpoint()).model_info(
                asked.repository, revision=asked.revision, files_metadata=True, timeout=_TIMEOUT_S
            )
        return _pin(info, asked)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # of JSON, of what is in it
        raise no_hub(error) from error


def _pin(info: Any, asked: Wanted) -> Pin:
    names = {each.rfilename: each for each in info.siblings or []}
    useful = {
        name: FileRecord(n_bytes=names[name].size, sha256=_sha256(names[name]), git_sha1=names[name].blob_id)
        for name in (CONFIG, WEIGHTS, CARD, *PREPROCESSORS)
        if name in names
    }
    others = sorted(name for name in names if "/" not in name and _is_weights(name) and name != WEIGHTS)
    return Pin(repository=info.id, asked=asked.revision, commit=str(info.sha), files=useful, others=others)


def _sha256(sibling: Any) -> str | None:
    return sibling.lfs.sha256 if sibling.lfs else None


def _is_weights(name: str) -> bool:
    return name.endswith((*_PICKLES, ".safetensors", ".safetensors.index.json"))


# Files


def text(pin: Pin, name: str) -> tuple[bytes, str]:
    """Return a file of the commit, and its SHA-256; ParamError unless it is there, small and as the hub says."""
    listed = pin.files.get(name)
    if listed is None:
        raise ParamError(
            f"{pin.name} has no {name}, so it is no network of timm or Transformers. Such a repository was"
            " expected. Set backbone.name in params.yaml."
        )
    if (listed.n_bytes or 0) > _MAX_TEXT_MB * 1_000_000:
        raise ParamError(
            f"{name} of {pin.name} has {(listed.n_bytes or 0) / 1e6:.0f} MB. At most {_MAX_TEXT_MB} MB was"
            " expected. Set backbone.name in params.yaml."
        )
    path = _fetched(pin, name)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    _expect(pin, name, path, digest, lambda: hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())
    return data, digest


def weights(pin: Pin, sha256: str | None, report: Report) -> tuple[Path, str]:
    """Return the file of weights and its SHA-256, downloaded once; ParamError unless it is as the hub says.

    `sha256`: what params.yaml expects, if anything. Only safetensors are taken: a pickle can run code when it is read.
    """
    listed = pin.files.get(WEIGHTS)
    if listed is None:
        found = f" It has {count_and_name(pin.others)}." if pin.others else ""
        why = (
            "its weights are in several files, too large for one ONNX file"
            if f"{WEIGHTS}.index.json" in pin.others
            else "and pickles are never read, because that can run code"
        )
        raise ParamError(
            f"{pin.name} has no {WEIGHTS}, {why}.{found} Choose another backbone.name, or a revision that has"
            f" it, such as {pin.name}@refs/pr/1 where its Community page offers one, in params.yaml."
        )
    if not (listed.sha256 or listed.git_sha1 or sha256):
        raise ParamError(
            f"the hub names no checksum of {WEIGHTS} in {pin.name}, so a download could not be verified. If"
            " you know its SHA-256, set backbone.sha256 to it in params.yaml."
        )
    path = _fetched(pin, WEIGHTS, report)
    digest = files.sha256_of(path)
    _expect(pin, WEIGHTS, path, digest, lambda: _git_sha1_of(path))
    if sha256 not in (None, digest):
        raise ParamError(
            f"{WEIGHTS} of {pin.name} has SHA-256 {digest}; {sha256} was expected. Make sure that it is the"
            " file you want, then mend backbone.sha256 in params.yaml."
        )
    return path, digest


def _expect(pin: Pin, name: str, path: Path, sha256: str, git_sha1: Callable[[], str]) -> None:
    listed = pin.files[name]
    expected = listed.sha256 or listed.git_sha1
    if expected and expected != (found := sha256 if listed.sha256 else git_sha1()):
        raise ParamError(
            f"{shown(path)} is not {name} of {pin.name}: its digest is {found}, and the hub names"
            f" {expected}. Remove {shown(path.resolve())}, and it is downloaded again."
        )


def _git_sha1_of(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(1_000_000):
            digest.update(chunk)
    return digest.hexdigest()


def _fetched(pin: Pin, name: str, report: Report | None = None) -> Path:
    """Return where the hub's library keeps a file of the commit, after a download if it has none."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    held = try_to_load_from_cache(pin.repository, name, revision=pin.commit)
    if isinstance(held, str) and Path(held).is_file():
        return Path(held)
    n_mb = -(-(pin.files[name].n_bytes or 0) // 1_000_000)
    if report:
        report(f"downloading {name} of {pin.repository} ({(pin.files[name].n_bytes or 0) / 1e6:.1f} MB)")
    with told(Wanted(pin.repository, pin.commit), name), progress.bar("downloading", n_mb, "megabyte") as advance:
        path = hf_hub_download(
            pin.repository,
            name,
            revision=pin.commit,
            endpoint=endpoint(),
            tqdm_class=_counting(advance if report else lambda n: None),
        )
    return Path(path)


def _counting(advance: Callable[[int], None]) -> type[tqdm[Any]]:
    """Return a bar of tqdm's that shows nothing and counts whole megabytes: the library asks for its class."""
    from tqdm import tqdm

    class Counting(tqdm):  # type: ignore[type-arg]
        def __init__(self, *_: object, **given: Any) -> None:
            super().__init__(disable=True)
            self.n_bytes = 0

        def update(self, n: float | None = 1) -> bool | None:
            before = self.n_bytes // 1_000_000
            self.n_bytes += int(n or 0)
            if self.n_bytes // 1_000_000 > before:
                advance(self.n_bytes // 1_000_000 - before)
            return None

    return Counting


# The licence


def licence(pin: Pin) -> Licence:
    """Return what the front matter of the model card states; `unknown` where there is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    where = f"the model card of {pin.repository}"
    if CARD not in pin.files:
        return Licence(UNKNOWN, f"{pin.repository} has no model card")
    data, _ = text(pin, CARD)
    front = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", data.decode("utf-8-sig", "replace").replace("\r\n", "\n"), re.S)
    try:
        said = YAML(typ="safe").load(front[1]) if front else None
    except (YAMLError, ValueError, RecursionError):
        return Licence(UNKNOWN, f"{where} cannot be read")
    said = said if isinstance(said, dict) else {}
    return licences.of_card(said.get("license"), said.get("license_name"), where)
