"""The finished model of this checkout beside PyTorch's own run of the same network, from an image to probabilities.

Percentiles at batch 1, 8 and 32, on one thread and on all. The table goes to artifacts/timings.json too.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torchvision.transforms import v2

from benchmarks.harness import ROOT, arguments, machine, result, table
from headstart import images, params
from headstart.backbones import networks
from headstart.backbones.preprocessing import Preprocessing
from headstart.base import tables
from headstart.base.cores import n_cores
from headstart.base.files import located, read_json, read_safetensors, write_json
from headstart.handover import latency
from headstart.layout import Layout
from headstart.onnx import runtime

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
    record = read_json(layout.model / "model.json", "export")
    is_tuned = record["candidate"] == "tuned"
    head = read_safetensors((layout.finetune if is_tuned else layout.head) / "head.safetensors", "train_head")
    backbone = networks.load(params.load(layout.params).backbone, layout.weights, print)
    if is_tuned:
        tensors = read_safetensors(layout.finetune / "model.safetensors", "finetune")
        own = {name: torch.from_numpy(value) for name, value in tensors.items() if name.startswith("backbone.")}
        backbone.module.load_state_dict({name.removeprefix("backbone."): value for name, value in own.items()})
    linear = nn.Linear(*head["weight"].shape)
    linear.load_state_dict({"weight": torch.from_numpy(head["weight"].T), "bias": torch.from_numpy(head["bias"])})
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
    layout = Layout(ROOT)
    record = read_json(layout.model / "model.json", "export")
    predictions = tables.read(layout.evaluation / "predictions.parquet", tables.PREDICTIONS, "evaluate")
    folder = layout.images_folder(params.load(layout.params).data.root)
    rgb = images.decode(located(predictions["path"][0], folder).read_bytes()).rgb
    eager = in_pytorch(layout)
    files = ["model.onnx", *(["model.int8.onnx"] if record["int8"] else [])]
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
    print(f"An image of {rgb.shape[1]} x {rgb.shape[0]} pixels, {record['backbone']}\n")
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
