"""What each stage reads and writes in one run of the whole pipeline is what dvc.yaml says of it."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from ruamel.yaml import YAML

from headstart import params_file
from headstart.base.files import Place
from headstart.evaluation.candidates import Decision, decide
from headstart.layout import Layout
from tasks import evaluate
from tests.support.domains import other_light
from tests.support.images import ROOT
from tests.support.projects import SETTINGS, write_photographs
from tests.support.recording import WHOLE_TABLE, run_recorded

DAG: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
STAGE = pytest.mark.parametrize("stage", DAG)
# Everything on, so that no branch is left out; an accepted model takes a registry, and tests/pipeline has one.
EVERYTHING = (
    *(setting for setting in SETTINGS if not setting.startswith("backbone.")),
    "rank.backbones=[{name: test_efficientnet, weights: random, input_px: 64}]",
    "backbone.name=ranked",
    "embed.views=2",
    "finetune.enabled=true",
    "finetune.epochs=1",
    "finetune.warmup_epochs=0",
    "export.int8=true",
    "report.overlays=true",
    "data.unlabelled=elsewhere",
)
UNTRACKED = {"root", "params", "weights", "tuning", "timings", "artifacts", "cache", "failed"}
# Images are known by their bytes, so whoever reads pixels may read the files in their place (transform.keep_pixels).
BY_CONTENT = {"images"}
SOURCES = sorted(file for each in ("headstart", "tasks", "flows") for file in (ROOT / each).rglob("*.py"))


class Access(NamedTuple):
    """What a stage asked for."""

    parameters: set[str]  # dotted
    paths: set[str]  # names of Layout's
    splits: set[str]  # or WHOLE_TABLE


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Access]:
    root = tmp_path_factory.mktemp("recorded")
    write_photographs(root / "photos", 12)
    other_light(root / "elsewhere", 24)
    file = root / "params.yaml"
    file.write_bytes((ROOT / "params.yaml").read_bytes())
    values = params_file.assign(file, list(EVERYTHING))
    found = {stage: Access(*run_recorded(stage_of(stage), values, root)) for stage in DAG}
    with pytest.MonkeyPatch.context() as patch:  # the other candidate has branches of its own
        patch.setattr(evaluate, "decide", the_other)
        for stage in ("evaluate", "quantize", "report", "export"):
            again = Access(*run_recorded(stage_of(stage), values, root))
            found[stage] = Access(*(one | other for one, other in zip(found[stage], again, strict=True)))
    ships = params_file.assign(file, ["adapt.ship=true"])  # and so has the adapted head
    for stage in ("evaluate", "quantize", "export"):
        again = Access(*run_recorded(stage_of(stage), ships, root))
        found[stage] = Access(*(one | other for one, other in zip(found[stage], again, strict=True)))
    return found


def the_other(validation: pl.DataFrame, groups: np.ndarray, n_epochs: int) -> Decision:
    """Decide the other way."""
    decision = decide(validation, groups, n_epochs)
    return decision._replace(chosen="tuned" if decision.chosen == "frozen" else "frozen")


def stage_of(name: str) -> Any:
    return importlib.import_module(f"tasks.{name}").run


def declared(stage: str) -> set[str]:
    return set(DAG[stage].get("params", []))


@STAGE
def test_a_stage_depends_on_the_parameters_that_it_reads_and_on_no_other(stage: str, asked: dict[str, Access]) -> None:
    read = asked[stage].parameters
    assert {name for name in read if not any(covers(each, name) for each in declared(stage))} == set()
    assert {each for each in declared(stage) if not any(covers(each, name) for name in read)} == set()


def covers(declared_name: str, name: str) -> bool:
    return f"{name}.".startswith(f"{declared_name}.")


@STAGE
def test_a_stage_touches_the_artefacts_that_it_depends_on_or_writes_and_no_other(
    stage: str, asked: dict[str, Access]
) -> None:
    layout = Layout(Path(), data="${data.root}", without_labels="${data.unlabelled}")
    touched = {path_of(layout, name) for name in asked[stage].paths - UNTRACKED - BY_CONTENT}
    known = {dep for dep in DAG[stage]["deps"] if not dep.startswith(("tasks/", "headstart/"))}
    known |= {path for entry in DAG[stage]["outs"] for path in ([entry] if isinstance(entry, str) else entry)}
    assert {path for path in touched if not any(overlap(path, each) for each in known)} == set()
    if "images" in asked[stage].paths:
        touched.add("${data.root}")
    assert {each for each in known if not any(overlap(path, each) for path in touched)} == set()


def path_of(layout: Layout, name: str) -> str:
    value = getattr(layout, name)
    return (value.folder if isinstance(value, Place) else value).as_posix()


def overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


EVERY_SPLIT = {"train", "val", "test"}
SPLITS_OF = {
    "rank": {"train", "val"},
    "transform": EVERY_SPLIT,
    "embed": EVERY_SPLIT,
    "train_head": {"train", "val"},
    "adapt": {"train", "val"},
    "audit": EVERY_SPLIT,  # it fits nothing that ships
    "finetune": {"train", "val"},
    "evaluate": EVERY_SPLIT | {WHOLE_TABLE},  # for the groups of validation images
    "quantize": {"train", "val"},
    "report": EVERY_SPLIT,  # val for the digest of the images that the model learned from, as in export
    "export": {"train", "val"},
}


@STAGE
def test_a_stage_reads_the_images_of_the_splits_that_it_may(stage: str, asked: dict[str, Access]) -> None:
    """What chooses or fits must not see the test split, however it is named in the code."""
    assert asked[stage].splits == SPLITS_OF.get(stage, set())


def test_the_test_split_is_read_by_evaluate_and_what_follows_it_alone() -> None:
    """Splits are read by name, so a further split reaches nobody who does not ask for it."""
    readers = set()
    for file in SOURCES:
        names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
        if "TEST" in names | attributes or "SPLITS" in attributes:
            readers.add(file.relative_to(ROOT).as_posix())
    assert readers == {
        "headstart/base/dataset.py",
        "headstart/commands/describe.py",  # names the split of every image to the user
        "headstart/notebook.py",  # hands every image with its split to the user
        "headstart/auditing/seen.py",
        "headstart/auditing/told.py",
        "tasks/transform.py",
        "tasks/embed.py",
        "tasks/evaluate.py",
        "headstart/report/artefacts.py",
    }
    after_evaluation = {stage for stage in DAG if "artifacts/evaluation" in DAG[stage]["deps"]}
    assert after_evaluation == {"quantize", "report", "export"}


ARTEFACT = re.compile(r"^[\w.]+\.(json|parquet|csv|onnx|safetensors|md|html)$|^SHA256SUMS$")
# Both the frozen and the tuned candidate have these pieces, each in a folder with a module of its own.
TWICE = {"backbone.onnx", "head.onnx"}
NO_ARTEFACTS = {"model.safetensors", "page.html", "prepared.onnx", "quantised.onnx", "ranges.json"}


def test_each_artefact_is_named_in_one_module() -> None:
    """Whoever wants to read one finds the module that names it, and there the function that opens it."""
    named: dict[str, set[str]] = defaultdict(set)
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ARTEFACT.match(node.value):
                named[node.value].add(file.relative_to(ROOT).as_posix())
    assert {"head.json", "predictions.parquet", "model.onnx", "SHA256SUMS"} <= set(named)
    often = {name: files for name, files in named.items() if len(files) > 1 and name not in NO_ARTEFACTS}
    assert set(often) == TWICE
    assert all(len(files) == 2 for files in often.values())
