"""A report on drawn predictions."""

from __future__ import annotations

import numpy as np

from headstart.evaluation import metrics
from headstart.heads.learning_curve import Point
from headstart.report.page import Comparison, Map, Mistake, Report, Shown
from tests.support.images import photograph


def make(n_classes: int = 3, n_images: int = 200, seed: int = 0, skill: float = 2.0, n_mistakes: int = 8) -> Report:
    """Return a report on drawn predictions."""
    random = np.random.default_rng(seed)
    classes = [f"class {index}" for index in range(n_classes)]
    labels = random.integers(0, n_classes, n_images)
    odds = np.exp(random.normal(size=(n_images, n_classes)) + skill * np.eye(n_classes)[labels])
    probabilities = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
    predicted = probabilities.argmax(1)
    right = predicted == labels
    groups = np.arange(n_images).astype(str)
    options = {"majority_label": 0, "bootstrap_samples": 100, "ece_bins": 15, "seed": 0}
    scores, per_class = metrics.evaluate(labels, probabilities, groups, **options)  # type: ignore[arg-type]
    raw = metrics.reliability(labels, probabilities**2, 15)
    told = {
        "coverage": 0.8,
        "selective_accuracy": 0.99,
        "abstain_below": 0.9,
        "wanted_accuracy": 0.99,
        "ece_before": 0.1,
    }

    def shown(index: int) -> Shown:
        return Shown(f"{index}.png", classes[labels[index]], photograph(int(index), 40, 40))

    return Report(
        dataset="photographs",
        form="class folders",
        test={**scores, **told},
        classes=classes,
        confusion=metrics.confusion_matrix(labels, predicted, n_classes),
        per_class=per_class,
        comparison=Comparison("v1.2.3", 0.871, metrics.Interval(0.82, 0.91), 3, 7, 0.344, "The model is no worse."),
        mistakes=[
            Mistake(shown(index), classes[predicted[index]], 0.9, [shown(0), shown(1), shown(2)], np.eye(8))
            for index in np.flatnonzero(~right)[:n_mistakes]
        ],
        calibrated=metrics.reliability(labels, probabilities, 15),
        uncalibrated=raw,
        curve=metrics.risk_coverage(probabilities.max(1), right),
        maps=[Map("pca", random.normal(size=(min(n_images, 1000), 2)))],
        mapped=[(shown(index), classes[predicted[index]]) for index in range(min(n_images, 1000))],
        images_per_class={split: dict.fromkeys(classes, 7) for split in ("train", "val", "test")},
        sheets={name: [photograph(0, 40, 40)] * 8 for name in classes[:40]},
        augmentation="By crops.",
        augmented=[[photograph(0, 40, 40), photograph(1, 40, 40)]],
        notes=["the given val is the held-out test set"],
        warnings=["class 'class 1' had no image in val"],
        quarantined=[("stray.txt", "not in a class folder")],
        candidates=[
            {
                "strength": strength,
                "cv_accuracy": 0.9,
                "cv_accuracy_std": 0.01,
                "cv_log_loss": 0.3,
                "temperature": 1.2,
                "chosen": strength == 0.1,
            }
            for strength in (0.01, 0.1)
        ],
        learning=[Point(0.5, 100, 0.8, 0.02, 0.5), Point(1.0, 200, 0.9, 0.02, 0.3)],
        head={"kind": "logistic regression", "n_images": 500, "n_folds": 5, "temperature": 1.2},
        choice={"enabled": False, "chosen": "frozen", "n_images": 500, "temperature": 1.2},
        history=[],
        backbone={
            "name": "timm/net",
            "weights": "bundled",
            "weights_sha256": "ab" * 32,
            "licence": "Apache-2.0",
            "n_features": 64,
            "preprocessing": {
                "resize_px": 256,
                "input_px": 224,
                "interpolation": "bicubic",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
            },
        },
        int8={"float_bytes": 13_400_000, "tries": [], "why": "No int8 model is shipped, since none was tried."},
        data_sha256="cd" * 32,
    )
