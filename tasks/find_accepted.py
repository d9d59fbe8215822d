"""Find the accepted model that this run's model has to be as good as.

Reads what identifies the candidate model and its held-out images; writes artifacts/accepted.json. Which version is the
newest stands in git's tags, which are no dependency: accepting a model must not make its own pipeline out of date. So
the tags are read when another model was trained, and what was found is a dependency of `evaluate`. DVC's run cache
leaves this stage out, since its output is `persist` in dvc.yaml: an earlier answer may be older than the newest tag.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from headstart.base import dataset
from headstart.base.files import sha256_of
from headstart.base.progress import say
from headstart.evaluation import accepted
from headstart.onnx import finetune_folder, head_folder

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params


def run(params: Params, layout: Layout) -> None:
    """Look the version up in git and write it down."""
    tuned = finetune_folder.read(layout.finetune)
    dataset.read(layout)  # refuses damaged splits
    parts = [
        sha256_of(layout.splits),
        sha256_of(head_folder.piece(layout.head)),
        tuned.model_dump_json() if tuned else "",
    ]
    candidate = sha256("\n".join(parts).encode()).hexdigest()
    found = accepted.look_up(params.export.gate, layout.root)
    accepted.AcceptedFile(accepted=found, candidate=candidate).write(layout.accepted)
    if found:
        say(f"{found.version} is the accepted model to compare with")
