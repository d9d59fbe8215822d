"""Values written into params.yaml: what is read back is what was wanted, whatever stood there before."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import params_file, params_text
from tests.support.images import ROOT

SHIPPED = (ROOT / "params.yaml").read_text()
NAMES = [f"{section}.{name}" for section, values in params_text.plain(SHIPPED).items() for name in values]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(["null", "1e-4", "- a", "a: b", "# c", "a # b", "'", "[", "2024-01-01", "yes", "~", " x ", "%a"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc:# -1", max_size=4), inner, max_size=3),
    max_leaves=6,
)
AS_BLOCK = """\
rank:                        # compares
  backbones:                 # names
  - resnet18
  - name: b                  # the other
    weights: default

finetune:
  enabled: false             # true: train
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED)
    return path


def outcome(before: Any, values: dict[str, Any]) -> Any:
    expected = copy.deepcopy(before)
    for name, value in values.items():
        section, last = params_text.place(expected, name)
        section[last] = value
    return expected


FEW = """\
a:                           # some
  b: 1                       # values
  "c": [x, {y: z}]

  d: {}  # last of a
# between
e:
  f:
    - 1
    - g: 2
      h: [3]                 # of h

  i: |
    text

j: {k: null}
"""


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a.b", "a.c", "a.d", "e.f", "e.i", "j.k"]), VALUES), min_size=1, max_size=3))
def test_values_are_read_back_as_they_were_given_and_nothing_else_changes(steps: list[tuple[str, Any]]) -> None:
    text = FEW
    for name, value in steps:
        expected = outcome(params_text.plain(text), {name: value})
        after = params_text.with_values(text, {name: value})
        assert after is not None
        assert repr(params_text.plain(after)) == repr(expected)
        text = after
    assert "# some\n" in text
    assert "\n# between\ne:\n  f:" in text


@settings(max_examples=8, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=6))
def test_any_values_can_be_put_into_the_shipped_file_and_taken_out_again(values: dict[str, Any]) -> None:
    first = params_text.plain(SHIPPED)
    text = params_text.with_values(SHIPPED, values)
    assert text is not None
    assert repr(params_text.plain(text)) == repr(outcome(first, values))
    back = params_text.with_values(text, {name: of(first, name) for name in values})
    assert back is not None
    assert repr(params_text.plain(back)) == repr(first)
    assert [line for line in back.splitlines() if line.lstrip().startswith("#")] == [
        line for line in SHIPPED.splitlines() if line.lstrip().startswith("#")
    ]


def of(document: Any, name: str) -> Any:
    section, last = params_text.place(document, name)
    return section[last]


@pytest.mark.parametrize("value", [[], ["a"], None, 3, {"a": 1}])
def test_a_list_in_lines_gives_way_and_the_next_section_stays(value: Any) -> None:
    after = params_text.with_values(AS_BLOCK, {"rank.backbones": value})
    assert after is not None
    assert params_text.plain(after) == {"rank": {"backbones": value}, "finetune": {"enabled": False}}
    assert after.startswith("rank:                        # compares\n  backbones: ")
    assert "# names\n\nfinetune:\n  enabled: false             # true: train\n" in after


def test_a_list_set_and_emptied_again_leaves_the_shipped_file(file: Path) -> None:
    for value in ("[resnet18]", "[]"):
        params_file.assign(file, [f"rank.backbones={value}"])
    assert file.read_text() == SHIPPED


def test_the_command_empties_a_list_that_is_written_in_lines(file: Path) -> None:
    lines = "  backbones:\n  - resnet18\n  - resnet50\n\nfinetune:"
    text = SHIPPED.replace("  backbones: []  ", "  moved: []  ")
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("  moved", "  max_ms: n"))) + "\n"
    text = text.replace("\nfinetune:", f"  max_ms: null\n{lines}", 1).replace("\n\n  max_ms", "\n  max_ms")
    file.write_text(text)
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*values: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tasks", "set", *values]
        return subprocess.run(command, cwd=file.parent, env=variables, capture_output=True, text=True, check=False)

    done = run("rank.backbones=[]")
    assert (done.returncode, done.stderr) == (0, "")
    assert params_file.load(file).rank.backbones == ()
    assert run().returncode == 0


def test_a_name_and_its_alias_keep_their_own_values() -> None:
    text = "split:\n  seed: &seed 1\nrank:\n  seed: *seed\n"
    for name, expected in (("rank.seed", (1, 5)), ("split.seed", (5, 1))):
        after = params_text.with_values(text, {name: 5})
        assert after is not None
        values = params_text.plain(after)
        assert (values["split"]["seed"], values["rank"]["seed"]) == expected
