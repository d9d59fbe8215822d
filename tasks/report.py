"""Render the report on a finished run from what the other stages have written.

Reads almost everything; writes artifacts/report.html. Nothing is fitted, chosen or scored here.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from headstart.base.files import write_text
from headstart.base.progress import say
from headstart.report.artefacts import Artefacts
from headstart.report.page import Heading, render
from headstart.report.sections.audit import Audit
from headstart.report.sections.backbones import Backbones
from headstart.report.sections.chosen import Chosen
from headstart.report.sections.data import Data
from headstart.report.sections.elsewhere import Elsewhere
from headstart.report.sections.fails import Fails
from headstart.report.sections.good import Good
from headstart.report.sections.origin import Origin
from headstart.report.sections.ranking import Ranking
from headstart.report.sections.shipped import Shipped
from headstart.report.sections.trust import Trust

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params

SECTIONS = (Good, Ranking, Fails, Trust, Elsewhere, Audit, Data, Backbones, Chosen, Shipped, Origin)


def run(params: Params, layout: Layout) -> None:
    """Read the artefacts, render the sections, write the page."""
    finished = Artefacts(params, layout)
    heading = Heading(
        dataset=PurePath(params.data.root).name,
        n_classes=len(finished.classes),
        backbone=finished.backbone.name,
        is_tuned=finished.choice.chosen == "tuned",
        n_images=finished.choice.n_images,
        test=finished.scores,
    )
    sections = [section.of(finished) for section in SECTIONS]
    text = render(heading, [section for section in sections if section])
    write_text(layout.report, text)
    say(f"{layout.report.relative_to(layout.root)}, {len(text.encode()) / 1e6:.1f} MB")
