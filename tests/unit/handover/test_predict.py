"""`headstart predict` as a process: how it ends, whatever becomes of its output, and what people see."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from headstart.commands import main as cli
from headstart.handover import cli as of_model
from headstart.handover.model import NOVEL_ABOVE, Answer
from tests.support.images import ROOT
from tests.support.processes import started

MODEL = ROOT / "tests" / "models" / "format-1"
PICTURES = ROOT / "tests" / "pictures"
PREDICT = [sys.executable, "-m", "headstart", "predict", str(MODEL)]
PICTURE = str(PICTURES / "baseline.jpg")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which $predict is the command; stdout ends with the statuses of its pipe."""
    environment = {**os.environ, "predict": " ".join(PREDICT)}
    command = ["bash", "-c", f'{line}; echo "${{PIPESTATUS[@]}}"']
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("n_images", [3, 3000])  # less than a pipe holds, and more
@pytest.mark.parametrize("output", ["", "--format csv", "--json"])
def test_a_reader_that_has_enough_ends_it_without_a_word(n_images: int, output: str) -> None:
    done = shell(f"for i in $(seq {n_images}); do echo {PICTURE}; done | $predict - {output} | true")
    assert done.stderr == ""
    assert done.stdout.split()[1] in ("0", "1")  # 0: the reader was slower


def test_a_reader_that_has_enough_of_both_streams_too() -> None:
    assert shell("$predict nowhere.jpg nowhere.png 2>&1 | true").stderr == ""


@pytest.mark.parametrize("output", ["", "--format csv", "--json"])
def test_a_full_disk_is_told(output: str) -> None:
    done = shell(f"$predict {PICTURE} {output} > /dev/full")
    assert done.stdout == "1\n"
    assert done.stderr == (
        "predict: the output cannot be written: No space left on device. Send it to a place that has room.\n"
    )


def test_without_an_output_it_runs_to_its_end() -> None:
    done = shell(f"$predict {PICTURE} >&-")
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_ctrl_c_is_told_in_a_line() -> None:
    many = "\n".join([PICTURE] * 100_000)
    with started(
        [*PREDICT, "-", "--json"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(many)
        process.stdin.close()
        assert process.stdout.readline().startswith('{"path"')  # it is at work
        rest: list[str] = []
        reader = Thread(target=lambda: rest.extend(process.stdout or []))
        reader.start()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        reader.join()
        assert process.stderr.read() == "predict: interrupted\n"
        assert all(line.endswith("}\n") for line in rest)


def test_the_files_of_a_folder_that_are_no_images_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PICTURE, tmp_path / "one.jpg")
    (tmp_path / "more").mkdir()
    for name in ("README.md", "Thumbs.db", "more/list.csv", "more/z.txt"):
        (tmp_path / name).write_text("no image")
    assert cli.main(["predict", str(MODEL), str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err == (
        f"predict: 4 files that are no images are skipped in {tmp_path}: README.md, Thumbs.db, more/list.csv, ...\n"
    )


def test_the_table_shows_novelty_where_the_label_may_mean_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    novelties = iter([NOVEL_ABOVE - 0.01, NOVEL_ABOVE + 0.005, None])

    class Fake:
        bits = 16

        def __init__(self, path: Path) -> None: ...

        def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
            return {"probabilities": np.full((len(images), 1), 0.75)}

        def answers(self, outputs: dict[str, np.ndarray], top: int) -> list[Answer]:
            return [
                Answer(
                    [
                        ("ant", value),
                    ][:top],
                    False,
                    next(novelties),
                )
                for (value,) in outputs["probabilities"]
            ]

    monkeypatch.setattr(of_model, "Model", Fake)
    assert cli.main(["predict", str(MODEL), *[PICTURE] * 3]) == 0
    familiar, novel, untold = capsys.readouterr().out.splitlines()
    assert familiar == untold == f"{PICTURE}  ant 0.7500"
    assert novel == f"{PICTURE}  ant 0.7500  novelty 0.995"
    assert not re.search(r"\x1b", novel)
