"""The finished model of this checkout beside PyTorch's own run of the same network, from an image to probabilities.

Percentiles at batch 1, 8 and 32, on one thread and on all. The table goes to artifacts/timings.json too.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms import v2

from benchmarks.harness import ROOT, arguments, machine, result, table
from headstart import params_file
from headstart.backbones import networks
from headstart.backbones.preprocessing import Preprocessing
from headstart.base.cores import n_cores
from headstart.base.files import located, write_json
from headstart.evaluation import folder as evaluation
from headstart.evaluation.candidates import pieces_of
from headstart.handover import folder, latency
from headstart.images import decoding
from headstart.layout import Layout
from headstart.onnx import finetune_folder, runtime
from headstart.onnx.model_folder import INT8_MODEL, MODEL

EAGER = "PyTorch, eager"
Answer = Callable[[np.ndarray], np.ndarray]


def in_onnxruntime(layout: Layout, name: str, threads: int) -> Answer:
    """Return probabilities [N, C] of uint8 [N, H, W, 3] by a file of artifacts/model."""
    session = runtime.session(layout.model / name, threads)

    def answer(shown: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = session.run(["probabilities"], {"image": shown})[0]
        return probabilities

    return answer


def in_pytorch(layout: Layout) -> Answer:
    """Return the same by the modules that the model was exported from, and torchvision's transforms."""
    chosen = folder.read_model(layout.model).candidate
    tensors = onnx.load(pieces_of(layout, chosen).head).graph.initializer
    head = {each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in tensors}
    backbone = networks.load(params_file.load(layout.params).backbone, layout.weights, print)
    if chosen == "tuned":
        own = load_file(layout.finetune / finetune_folder.MODEL)
        own = {name: value for name, value in own.items() if name.startswith("backbone.")}
        backbone.module.load_state_dict({name.removeprefix("backbone."): value for name, value in own.items()})
    linear = nn.Linear(*head["head_weight"].shape)
    linear.load_state_dict({"weight": head["head_weight"].T, "bias": head["head_bias"]})
    network = nn.Sequential(backbone.module, linear, nn.Softmax(1)).eval()
    prepare = transforms(backbone.preprocessing)

    def answer(shown: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(prepare(torch.tensor(shown).permute(0, 3, 1, 2))))

    return answer


def transforms(of: Preprocessing) -> nn.Module:
    """Return what a PyTorch user writes for this preprocessing."""
    resample = v2.InterpolationMode(of.interpolation)
    return nn.Sequential(
        v2.Resize(of.resize_px, interpolation=resample, antialias=True),
        v2.CenterCrop(of.input_px),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(of.mean, of.std),
    )


def main() -> None:
    """Measure, print, write."""
    options = arguments(__doc__, data=False, seconds=2.0)
    layout = Layout.of(ROOT, params_file.load(ROOT / "params.yaml"))
    record = folder.read_model(layout.model)
    first = evaluation.predictions(layout.evaluation)["path"][0]
    rgb = decoding.decode(located(first, layout.images).read_bytes()).rgb
    eager = in_pytorch(layout)
    files = [MODEL, *([INT8_MODEL] if record.int8 else [])]
    measured = []
    for threads in sorted({1, n_cores()}):
        torch.set_num_threads(threads)
        answers: dict[str, Answer] = {name: in_onnxruntime(layout, name, threads) for name in files}
        answers[EAGER] = eager
        apart = np.abs(answers["model.onnx"](rgb[None]) - eager(rgb[None])).max()
        assert apart < 0.2, f"the two answer differently, by {apart}: they are not the same network"
        for batch in latency.BATCHES:
            shown = np.repeat(rgb[None], batch, axis=0)
            for name, answer in answers.items():
                measured.append(latency.measure(name, answer, shown, threads, options.seconds))
    rows = [[*each] for each in sorted(measured, key=lambda each: (each.threads, each.batch, each.what))]
    print(machine())
    print(f"An image of {rgb.shape[1]} x {rgb.shape[0]} pixels, {record.backbone}\n")
    table(latency.Latency._fields, rows)
    try:
        timings = json.loads(layout.timings.read_bytes())
    except (OSError, ValueError):
        timings = {}
    write_json(layout.timings, {**timings, "latency": [each._asdict() for each in measured]})
    for threads in sorted({1, n_cores()}):
        one = {each.what: each.p50_ms for each in measured if each.batch == 1 and each.threads == threads}
        speedup = one[EAGER] / one["model.onnx"]
        result(f"latency_speedup_batch_1_threads_{threads}", speedup, "times", 1.0, speedup >= 1)


if __name__ == "__main__":
    main()
