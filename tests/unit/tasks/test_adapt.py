"""The stage `adapt` on photographs under another light: what it reads, what it writes, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart import params_file
from headstart.base import dataset, unlabelled
from headstart.evaluation import elsewhere
from headstart.evaluation import folder as evaluation
from headstart.handover.model import load
from headstart.layout import Layout
from headstart.onnx import adapt_folder, head_folder
from headstart.param_types import NO_IMAGES, NO_ROWS
from headstart.params import Params
from tasks import (
    adapt,
    backbone,
    embed,
    evaluate,
    export,
    find_accepted,
    finetune,
    quantize,
    split,
    train_head,
    transform,
    validate,
)
from tasks import unlabelled as unlabelled_stage
from tests.support.domains import manifest, other_light
from tests.support.images import ROOT
from tests.support.projects import SETTINGS, write_photographs

RIGHT, WRONG, NONE = {"ants": "ants", "bees": "bees"}, {"ants": "bees", "bees": "ants"}, dict.fromkeys(("ants", "bees"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project whose head meets photographs under another light."""
    root = tmp_path_factory.mktemp("project")
    write_photographs(root / "photos", 12)
    other_light(root / "elsewhere", 24)
    manifest(root, NONE)
    (root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (root / NO_IMAGES).write_text(NO_ROWS)
    values = params_file.assign(root / "params.yaml", [*SETTINGS, "data.unlabelled=elsewhere.csv"])
    layout = Layout.of(root, values)
    for each in (validate, split, backbone, transform, embed, unlabelled_stage, train_head):
        each.run(values, layout)
    return layout


def values_of(project: Layout, *settings: str) -> Params:
    text = project.params.read_bytes()
    try:
        return params_file.assign(project.params, list(settings))
    finally:
        project.params.write_bytes(text)


def adapted(project: Layout, *settings: str) -> dict[str, bytes]:
    """Run the stage; return its files."""
    values = values_of(project, *settings)
    adapt.run(values, Layout.of(project.root, values))
    return {file.name: file.read_bytes() for file in project.adapt.iterdir()}


def test_labels_that_a_manifest_gives_are_never_fitted_to(project: Layout) -> None:
    """The bait: labels that are all wrong, and then labels that are all right."""
    found = []
    for labels in (NONE, WRONG, RIGHT):
        manifest(project.root, labels)
        unlabelled_stage.run(values_of(project), project)
        assert len(set(unlabelled.read(project).given)) == len(set(labels.values()))
        found.append(adapted(project))
    assert found[0] == found[1] == found[2]
    assert set(found[0]) == {"adapted.json", "head.onnx"}
    told = adapt_folder.read(project.adapt)
    assert told.is_adapted and told.trial is not None
    assert (told.trial.n_source, told.trial.n_target) == (len(dataset.read(project).of("train", "val")), 48)


def test_the_test_split_is_not_read(project: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set[str]()
    of = dataset.Dataset.of

    def recorded(self: dataset.Dataset, *splits: str) -> dataset.Images:
        asked.update(splits)
        return of(self, *splits)

    monkeypatch.setattr(dataset.Dataset, "of", recorded)
    adapted(project)
    assert asked == {"train", "val"}


@pytest.mark.parametrize("settings", [["adapt.enabled=false"], [f"data.unlabelled={NO_IMAGES}"]])
def test_it_is_off_without_such_images_and_where_it_is_not_wanted(project: Layout, settings: list[str]) -> None:
    values = values_of(project, *settings)
    layout = Layout.of(project.root, values)
    unlabelled_stage.run(values, layout)
    assert set(adapted(project, *settings)) == {"adapted.json"}
    told = adapt_folder.read(project.adapt)
    assert (told.chosen, told.trial) == ("none", None)
    assert told.why.startswith("Nothing was tried: ")
    unlabelled_stage.run(values_of(project), project)


def test_methods_that_are_not_named_are_not_tried(project: Layout) -> None:
    adapted(project, "adapt.methods=[standardise, mmd]")
    trial = adapt_folder.read(project.adapt).trial
    assert trial is not None and [way.method for way in trial.ways] == ["none", "standardise", "mmd"]


def test_the_adapted_model_ships_if_asked_and_is_as_good_there_as_evaluate_says(project: Layout) -> None:
    manifest(project.root, RIGHT)
    unlabelled_stage.run(values_of(project), project)
    adapted(project)
    for ship in ("false", "true"):
        values = values_of(project, f"adapt.ship={ship}")
        for each in (finetune, find_accepted, evaluate):
            each.run(values, project)
        told = elsewhere.read(project.evaluation)
        labelled = told.labelled
        assert told.ships == (ship == "true") == (evaluation.choice(project.evaluation).chosen == "adapted")
        assert set(told.held_out) == {"plain", "adapted"}
        shown = told.held_out["adapted" if told.ships else "plain"]
        assert evaluation.scores(project.evaluation).accuracy == shown.accuracy
        assert labelled is not None and labelled.adapted is not None and labelled.gain is not None
        assert labelled.plain.value == 0.5 < 0.9 < labelled.adapted.value
        assert labelled.gain.low > 0
    for each in (quantize, export):
        each.run(values, project)  # export holds the model to what evaluate predicted
    model = load(project.export)
    found = unlabelled.read(project)
    right = [
        model.predict(project.root / path).label == given for path, given in zip(found.paths, found.given, strict=True)
    ]
    assert np.mean(right) == pytest.approx(labelled.adapted.value)


def test_a_head_that_is_missing_is_told(project: Layout, tmp_path: Path) -> None:
    from headstart.base.errors import CheckError

    adapt_folder.write_off(tmp_path / "adapt", "Nothing was tried.")
    with pytest.raises(CheckError, match=r"holds no head[.]onnx: no way to adapt was better than none"):
        adapt_folder.piece(tmp_path / "adapt")
    assert head_folder.piece(project.head).is_file()
