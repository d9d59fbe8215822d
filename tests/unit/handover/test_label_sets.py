"""The label sets of a finished model: `headstart predict --set` and `headstart.load`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import headstart
from headstart.base.label_sets import mass_above
from headstart.commands import main as cli
from tests.support.images import ROOT

OLD = ROOT / "tests" / "models" / "format-1"
PICTURES = [str(path) for path in sorted((OLD / "conformance").iterdir()) if path.suffix != ".json"]
Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return a function that writes a model with the quantiles given."""

    def write(*quantiles: float) -> Path:
        model = onnx.load(OLD / "model.onnx")
        facts = {each.key: each.value for each in model.metadata_props}
        told = {"coverage": 0.9, "quantiles": quantiles, "n_images": 100, "n_groups": 100}
        onnx.helper.set_model_props(model, {**facts, "label_sets": json.dumps(told)})
        onnx.save(model, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return write


def test_a_set_is_the_labels_whose_mass_above_is_at_most_their_quantile(made: Made) -> None:
    plain = headstart.load(OLD)
    probabilities = np.concatenate([plain.probabilities(plain.decode(Path(p).read_bytes())[None]) for p in PICTURES])
    above = mass_above(probabilities)
    limit = float(above[above > 0].min())
    for quantiles in ((limit,), (limit, 0.0), (0.0, 1.0)):
        answers = headstart.load(made(*quantiles)).predict(PICTURES)
        limits = np.broadcast_to(quantiles, len(plain.classes))
        for answer, row in zip(answers, above, strict=True):
            expected = {name for name, mass, q in zip(plain.classes, row, limits, strict=True) if mass <= q or q == 1}
            assert answer.label_set is not None
            assert set(answer.label_set) == expected
            assert answer.label_set == tuple(label for label, _ in answer.ranked if label in expected)
            assert answer.label_set[0] == answer.label or quantiles == (0.0, 1.0)
    sizes = {len(answer.label_set or ()) for answer in headstart.load(made(limit)).predict(PICTURES, top=1)}
    assert sizes == {1, 2}  # of all classes, though one is ranked


@pytest.mark.parametrize(("quantile", "size"), [(0.0, 1), (1.0, 2)])
def test_predict_prints_the_set_in_every_format(
    made: Made, quantile: float, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    model, picture = str(made(quantile)), PICTURES[0]
    labels = [label for label, _ in headstart.load(OLD).predict(picture).ranked][:size]

    def printed(*options: str) -> str:
        assert cli.main(["predict", model, picture, *options]) == 0
        return capsys.readouterr().out

    assert "{" + ", ".join(labels) + "}" in printed("--set").split("  ", 2)[2]
    assert json.loads(printed("--set", "--json"))["label_set"] == labels
    header, row = csv.reader(io.StringIO(printed("--set", "--format", "csv")))
    assert dict(zip(header, row, strict=True))["label_set"] == "|".join(labels)
    assert "label_set" not in printed("--json") + printed("--format", "csv")
    assert "{" not in printed()


@pytest.mark.parametrize("options", [[], ["--json"], ["--format", "csv"]])
def test_a_model_without_sets_says_so(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert headstart.load(OLD).predict(PICTURES[0]).label_set is None
    assert cli.main(["predict", str(OLD), PICTURES[0], "--set", *options]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"predict: {OLD / 'model.onnx'} has no label sets: its metadata lack `label_sets`. A model exported by a"
        " headstart that has evaluate.coverage was expected. Export it again, or leave --set out.\n"
    )
