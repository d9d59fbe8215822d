"""A report on drawn predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.base.label_sets import members
from headstart.evaluation import metrics
from headstart.evaluation.folder import (
    AcceptedScores,
    Comparison,
    Contest,
    LabelSets,
    McNemarRecord,
    Scores,
    TestScores,
    ValidationFigures,
)
from headstart.evaluation.predictions import class_records
from headstart.handover.folder import Int8Record
from headstart.heads.candidates import Candidate
from headstart.onnx.backbone_folder import BackboneRecord, LevelRecord, PreprocessingRecord
from headstart.onnx.head_folder import (
    CalibrationRecord,
    ForecastRecord,
    HeadRecipe,
    HeadRecord,
    LearningRecord,
    MemberRecord,
    NestedRecord,
    TrainingRecord,
)
from headstart.report.artefacts import Shown
from headstart.report.page import Heading, render
from headstart.report.sections.chosen import Chosen
from headstart.report.sections.data import Data
from headstart.report.sections.fails import Fails, Map, Mistake
from headstart.report.sections.good import Good
from headstart.report.sections.origin import Digest, Origin
from headstart.report.sections.ranking import Ranking, between
from headstart.report.sections.shipped import Shipped
from headstart.report.sections.trust import Trust, least_held
from tests.support.images import photograph

BACKBONE = BackboneRecord(
    name="timm/net",
    weights="bundled",
    weights_sha256="ab" * 32,
    licence="Apache-2.0",
    licence_source="timm says 'apache-2.0'",
    n_features=64,
    levels=[
        LevelRecord(name="stem", start=0, width=16, pooling="map"),
        LevelRecord(name="blocks.1", start=16, width=16, pooling="map"),
        LevelRecord(name="last", start=32, width=32, pooling="none"),
    ],
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
RECIPE = HeadRecipe(
    members=[MemberRecord(kind="ridge", levels=("stem", "blocks.1"), strength=0.1, temperature=1.0, weight=1.0)],
    temperature=1.2,
)
SETS = LabelSets(coverage=0.9, quantiles=[0.8], n_images=500, n_groups=500)
CALIBRATION = CalibrationRecord(fitted=1.2, outcome="fitted", log_loss_without=0.34, log_loss_with=0.31)
HEAD = HeadRecord(
    kind="ridge",
    words="ridge regression on one-hot targets",
    levels=("stem", "blocks.1"),
    classes=["a", "b"],
    recipe=RECIPE,
    linear=RECIPE,
    calibration=CALIBRATION,
    select_by="log_loss",
    training=TrainingRecord(class_weights=None, label_smoothing=0, dropout=0.5, seed=0, shift=[0.0, 0.0]),
    n_images=500,
    n_views=0,
    n_folds=5,
    n_cross_validated=500,
    cv_accuracy=0.912,
    cv_log_loss=0.3,
    learning=LearningRecord(
        gain=0.1,
        gain_low=0.06,
        gain_high=0.14,
        forecast=[
            ForecastRecord(n_images=n, accuracy=at, low=at - 0.02, high=at + 0.02)
            for n, at in ((100, 0.8), (200, 0.9), (2000, 0.95))
        ],
    ),
    nested=NestedRecord(
        accuracy=0.905, accuracy_low=0.876, accuracy_high=0.928, log_loss=0.31, optimism=0.007, n_agreeing=3
    ),
    precision="float32",
    dtype="float32",
    made_for="ab" * 32,
    versions={"numpy": "2.4.0", "scipy": "1.17.0"},
    files={},
)


def candidate(kind: str, levels: str, strength: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Return a row of candidates.csv."""
    usual = Candidate(kind, levels, 32, 99, strength, 0.9, 0.01, 0.3, 0.02, 1.2, True, 0.89, 0.86, 0.92, chosen=False)
    return usual._replace(**changes)._asdict()


CANDIDATES = [
    candidate("ridge", "last", 0.1, cv_log_loss=0.4),
    candidate("ridge", "stages", 0.01, is_best=False, nested_accuracy=None, nested_low=None, nested_high=None),
    candidate("ridge", "stages", 0.1, cv_accuracy=0.912, chosen=True),
    candidate("lda", "stages", cv_log_loss=0.35),
    candidate("knn", "stages", 9.0, cv_log_loss=0.5, nested_accuracy=None, nested_low=None, nested_high=None),
    candidate("blend", "of several", cv_log_loss=0.29),
]
LEARNING = [
    {"fraction": fraction, "n_images": n_images, "accuracy": accuracy, "accuracy_low": accuracy - 0.02}
    | {"accuracy_high": accuracy + 0.02, "log_loss": 0.4}
    for fraction, n_images, accuracy in ((0.5, 100, 0.8), (1.0, 200, 0.9))
]


@dataclass(frozen=True)
class Report:
    """The sections of a page."""

    heading: Heading
    good: Good
    ranking: Ranking | None  # None unless there are two classes
    fails: Fails
    trust: Trust
    data: Data
    chosen: Chosen
    shipped: Shipped
    origin: Origin

    def page(self) -> str:
        """Return the HTML."""
        sections = [self.good, self.ranking, self.fails, self.trust, self.data, self.chosen, self.shipped, self.origin]
        return render(self.heading, [section for section in sections if section])

    def but(self, section: str, **changes: object) -> Report:
        """Return the same report with other data in one section."""
        return replace(self, **{section: replace(getattr(self, section), **changes)})


def contest() -> Contest:
    """Return a frozen network against a fine-tuned one, which wins."""
    scores = Scores.model_validate({name: getattr(make().good.test, name) for name in Scores.model_fields})
    return Contest(
        why="The fine-tuned network ships.",
        validation=ValidationFigures(
            n_images=100,
            frozen_log_loss=0.4,
            frozen_accuracy=0.9,
            tuned_log_loss=0.3,
            tuned_accuracy=0.92,
            advantage=0.1,
            standard_error=0.02,
        ),
        test={"frozen": scores, "tuned": scores},
        mcnemar=McNemarRecord(only_frozen_right=3, only_tuned_right=9, p_value=0.15),
        best_epoch=2,
    )


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
    held = members(probabilities, np.array(SETS.quantiles))
    told |= {"set_coverage": 0.92, "set_coverage_low": 0.88, "set_coverage_high": 0.95, "mean_set_size": 1.5}
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
        between(classes, labels, probabilities),
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
            CALIBRATION,
            metrics.reliability(labels, probabilities**2, 15),
            metrics.reliability(labels, probabilities, 15),
            metrics.risk_coverage(probabilities.max(1), right),
            SETS,
            np.bincount(held.sum(1), minlength=n_classes + 1),
            least_held(held, labels, classes),
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
            lacking={"val": ["class 1"]},
            quarantined=[("stray.txt", "not in a class folder")],
        ),
        Chosen(
            "frozen",
            None,
            [],
            HEAD,
            [level.name for level in BACKBONE.levels],
            CANDIDATES,
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
            HEAD,
        ),
        Origin(
            {"split.seed": 0, "train_head.kinds": "auto", "finetune.enabled": False},
            {"the exported network": {"torch": "2.9.0"}, "the head": HEAD.versions},
            "onnxruntime 1.23.0 float32 cpu",
            [Digest("data_sha256", "all images", "cd" * 32)],
        ),
    )
