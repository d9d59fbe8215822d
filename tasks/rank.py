"""Compare backbones on the images of train and val: how well heads do on their features, and what each costs.

Reads the images, the splits and params; writes artifacts/ranking/, the comparison, and artifacts/ranked.json, the
winner, which the stage `backbone` takes if backbone.name is `ranked`, and which is null if none may win. Test images
are not read. What is embedded here enters the cache of this machine, where `transform` and `embed` find the winner's
pixels and features. Times are measured once a machine and network, and kept there too. Without rank.backbones, the
stage is off and imports nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.backbones import ranked
from headstart.base.progress import say, show_image, show_table
from headstart.ranking import folder

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params
    from headstart.ranking.candidates import Candidate
    from headstart.ranking.embedding import Embedder


def run(params: Params, layout: Layout) -> None:
    """Compare the candidates and write the winner, or write that there are none."""
    if not params.rank.backbones:
        folder.write(layout.ranking, folder.OFF)
        ranked.write(layout.ranked, None)
        return

    from pathlib import Path
    from tempfile import TemporaryDirectory

    from headstart.base import dataset
    from headstart.base.dataset import TRAIN, VAL
    from headstart.base.validation import ValidationSummary
    from headstart.images.deep import ALL_BITS
    from headstart.ranking import picture
    from headstart.ranking.candidates import prepared
    from headstart.ranking.compare import compare
    from headstart.ranking.embedding import Embedder

    data = dataset.read(layout)
    bits = ValidationSummary.of(layout).bits or ALL_BITS
    keep = params.transform.keep_pixels

    def embedder(candidate: Candidate) -> Embedder:
        return Embedder.of(candidate, params.embed, keep, layout, bits)

    with TemporaryDirectory(prefix="headstart-rank-") as beside:
        candidates = prepared(params.rank, params.export, params.transform.fit, layout, Path(beside))
        images = data.of(TRAIN, VAL)
        found, winner = compare(candidates, embedder, images, len(data.classes), params.rank, params.train_head)
    folder.write(layout.ranking, found)
    ranked.write(layout.ranked, winner.settings if winner else None)
    for line in [*folder.lines(found), *found.words()]:
        say(line)
    words = f"Backbones compared on train and val; {found.words()[0]}"
    show_table("ranking", folder.shown(found), words)
    show_image("ranking-picture", lambda: picture.png(found), "Accuracy in cross-validation against time on one thread")
