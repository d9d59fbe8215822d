"""What a run's overrides leave in params.yaml."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows import overrides
from flows.overrides import applied, journal, withdraw
from flows.request import Override, Request
from headstart import params_file
from headstart.base.errors import ParamError
from headstart.layout import Layout
from tests.support.images import ROOT

FOLDS = [Override(name="train_head.folds", value="3"), Override(name="split.seed", value="9")]


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(overrides, "get_run_logger", lambda: logging.getLogger("run"))
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return Layout(tmp_path)


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_overrides_end_with_the_run_however_it_ends(layout: Layout, ending: type[BaseException] | None) -> None:
    before = layout.params.read_bytes()

    def run() -> None:
        with applied(Request(overrides=FOLDS), layout) as values:
            assert (values.train_head.folds, values.split.seed) == (3, 9)
            assert params_file.load(layout.params) == values
            if ending:
                raise ending

    if ending:
        with pytest.raises(ending):
            run()
    else:
        run()
    assert layout.params.read_bytes() == before
    assert not journal(layout.root).exists()


def test_kept_overrides_stay(layout: Layout) -> None:
    with applied(Request(overrides=FOLDS, keep=True), layout):
        pass
    assert params_file.load(layout.params).train_head.folds == 3
    assert withdraw(layout) == []
    assert params_file.load(layout.params).train_head.folds == 3


def test_nothing_to_override_touches_nothing(layout: Layout) -> None:
    before = layout.params.stat()
    with applied(Request(), layout):
        pass
    assert layout.params.stat() == before


def test_a_wrong_override_writes_nothing(layout: Layout) -> None:
    before = layout.params.stat()
    with pytest.raises(ParamError, match=r"split\.seed is -1"), applied(Request(overrides=[FOLDS[0], minus()]), layout):
        pass
    assert layout.params.stat() == before
    assert not journal(layout.root).exists()


def minus() -> Override:
    return Override(name="split.seed", value="-1")


def test_an_edit_during_the_run_stays(layout: Layout) -> None:
    before = params_file.load(layout.params)
    with applied(Request(overrides=FOLDS), layout):
        params_file.assign(layout.params, ["embed.views=2", "split.seed=4"])
        layout.params.write_text("# a new comment\n" + layout.params.read_text())
    after = params_file.load(layout.params)
    assert after.train_head.folds == before.train_head.folds
    assert (after.embed.views, after.split.seed) == (2, 4)
    assert layout.params.read_text().startswith("# a new comment\n")


KILLED = """
import logging, os, signal
from pathlib import Path
from flows import overrides
from flows.request import Request
from headstart.layout import Layout

request = Request.model_validate({"overrides": [{"name": "train_head.folds", "value": "3"}]})
with overrides.applied(request, Layout(Path.cwd())):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_has_left_is_taken_out_and_named(layout: Layout) -> None:
    before = layout.params.read_bytes()
    shell = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=layout.root, env=shell)
    assert done.returncode == -signal.SIGKILL
    assert params_file.load(layout.params).train_head.folds == 3
    assert withdraw(layout) == ["train_head.folds"]
    assert layout.params.read_bytes() == before
    assert withdraw(layout) == []
