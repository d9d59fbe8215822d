"""The kept corpus of `make fuzz`, and a second of mutations: no input ends but in a result or an error in a line."""

from __future__ import annotations

import pytest

from tests.support.fuzzing import CORPUS, TARGETS, fuzzed, target


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus_ends_well(name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert files
    with target(name) as run:
        for file in files:
            run(file.read_bytes())


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "http"])
def test_a_second_of_mutations_finds_nothing(name: str) -> None:
    found = fuzzed(name, 1.0, seed=1)
    assert found.n_tried > 3
    assert found.findings == []
