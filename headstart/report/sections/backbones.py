"""Which backbone, and from which? For runs that ranked some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headstart.ranking import folder, picture
from headstart.ranking.folder import RankingRecord
from headstart.report.artefacts import Artefacts
from headstart.report.drawing import RIGHT, SOFT, WRONG, drawn


@dataclass(frozen=True)
class Backbones:
    """The comparison of the stage `rank`."""

    ranking: RankingRecord
    built_on: str  # LIBRARY/NAME of the backbone of this run
    is_used: bool  # backbone.name is `ranked`
    template: str = "backbones"

    @classmethod
    def of(cls, run: Artefacts) -> Backbones | None:
        """Return the section of a run; None where nothing was ranked."""
        found = folder.read(run.layout.ranking)
        return cls(found, run.backbone.name, run.params.backbone.is_ranked) if found else None

    @property
    def h_score_tells(self) -> bool:
        """Whether H-scores differ from what they are for any features: with more images than features."""
        return any(abs(each.h_score - (self.ranking.n_classes - 1)) > 1e-3 for each in self.ranking.entries)

    def figures(self) -> Mapping[str, str]:
        """Return accuracy against time."""
        with drawn("pareto", picture.SIZE) as (axes, done):
            picture.draw(axes, self.ranking, picture.Colours(RIGHT, SOFT, WRONG))
            return {"pareto": done()}
