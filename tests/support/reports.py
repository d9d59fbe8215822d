"""A report on drawn predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headstart.evaluation import metrics
from headstart.evaluation.folder import AcceptedScores, Comparison, TestScores
from headstart.evaluation.predictions import class_records
from headstart.handover.folder import Int8Record
from headstart.onnx.backbone_folder import BackboneRecord, PreprocessingRecord
from headstart.report.artefacts import Shown
from headstart.report.page import Heading, render
from headstart.report.sections.chosen import Chosen
from headstart.report.sections.data import Data
from headstart.report.sections.fails import Fails, Map, Mistake
from headstart.report.sections.good import Good
from headstart.report.sections.shipped import Shipped
from headstart.report.sections.trust import Trust
from tests.support.images import photograph

BACKBONE = BackboneRecord(
    name="timm/net",
    weights="bundled",
    weights_sha256="ab" * 32,
    licence="Apache-2.0",
    n_features=64,
    preprocessing=PreprocessingRecord(
        resize_px=256,
        input_px=224,
        crop_fraction=0.875,
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    resize_onnx_sha256="ab" * 32,
    backbone_onnx_sha256="ab" * 32,
    backbone_safetensors_sha256="ab" * 32,
    versions={},
)
CANDIDATE = {"cv_accuracy": 0.9, "cv_accuracy_std": 0.01, "cv_log_loss": 0.3, "temperature": 1.2}
LEARNING = [
    {"fraction": fraction, "n_images": n_images, "accuracy": accuracy, "accuracy_std": 0.02, "log_loss": 0.4}
    for fraction, n_images, accuracy in ((0.5, 100, 0.8), (1.0, 200, 0.9))
]


@dataclass(frozen=True)
class Report:
    """The sections of a page."""

    heading: Heading
    good: Good
    fails: Fails
    trust: Trust
    data: Data
    chosen: Chosen
    shipped: Shipped

    def page(self) -> str:
        """Return the HTML."""
        return render(self.heading, [self.good, self.fails, self.trust, self.data, self.chosen, self.shipped])

    def but(self, section: str, **changes: object) -> Report:
        """Return the same report with other data in one section."""
        return replace(self, **{section: replace(getattr(self, section), **changes)})


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
    scores, per_class = metrics.evaluate(
        labels, probabilities, groups, majority_label=0, bootstrap_samples=100, ece_bins=15, seed=0
    )
    told = {"coverage": 0.8, "selective_accuracy": 0.99, "abstain_below": 0.9, "wanted_accuracy": 0.99}
    test = TestScores.model_validate({**scores, **told, "ece_before": 0.1})

    def shown(index: int) -> Shown:
        return Shown(f"{index}.png", classes[labels[index]], photograph(int(index), 40, 40))

    mistakes = [
        Mistake(shown(index), classes[predicted[index]], 0.9, [shown(0), shown(1), shown(2)], np.eye(8))
        for index in np.flatnonzero(~right)[:n_mistakes]
    ]
    n_mapped = min(n_images, 1000)
    accepted = AcceptedScores(version="v1.2.3", accuracy=0.871, accuracy_low=0.82, accuracy_high=0.91)
    return Report(
        Heading("photographs", n_classes, "timm/net", False, 500, test),
        Good(
            test,
            Comparison(
                accepted=accepted,
                only_accepted_right=3,
                only_new_right=7,
                p_value=0.344,
                is_worse=False,
                why="The model is no worse.",
            ),
        ),
        Fails(
            test,
            classes,
            metrics.confusion_matrix(labels, predicted, n_classes),
            class_records(classes, per_class),
            mistakes,
            [Map("pca", random.normal(size=(n_mapped, 2)))],
            [(shown(index), classes[predicted[index]]) for index in range(n_mapped)],
        ),
        Trust(
            test,
            1.2,
            metrics.reliability(labels, probabilities**2, 15),
            metrics.reliability(labels, probabilities, 15),
            metrics.risk_coverage(probabilities.max(1), right),
        ),
        Data(
            dataset="photographs",
            form="class folders",
            classes=classes,
            images_per_class={split: dict.fromkeys(classes, 7) for split in ("train", "val", "test")},
            sheets={name: [photograph(0, 40, 40)] * 8 for name in classes[:40]},
            variation="By crops.",
            varied=[[photograph(0, 40, 40), photograph(1, 40, 40)]],
            notes=["the given val is the held-out test set"],
            warnings=["class 'class 1' had no image in val"],
            quarantined=[("stray.txt", "not in a class folder")],
        ),
        Chosen(
            "frozen",
            None,
            [],
            5,
            [{"strength": strength, "chosen": strength == 0.1, **CANDIDATE} for strength in (0.01, 0.1)],
            LEARNING,
        ),
        Shipped(
            Int8Record(
                chosen=None,
                backbone_sha256=None,
                why="No int8 model is shipped, since none was tried.",
                float_bytes=13_400_000,
                trial=None,
            ),
            BACKBONE,
            False,
            "logistic regression",
            "cd" * 32,
        ),
    )
