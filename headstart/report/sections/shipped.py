"""How is it shipped?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headstart.handover import folder
from headstart.handover.folder import Int8Record
from headstart.onnx.backbone_folder import LAST, BackboneRecord
from headstart.onnx.head_folder import HeadRecord
from headstart.report.artefacts import Artefacts


@dataclass(frozen=True)
class Shipped:
    """The parts of the model, their origin, and whether an int8 model ships."""

    int8: Int8Record
    backbone: BackboneRecord
    is_tuned: bool
    head: HeadRecord  # the frozen candidate's
    template: str = "shipped"

    @classmethod
    def of(cls, run: Artefacts) -> Shipped:
        """Return the section of a run."""
        int8, is_tuned = folder.read_int8(run.layout.int8), run.choice.chosen == "tuned"
        return cls(int8, run.backbone, is_tuned, run.head)

    @property
    def squared(self) -> str:
        """What becomes a square, in words."""
        whole = {"squeeze": "whole image squeezed", "pad": "whole image padded"}
        return whole.get(self.backbone.preprocessing.fit, "centre square")

    @property
    def reads(self) -> str:
        """How many features of the backbone the model reads, in words."""
        names = set(self.head.levels)
        if self.is_tuned and self.head.linear:  # tuning adds the last features where the head does without
            names = {*self.head.linear.levels, LAST}
        read = [level for level in self.backbone.levels if level.name in names]
        told = f"{sum(level.width for level in read):,} features"
        return f"{told} of {len(read)} of its {len(self.backbone.levels)} levels" if self.backbone.levels[1:] else told

    def figures(self) -> Mapping[str, str]:
        """Return no plots."""
        return {}
