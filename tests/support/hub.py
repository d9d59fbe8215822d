"""A server on this machine that speaks the protocol of the Hugging Face hub, and small networks to publish there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"
_IS_LARGE = (".safetensors", ".bin")  # kept by Git LFS, elsewhere


PX = 32
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": PX,
    "patch_size": 8,
}


@dataclass
class Repository:
    """Commits, each with its files, and what names them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # of branches and tags
    is_private: bool = False
    is_gated: bool = False
    accepted: set[str] = field(default_factory=set)  # tokens of those who have accepted the terms

    def commit(self, files: dict[str, bytes], name: str = "main") -> str:
        """Add a commit, let `name` stand for it, and return its digest."""
        digest = hashlib.sha1(b"".join(key.encode() + value for key, value in sorted(files.items()))).hexdigest()
        self.commits[digest], self.names[name] = files, digest
        return digest


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """The server: /api/models/NAME/revision/REVISION and /NAME/resolve/REVISION/FILE, with the hub's headers."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}  # by SHA-256
        self.asked: list[str] = []
        self.fails_with = 0  # a status for every answer
        self.names_digests = True
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def answer(self) -> None:
                url = urlsplit(self.path)
                path = unquote(url.path)
                hub.asked.append(f"{self.command} {path}")
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                status, headers, body = (hub.fails_with, {}, b"") if hub.fails_with else hub.answer(path, token)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def publish(self, name: str, files: dict[str, bytes], **of_repository: Any) -> Repository:
        repository = self.repositories.setdefault(name, Repository(**of_repository))
        repository.commit(files)
        return repository

    def answer(self, path: str, token: str) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/storage/"):
            return 200, {}, self.storage[path.removeprefix("/storage/")]
        if token and token != TOKEN:
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b"{}"
        is_api = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models/").strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        repository = self.repositories.get(name)
        if repository is None or (repository.is_private and not token):
            return (404 if token else 401), {"X-Error-Code": "RepoNotFound"} if token else {}, b"{}"
        revision = "/".join(rest[1:]) if is_api else rest[1]
        digest = repository.names.get(revision, revision)
        if digest not in repository.commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files = repository.commits[digest]
        if is_api:
            return 200, {"Content-Type": "application/json"}, json.dumps(self.described(name, digest, files)).encode()
        if repository.is_gated and token not in repository.accepted:
            return (403 if token else 401), {"X-Error-Code": "GatedRepo"}, b"{}"
        file = "/".join(rest[2:])
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": digest}, b"{}"
        data = files[file]
        headers = {"X-Repo-Commit": digest, "ETag": f'"{git_sha1(data)}"'}
        if not file.endswith(_IS_LARGE):
            return 200, headers, data
        sha256 = hashlib.sha256(data).hexdigest()
        self.storage.setdefault(sha256, data)
        headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        elsewhere = f"http://localhost:{self.http.server_port}"  # another host, which gets no token
        return 302, {**headers, "Location": f"{elsewhere}/storage/{sha256}"}, b""

    def described(self, name: str, commit: str, files: dict[str, bytes]) -> dict[str, object]:
        return {"id": name, "sha": commit, "siblings": [self._sibling(*each) for each in sorted(files.items())]}

    def _sibling(self, file: str, data: bytes) -> dict[str, object]:
        if not self.names_digests:
            return {"rfilename": file}
        sibling: dict[str, object] = {"rfilename": file, "size": len(data), "blobId": git_sha1(data)}
        if file.endswith(_IS_LARGE):
            sha256 = hashlib.sha256(data).hexdigest()
            sibling["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 130}
        return sibling


def card(licence: str | None = "apache-2.0") -> bytes:
    """Return a model card, whose front matter states a licence."""
    return (f"---\nlicense: {licence}\ntags: [vision]\n---\n# Net\n" if licence else "# Net\n").encode()


def of_timm(name: str = "test_resnet", n_classes: int = 7, **config: Any) -> tuple[dict[str, bytes], Any]:
    """Return the files of a repository of timm, and its model with random weights."""
    import timm
    import torch
    from safetensors.torch import save

    torch.manual_seed(3)
    model = timm.create_model(name, pretrained=False, num_classes=n_classes).eval()
    own = timm.get_pretrained_cfg(name)
    cfg = {"input_size": [3, 96, 96], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.4, 0.5, 0.6]}
    cfg |= {
        "std": [0.2, 0.25, 0.3],
        "num_classes": n_classes,
        "classifier": own.classifier,
        "first_conv": own.first_conv,
    }
    described = {
        "architecture": name,
        "num_classes": n_classes,
        "pretrained_cfg": {**cfg, **config.pop("cfg", {})},
        **config,
    }
    files = {"config.json": json.dumps(described).encode(), "README.md": card()}
    return files | {"model.safetensors": save(model.state_dict())}, model


def of_transformers(model: Any, folder: Path, processor: dict[str, Any] | None = None) -> dict[str, bytes]:
    """Return the files of a repository of a model of Transformers, as the library itself saves it."""
    model.save_pretrained(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} | {"README.md": card()}
    said = PROCESSOR if processor is None else processor
    return files | ({"preprocessor_config.json": json.dumps(said).encode()} if said else {})


PROCESSOR = {  # of google/vit-base-patch16-224, smaller
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 32, "width": 32},
}


def drawn(model: Any) -> Any:
    """Return the model with weights that no initialisation gives, so that one that is missing is seen."""
    import torch

    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model.eval()


def vit(**changes: Any) -> Any:
    """Return a small classifier of Transformers."""
    import transformers

    return drawn(transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL, num_labels=5, **changes)))
