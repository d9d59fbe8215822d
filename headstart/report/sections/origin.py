"""What was it made with?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from headstart.evaluation.candidates import learned_from
from headstart.report.artefacts import Artefacts

# The parameters that the model and its scores follow from: whole sections, and single ones of others. A test holds both
# to headstart/params.py.
WHOLE = ("validate_", "split", "backbone", "rank", "embed", "train_head", "adapt", "finetune", "evaluate")
SINGLE = {
    "data": ("layout", "bits", "normalise_labels", "allow_outside"),
    "transform": ("fit",),
    "export": ("int8", "int8_max_accuracy_drop"),
}


class Digest(NamedTuple):
    """A SHA-256, under the name that it has in every file."""

    name: str
    of: str  # in words
    sha256: str


@dataclass(frozen=True)
class Origin:
    """The parameters, the versions of packages, and what identifies the data and the weights.

    Versions are those that earlier stages recorded with their results, so the page follows from its inputs alone. The
    commit is made after the page: `page.with_commit` writes it into a copy.
    """

    parameters: Mapping[str, Any]  # by dotted name
    versions: Mapping[str, Mapping[str, str]]  # what was made -> package -> version
    engine: str  # that computed the features, with its version
    digests: Sequence[Digest]
    template: str = "origin"

    @classmethod
    def of(cls, run: Artefacts) -> Origin:
        """Return the section of a run."""
        learned = run.data.digest(*learned_from(run.choice.chosen))
        return cls(
            told(run.params),
            {"the exported network": run.backbone.versions, "the head": run.head.versions},
            run.features.record.engine,
            [
                Digest("training_data_sha256", "the images that it learned from, with classes and groups", learned),
                Digest("data_sha256", "all images, with classes and groups", run.validated.data_sha256),
                Digest("weights_sha256", "the pretrained weights", run.backbone.weights_sha256),
            ],
        )

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The parameters as they stand in params.yaml: name, value."""
        return [(name, json.dumps(value, ensure_ascii=False).strip('"')) for name, value in self.parameters.items()]

    def figures(self) -> Mapping[str, str]:
        """Return no plots."""
        return {}


def told(params: Any) -> dict[str, Any]:
    """Return the parameters that are told, by their dotted names; of a stage that is off, only that it is."""
    values = {
        f"{section.rstrip('_')}.{name}": value
        for section in WHOLE
        for name, value in getattr(params, section).model_dump(mode="json").items()
    }
    for section, names in SINGLE.items():
        values |= {f"{section}.{name}": getattr(getattr(params, section), name) for name in names}
    for section, switch in (("finetune", "enabled"), ("adapt", "enabled"), ("rank", "backbones")):
        if not (on := values[f"{section}.{switch}"]):
            values = {name: value for name, value in values.items() if not name.startswith(f"{section}.")}
            values[f"{section}.{switch}"] = on
    return values
