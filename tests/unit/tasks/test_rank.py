"""The stage `rank`: it looks at no test image, its work is used again, and who may not win does not win."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from headstart import params_file
from headstart.backbones import ranked
from headstart.base import progress, tables
from headstart.base.errors import CheckError, ParamError
from headstart.base.files import sums
from headstart.layout import Layout
from headstart.params import Params
from headstart.ranking import folder, measure
from headstart.ranking.candidates import labels
from headstart.ranking.folder import RankingRecord
from tasks import backbone, embed, rank, split, transform, validate
from tests.support import graphs
from tests.support.images import ROOT
from tests.support.projects import write_photographs

N_IMAGES = 90  # of each of two classes


class Begun(NamedTuple):
    """A project that is split, and what two graphs of other frameworks are called in params.yaml."""

    root: Path
    first: dict[str, Any]
    second: dict[str, Any]

    def params(self, *candidates: dict[str, Any], **changes: object) -> Params:
        assignments = [f"{name.replace('__', '.')}={json.dumps(value)}" for name, value in changes.items()]
        file = self.root / "params.yaml"
        return params_file.assigned(file, [f"rank.backbones={json.dumps(list(candidates))}", *assignments])[1]

    def layout(self, results: Path | None = None) -> Layout:
        return Layout(self.root, str(self.root / "photos"), cache_dir=str(self.root / "cache"), results=results or None)

    def ranked(self, params: Params, results: Path | None = None) -> RankingRecord:
        layout = self.layout(results)
        rank.run(params, layout)
        found = folder.read(layout.ranking)
        assert found is not None
        return found


def candidate(path: Path, graph: Any, licence: str) -> dict[str, Any]:
    return {"name": "onnx", "licence": licence, **graphs.saved(graph, path), **graphs.PREPARED}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Begun:
    root = tmp_path_factory.mktemp("rank")
    write_photographs(root / "photos", N_IMAGES)
    (root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    params_file.assign(root / "params.yaml", [f"data.root={root / 'photos'}"])
    first = candidate(root / "first.onnx", graphs.nchw(), "MIT")
    second = candidate(root / "second.onnx", graphs.nhwc(), "GPL-3.0-only")
    begun = Begun(root, first, second)
    for stage in (validate, split):
        stage.run(begun.params(), begun.layout())
    return begun


@pytest.fixture
def begun(shared: Begun, tmp_path: Path) -> Begun:
    root = tmp_path / "project"
    shutil.copytree(shared.root, root)
    return shared._replace(root=root)


def split_table(begun: Begun) -> pl.DataFrame:
    return pl.read_parquet(begun.layout().splits)


def test_the_winner_is_not_embedded_again(begun: Begun, capsys: pytest.CaptureFixture[str]) -> None:
    values = begun.params(begun.first, begun.second, backbone__name="ranked")
    begun.ranked(values)
    n_test = int((split_table(begun)["split"] == "test").sum())
    capsys.readouterr()
    for stage in (backbone, transform, embed):
        stage.run(values, begun.layout())
    said = capsys.readouterr().out
    assert "onnx/first was exported from the same weights before: it is taken from the cache" in said
    assert said.count(f"{n_test} images computed, {2 * N_IMAGES - n_test} reused") == 2  # pixels, and features


def test_images_of_the_test_split_are_neither_read_nor_counted(begun: Begun, tmp_path: Path) -> None:
    """Their files are gone and their labels are others: a ranking that looked at one would fail or differ."""
    values = begun.params(begun.first, begun.second)
    begun.ranked(values)
    before = sums(begun.layout().ranking), begun.layout().ranked.read_bytes()
    table = split_table(begun)
    for path in table.filter(pl.col("split") == "test")["path"]:
        (begun.root / "photos" / path).unlink()
    other = pl.when(pl.col("split") == "test").then(pl.lit("ants")).otherwise(pl.col("label")).alias("label")
    tables.write(begun.layout().splits, table.with_columns(other), tables.SPLITS)
    shutil.rmtree(begun.root / "cache" / "rows")
    record = begun.ranked(values)
    assert (sums(begun.layout().ranking), begun.layout().ranked.read_bytes()) == before
    assert record.parts[-1] == int((table["split"] != "test").sum())


def test_a_candidate_whose_licence_may_not_ship_is_shown_and_cannot_win(begun: Begun) -> None:
    record = begun.ranked(begun.params(begun.second, begun.first))
    assert record.winner == "onnx (first.onnx)"
    barred = next(each for each in record.entries if each.label != record.winner)
    assert barred.obstacles == ["its licence is GPL-3.0-only"]
    assert 0 < barred.accuracy <= 1
    allowed = begun.ranked(begun.params(begun.second, begun.first, export__licences="any"))
    assert [each.obstacles for each in allowed.entries] == [[], []]


def test_limits_of_time_and_size_bar_candidates(begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_fastest", lambda folder, record: 0.02 if record.name == "onnx/first" else 0.03)
    record = begun.ranked(begun.params(begun.second, begun.first, export__licences="any", rank__max_ms=25))
    assert record.winner == "onnx (first.onnx)"
    assert [each.obstacles for each in record.entries if each.label != record.winner] == [["it takes 30.0 ms"]]


def test_candidates_none_of_which_may_win_are_compared_for_information(begun: Begun) -> None:
    record = begun.ranked(begun.params(begun.first, begun.second, rank__max_mb=0.001))
    assert record.winner is None
    assert len(record.entries) == 2
    assert json.loads(begun.layout().ranked.read_text())["winner"] is None
    assert record.words()[0].startswith("there is no winner, for none may win (onnx (")
    wanted = begun.params(begun.first, backbone__name="ranked").backbone
    with pytest.raises(CheckError, match=r"ranked.json names no backbone, since none of rank.backbones may win"):
        ranked.resolved(wanted, begun.layout())


def test_a_time_is_measured_once_and_the_winner_is_written_without_it(
    begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = begun.params(begun.first)
    monkeypatch.setattr(measure, "_fastest", lambda folder, record: 0.005)
    begun.ranked(values)
    first = sums(begun.layout().ranking)
    winner = begun.layout().ranked.read_bytes()
    monkeypatch.setattr(measure, "_fastest", lambda folder, record: 0.009)
    begun.ranked(values)
    assert sums(begun.layout().ranking) == first
    shutil.rmtree(begun.root / "cache" / "results")
    assert begun.ranked(values).entries[0].milliseconds == 9.0
    assert begun.layout().ranked.read_bytes() == winner


def test_without_candidates_the_stage_writes_that_there_are_none(begun: Begun) -> None:
    rank.run(begun.params(), begun.layout())
    assert folder.read(begun.layout().ranking) is None
    wanted = begun.params(begun.first, backbone__name="ranked").backbone
    with pytest.raises(CheckError, match=r"or `rank` has not compared any. .* run `dvc repro rank`"):
        ranked.resolved(wanted, begun.layout())


def test_the_backbone_is_the_winner_with_all_its_values(begun: Begun) -> None:
    values = begun.params(begun.first, begun.second, backbone__name="ranked")
    begun.ranked(values)
    assert ranked.resolved(values.backbone, begun.layout()) == values.rank.backbones[0]
    plain = begun.params(begun.first)
    assert ranked.resolved(plain.backbone, begun.layout()) is plain.backbone


def test_without_racing_all_see_all_images(begun: Begun) -> None:
    raced = begun.ranked(begun.params(begun.first, begun.second))
    unraced = begun.ranked(begun.params(begun.first, begun.second, rank__racing=False))
    assert len(raced.parts) > 1
    assert unraced.parts == raced.parts[-1:]
    assert {each.n_images for each in unraced.entries} == {unraced.parts[-1]}
    assert unraced.words()[-1].endswith("there was no race")


def test_no_more_images_are_looked_at_than_asked_for(begun: Begun) -> None:
    assert begun.ranked(begun.params(begun.first, rank__max_images=60)).parts == [60]


def test_where_the_cache_cannot_be_written_the_ranking_is_the_same(begun: Begun, tmp_path: Path) -> None:
    values = begun.params(begun.first, begun.second)
    known = begun.ranked(values)
    (tmp_path / "blocked").write_text("a file where the cache should be")
    rank.run(values, replace(begun.layout(), cache_dir=str(tmp_path / "blocked")))
    found = folder.read(begun.layout().ranking)
    assert found is not None

    def without_times(record: RankingRecord) -> list[Any]:
        return [each.model_copy(update={"milliseconds": 1.0}) for each in record.entries]

    assert without_times(found) == without_times(known)


def test_the_table_and_the_picture_are_sent_to_a_listener(
    begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events"
    monkeypatch.setenv(progress.EVENTS_VARIABLE, str(events))
    begun.ranked(begun.params(begun.first, begun.second))
    sent = {(each["kind"], each.get("key")): each for each in map(json.loads, events.read_text().splitlines())}
    rows = {row["backbone"]: (row["outcome"], row["licence"]) for row in sent["table", "ranking"]["rows"]}
    assert rows == {"onnx (first.onnx)": ("wins", "MIT"), "onnx (second.onnx)": ("cannot win", "GPL-3.0-only")}
    assert sent["image", "ranking-picture"]["data"].startswith("iVBOR")  # a PNG


def test_a_candidate_that_cannot_be_loaded_is_named(begun: Begun) -> None:
    with pytest.raises(ParamError, match=r"^rank.backbones has 'onnx \(first.onnx\)': .* has SHA-256 .* was expected"):
        begun.ranked(begun.params({**begun.first, "sha256": "ab" * 32}))


def test_what_is_odd_about_a_candidate_is_told_with_its_name(begun: Begun, capsys: pytest.CaptureFixture[str]) -> None:
    graph = graphs.nchw()
    for value in graph.graph.initializer:
        if value.name == "w2":
            value.raw_data = np.zeros(tuple(value.dims), np.float32).tobytes()
    begun.ranked(begun.params(begun.first, candidate(begun.root / "odd.onnx", graph, "MIT")))
    said = capsys.readouterr()
    assert "warning: onnx (odd.onnx): 12 of 12 of the features of the level 'last'" in said.out + said.err
    assert "warning: onnx (first.onnx)" not in said.out + said.err


def test_candidates_of_one_name_are_told_apart(begun: Begun) -> None:
    given = [{"name": "resnet18", "weights": "random"}, {"name": "resnet18", "weights": "random", "input_px": 64}]
    twice = [begun.first, {**begun.first, "licence": "ISC"}]
    params = begun.params({"name": "resnet18"}, *given, *twice)
    assert labels(params.rank.backbones) == [
        "resnet18",
        "resnet18 (random)",
        "resnet18 (random, 64 px)",
        "onnx (first.onnx) #4",
        "onnx (first.onnx) #5",
    ]
