"""The artefacts that the sections of the report read, each opened on first use."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headstart.auditing import folder as auditing
from headstart.auditing.folder import AuditRecord
from headstart.base import dataset, decisions
from headstart.base.dataset import Dataset, Images, SplitSummary
from headstart.base.decisions import Decided
from headstart.base.validation import ValidationSummary
from headstart.embedding import features, pixels
from headstart.embedding.features import Features
from headstart.embedding.pixels import Source
from headstart.evaluation import folder
from headstart.evaluation.folder import Choice, LabelSets, TestScores
from headstart.onnx import backbone_folder, head_folder
from headstart.onnx.backbone_folder import BackboneRecord
from headstart.onnx.head_folder import HeadRecord

if TYPE_CHECKING:
    import polars as pl

    from headstart.layout import Layout
    from headstart.params import Params


class Shown(NamedTuple):
    """An image in the report."""

    path: str
    label: str
    pixels: np.ndarray  # uint8 [S, S, 3]


class Artefacts:
    """The artefacts of the run that the report is about."""

    def __init__(self, params: Params, layout: Layout) -> None:
        self.params, self.layout = params, layout

    @cached_property
    def data(self) -> Dataset:
        """Images and splits."""
        return dataset.read(self.layout)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of label indices."""
        return self.data.classes

    @cached_property
    def test(self) -> Images:
        """The held-out images, in the order of the predictions."""
        return self.data.of(dataset.TEST)

    @cached_property
    def train(self) -> Images:
        """The images in the split train."""
        return self.data.of(dataset.TRAIN)

    @cached_property
    def everything(self) -> Images:
        """The images of all splits."""
        return self.data.of(*dataset.SPLITS)

    @cached_property
    def split_of(self) -> dict[str, str]:
        """The split of each image: image_id -> name."""
        return {image_id: split for split in dataset.SPLITS for image_id in self.data.of(split).image_ids}

    @cached_property
    def split_summary(self) -> SplitSummary:
        """The summary of `split`."""
        return dataset.read_summary(self.layout)

    @cached_property
    def decided(self) -> list[Decided]:
        """What people decided about single images, as `validate` carried it out."""
        return decisions.read(self.layout.validation)

    @cached_property
    def validated(self) -> ValidationSummary:
        """The summary of `validate`."""
        return ValidationSummary.of(self.layout)

    @cached_property
    def predictions(self) -> pl.DataFrame:
        """`tables.PREDICTIONS`."""
        return folder.predictions(self.layout.evaluation)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The probabilities of the held-out images, float32 [N, C]."""
        rows = self.predictions["probabilities"].to_list()
        return np.array(rows, np.float32).reshape(len(rows), len(self.classes))

    @cached_property
    def scores(self) -> TestScores:
        """The scores on the held-out images."""
        return folder.scores(self.layout.evaluation)

    @cached_property
    def choice(self) -> Choice:
        """Which candidate ships."""
        return folder.choice(self.layout.evaluation)

    @cached_property
    def label_sets(self) -> LabelSets:
        """What decides which labels are in an image's set."""
        return folder.label_sets(self.layout.evaluation)

    @cached_property
    def audit(self) -> AuditRecord | None:
        """What the audit found, in numbers; None where it is off."""
        return auditing.read(self.layout.audit)

    @cached_property
    def findings(self) -> pl.DataFrame:
        """`auditing.folder.FINDINGS_TABLE`."""
        return auditing.findings(self.layout.audit)

    @cached_property
    def head(self) -> HeadRecord:
        """The frozen candidate's head."""
        return head_folder.read(self.layout.head)

    @cached_property
    def backbone(self) -> BackboneRecord:
        """The frozen backbone."""
        return backbone_folder.read(self.layout.backbone)

    @cached_property
    def features(self) -> Features:
        """The features of the frozen backbone, of the levels that its head reads."""
        return features.opened(self.layout).at(self.head.levels)

    @cached_property
    def source(self) -> Source:
        """The source of pixels."""
        return pixels.opened(self.layout)

    def shown(self, images: Images) -> list[Shown]:
        """Return images with their pixels, in the order given."""
        if not len(images):
            return []
        rows = zip(images.paths, images.labels, self.source(images.where), strict=True)
        return [Shown(path, self.classes[label], each) for path, label, each in rows]
