from __future__ import annotations

from pathlib import Path

import pytest

from headstart.base.errors import CheckError
from headstart.base.records import Digest, Record, read_each, write_each


class Scores(Record):
    accuracy: float
    n_images: int
    best: str | None


class Named(Record):
    digest: Digest
    scores: Scores


GOOD = Scores(accuracy=1, n_images=3, best=None)


def test_a_record_comes_back_as_it_went_in_the_order_of_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    GOOD.write(path)
    assert path.read_text() == '{\n  "accuracy": 1.0,\n  "n_images": 3,\n  "best": null\n}\n'
    assert Scores.read(path, "evaluate") == GOOD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ('{"accuracy": 1, "n_images": 3}', "best: Field required"),
        ('{"accuracy": 1, "n_images": 3, "best": null, "more": 1}', "more: Extra inputs are not permitted"),
        ('{"accuracy": "high", "n_images": 3.5, "best": 7}', r"accuracy: Input should be a valid number, and 2 more"),
        ('{"accuracy": NaN, "n_images": 3, "best": null}', "accuracy: Input should be a finite number"),
    ],
)
def test_another_content_is_refused_with_the_reason_and_the_stage(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(CheckError, match=rf"is not what the stage evaluate writes \(.*{said}.*--force evaluate`"):
        Scores.read(path, "evaluate")


def test_a_missing_file_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"is missing\. The stage evaluate makes it"):
        Scores.read(tmp_path / "scores.json", "evaluate")


def test_a_digest_is_a_sha256(tmp_path: Path) -> None:
    path = tmp_path / "named.json"
    Named(digest="ab" * 32, scores=GOOD).write(path)
    assert Named.read(path, "x").scores == GOOD
    path.write_text(path.read_text().replace("abab", "XYab"))
    with pytest.raises(CheckError, match="digest: String should match pattern"):
        Named.read(path, "x")


def test_an_artefact_may_hold_a_record_for_each_name(tmp_path: Path) -> None:
    path = tmp_path / "each.json"
    write_each(path, {"ants": GOOD, "bees": GOOD.model_copy(update={"n_images": 5})})
    found = read_each(path, Scores, "evaluate")
    assert found["bees"].n_images == 5
    path.write_text('{"ants": {}}')
    with pytest.raises(CheckError, match=r"ants\.accuracy: Field required, and 2 more"):
        read_each(path, Scores, "evaluate")
