"""The benchmarks run by hand; what is held here is that they start, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.images import ROOT, encoded, photograph

WITHOUT_DATA = (
    *("audit", "flow_overhead", "head_kinds", "head_scale", "head_sweep", "hostile_clients", "label_next", "latency"),
    *("many_classes", "monitor", "row_cache", "runtimes"),
)
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "harness")


def said_by(*words: str) -> str:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_what_it_measures_and_is_part_of_make_bench(name: str) -> None:
    said = said_by(f"benchmarks.{name}", "--help")
    assert ("--data" in said) == (name not in WITHOUT_DATA)
    assert name in (ROOT / "Makefile").read_text()


def test_a_benchmark_ends_with_its_results_as_json(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(photograph(number), "JPEG"))
    lines = said_by("benchmarks.decode", "--data", str(tmp_path), "--repeats", "1").splitlines()
    results = [json.loads(line) for line in lines[-2:]]
    assert all(set(result) == {"name", "value", "unit", "target", "met"} for result in results)
    assert results[1] == {
        "name": "decode_share_of_images_with_pillows_bytes",
        "value": 1.0,
        "unit": "",
        "target": 1.0,
        "met": True,
    }
