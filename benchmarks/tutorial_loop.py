"""The tutorials' training loop against the whole of `dvc repro`, on the same photographs, backbone and machine.

The loop, as transfer-learning tutorials have it: ImageFolder, RandomResizedCrop and flip for training, resize and
centre crop for validation, a frozen pretrained backbone with a new linear layer, SGD with learning rate 1e-3 and
momentum 0.9, StepLR(7, 0.1), batches of 4, 25 epochs of train and val, and the epoch that is best on val is kept and
reported. Beside it everything that headstart does from raw files to a verified model.onnx, `backbone` included.

The data need `train/` and `val/`. The loop picks its epoch on the images that it reports; headstart sees them once.
"""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import arguments, assign, machine, project, result, run, table
from headstart import params_file
from headstart.backbones import networks
from headstart.layout import Layout

TARGET_SPEEDUP = 40.0


def tutorial(data: Path, backbone: networks.Backbone, n_epochs: int) -> tuple[float, float, list[float]]:
    """Return the seconds of all epochs, the best accuracy on val, and the seconds of each epoch."""
    import torch
    from torch import nn, optim
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    facts = backbone.preprocessing
    normalise = [transforms.ToTensor(), transforms.Normalize(facts.mean, facts.std)]
    steps: dict[str, list[Any]] = {
        "train": [transforms.RandomResizedCrop(facts.input_px), transforms.RandomHorizontalFlip(), *normalise],
        "val": [transforms.Resize(facts.resize_px), transforms.CenterCrop(facts.input_px), *normalise],
    }
    loaders = {
        split: DataLoader(
            datasets.ImageFolder(str(data / split), transforms.Compose(steps[split])),
            batch_size=4,
            shuffle=True,
            num_workers=os.cpu_count() or 1,
        )
        for split in steps
    }
    n_classes = len(loaders["train"].dataset.classes)  # type: ignore[attr-defined]
    model = nn.Sequential(backbone.module, nn.Linear(backbone.n_features, n_classes))
    criterion = nn.CrossEntropyLoss()
    optimiser = optim.SGD(model[1].parameters(), lr=0.001, momentum=0.9)
    schedule = optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    best, best_state, seconds = 0.0, copy.deepcopy(model.state_dict()), []
    for epoch in range(n_epochs):
        began = time.perf_counter()
        for split, loader in loaders.items():
            model.train(split == "train")
            right = n_images = 0
            for images, labels in loader:
                optimiser.zero_grad()
                with torch.set_grad_enabled(split == "train"):
                    outputs = model(images)
                    loss = criterion(outputs, labels)
                    if split == "train":
                        loss.backward()
                        optimiser.step()
                right += int((outputs.argmax(1) == labels).sum())
                n_images += len(labels)
            if split == "train":
                schedule.step()
            elif right / n_images > best:
                best, best_state = right / n_images, copy.deepcopy(model.state_dict())
        seconds.append(time.perf_counter() - began)
        print(f"epoch {epoch + 1} of {n_epochs}: {seconds[-1]:.1f} s, best on val {best:.4f}", flush=True)
    model.load_state_dict(best_state)
    return sum(seconds), best, seconds


def main() -> None:
    """Run one after the other, headstart before and after the loop, and print both."""
    given = arguments(__doc__, epochs=25)
    runs, accuracy = [], 0.0
    values = None
    for moment in ("before", "after"):
        with project() as root:
            assign(root, data__root=given.data)
            run(root, "dvc", "init", "--no-scm", "--force")
            seconds, _ = run(root, "dvc", "repro")
            runs.append(seconds)
            run(root, "headstart", "verify", "artifacts/model")
            accuracy = json.loads((root / "artifacts/evaluation/metrics.json").read_text())["test"]["accuracy"]
            values, layout = params_file.load(root / "params.yaml"), Layout(root)
            print(f"dvc repro, {moment} the loop: {seconds:.1f} s, {accuracy:.4f} on the held-out images", flush=True)
            if moment == "before":
                network = networks.load(values.backbone, layout.weights, print)
                loop_s, loop_accuracy, epochs = tutorial(given.data, network, given.epochs)
    ours_s = sum(runs) / len(runs)
    whole_s = loop_s / given.epochs * 25
    note = "" if given.epochs == 25 else f" (from {given.epochs} epochs)"
    print(f"\n{machine()}")
    table(
        ["", "seconds", "accuracy on val"],
        [
            [f"the tutorials' loop, 25 epochs{note}", whole_s, f"{loop_accuracy:.4f}, best of the epochs"],
            ["one epoch, median", sorted(epochs)[len(epochs) // 2], ""],
            ["`dvc repro`, raw files to verified model.onnx", ours_s, f"{accuracy:.4f}, looked at once"],
        ],
    )
    speedup = whole_s / ours_s
    result("speedup_over_tutorial_loop", speedup, "times", TARGET_SPEEDUP, speedup >= TARGET_SPEEDUP)
    gain = accuracy - loop_accuracy
    result("accuracy_over_tutorial_loop", gain, "of the held-out images", 0.0, gain >= 0)


if __name__ == "__main__":
    main()
