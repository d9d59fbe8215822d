"""What runs the frozen backbone: pixels uint8 [B, S, S, 3] -> features float32 [B, D].

onnxruntime is the reference, because it runs the exported model. The others are compared with it by tests and whenever
they are opened.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.graph import from_pixels
from headstart.base.cores import n_cores
from headstart.base.errors import CheckError, ParamError
from headstart.embedding.batches import CPU_BATCH, Engine
from headstart.onnx import runtime
from headstart.onnx.backbone_folder import BACKBONE

NAMES = ("auto", "onnxruntime", "openvino", "torch")
# How far an image's features may be from onnxruntime's: the norm of the difference as a share of their norm.
# Measured on photographs: 1e-6, 7e-3 and 6e-2.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1.5e-1}
_GPU_BATCH = 256
_GPU_THREADS = 4  # beside a thread a core: some wait for the GPU while all cores decode


@dataclass(frozen=True)
class Kind:
    """An engine as it would run here; `name` and `precision` decide about the values."""

    name: str
    library: str  # with its version
    precision: str  # numpy's or torch's name of the type that the convolutions compute in
    device: str  # 'cpu' or 'cuda'
    batch_size: int  # where params.yaml leaves it open
    threads: int  # that call it at a time

    def __str__(self) -> str:
        return f"{self.library} {self.precision} {self.device}"


def kind(name: str, is_in_torch: bool = True) -> Kind:
    """Return what `embed.engine` means on this machine; ParamError if it is not installed.

    `auto` is torch where there is a CUDA device, else onnxruntime; also where the backbone is a graph that torch does
    not have.
    """
    if name == "auto":
        name = "torch" if is_in_torch and _has_gpu_driver() and _cuda() else "onnxruntime"
    if name == "torch" and not is_in_torch:
        raise ParamError(
            "embed.engine is 'torch', and the backbone is an ONNX graph, which PyTorch cannot run. Set embed.engine to"
            " auto, onnxruntime or openvino in params.yaml."
        )
    if name == "openvino":
        if not find_spec("openvino"):
            raise ParamError(
                "embed.engine is 'openvino', which is not installed. Run `pip install 'headstart[openvino]'`, or set"
                " embed.engine to auto in params.yaml."
            )
        import openvino

        native = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = "bfloat16" if "BF16" in native else "float32"
        return Kind(name, f"openvino {version('openvino')}", precision, "cpu", CPU_BATCH, n_cores())
    if name == "torch":
        library = f"torch {version('torch')}"
        if not _cuda():
            return Kind(name, library, "float32", "cpu", CPU_BATCH, n_cores())
        return Kind(name, library, "float16", "cuda", _GPU_BATCH, n_cores() + _GPU_THREADS)
    return Kind(name, f"onnxruntime {version('onnxruntime')}", "float32", "cpu", CPU_BATCH, n_cores())


def opened(chosen: Kind, backbone: Path) -> Engine:
    """Return the engine on `backbone`/backbone.onnx (torch: backbone.safetensors), one thread of the CPU a call."""
    opener: dict[str, Callable[[Kind, Path], Engine]] = {
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
        "torch": _torch,
    }
    return opener[chosen.name](chosen, backbone)


def check_parity(chosen: Kind, engine: Engine, backbone: Path, pixels: np.ndarray) -> float:
    """Return how far `engine` is from onnxruntime on `pixels`; CheckError if that is more than `TOLERANCES` allow."""
    apart = distance(engine(pixels), _onnxruntime(kind("onnxruntime"), backbone)(pixels))
    if not apart <= TOLERANCES[chosen.precision]:
        raise CheckError(
            f"{chosen}'s features differ from onnxruntime's by {apart:.1e} of their size. At most"
            f" {TOLERANCES[chosen.precision]:.1e} was expected. Set embed.engine to onnxruntime in params.yaml."
        )
    return apart


def distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Return the norm of an image's difference as a share of its reference's norm: the largest of all images."""
    apart = np.linalg.norm(features.astype(np.float64) - reference, axis=1)
    return float((apart / np.linalg.norm(reference, axis=1).clip(1e-30)).max())


def _onnxruntime(chosen: Kind, backbone: Path) -> Engine:
    session = runtime.session(backbone / BACKBONE, threads=1)

    def run(pixels: np.ndarray) -> np.ndarray:
        features: np.ndarray = session.run(None, {"pixels": pixels})[0]
        return features

    return run


def _openvino(chosen: Kind, backbone: Path) -> Engine:
    import openvino

    compiled = openvino.Core().compile_model(
        str(backbone / BACKBONE),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[chosen.precision],
            "INFERENCE_NUM_THREADS": chosen.threads,
            "NUM_STREAMS": chosen.threads,  # a stream of one thread for each thread that calls
            "ENABLE_CPU_PINNING": False,
        },
    )
    own = threading.local()

    def run(pixels: np.ndarray) -> np.ndarray:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        return np.array(own.request.infer({"pixels": pixels}, share_inputs=True)[0], np.float32)

    return run


def _torch(chosen: Kind, backbone: Path) -> Engine:
    """Channels-last throughout; on a GPU mixed precision, a stream and pinned memory for each thread that calls.

    float16 is as fast as bfloat16 and eight times as close; a network that overflows in it fails `check_parity`. While
    one thread waits for its batch, others decode the next ones and copy them: nothing else is needed for overlap.
    """
    import torch

    from headstart.backbones import networks

    network, preprocessing = networks.rebuilt(backbone)
    module: Any = from_pixels(network, preprocessing)
    module.to(chosen.device, memory_format=torch.channels_last)
    if chosen.device == "cpu":
        torch.set_num_threads(1)  # the threads that call are the parallelism

        def run(pixels: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return np.asarray(module(torch.from_numpy(pixels)))

        return run

    dtype = getattr(torch, chosen.precision)
    own = threading.local()

    def run_on_gpu(pixels: np.ndarray) -> np.ndarray:
        if not hasattr(own, "stream"):
            own.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            own.pinned = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
        own.pinned.copy_(torch.from_numpy(pixels))
        with torch.inference_mode(), torch.cuda.stream(own.stream), torch.autocast("cuda", dtype):
            features = module(own.pinned.to("cuda", non_blocking=True)).float().to("cpu", non_blocking=True)
            own.stream.synchronize()
        return np.asarray(features)

    return run_on_gpu


def _has_gpu_driver() -> bool:
    """Return whether it is worth asking torch, whose import takes seconds."""
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


@lru_cache(1)
def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())
