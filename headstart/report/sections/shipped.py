"""How is it shipped?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headstart.handover import folder
from headstart.handover.folder import Int8Record
from headstart.onnx.backbone_folder import BackboneRecord
from headstart.report.artefacts import Artefacts


@dataclass(frozen=True)
class Shipped:
    """The parts of the model, their origin, and whether an int8 model ships."""

    int8: Int8Record
    backbone: BackboneRecord
    is_tuned: bool
    head: str  # in words
    data_sha256: str
    template: str = "shipped"

    @classmethod
    def of(cls, run: Artefacts) -> Shipped:
        """Return the section of a run."""
        int8, is_tuned = folder.read_int8(run.layout.int8), run.choice.chosen == "tuned"
        return cls(int8, run.backbone, is_tuned, run.head.words, run.validated.data_sha256)

    def figures(self) -> Mapping[str, str]:
        """Return no plots."""
        return {}
