from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from flows.pipeline import has_new_data

DAG = """
stages:
  validate:
    cmd: python code.py
    deps: [code.py, {root}]
    params: [number]
    outs: [out]
"""


@pytest.mark.parametrize("kind", ["photos", "photos/", "./photos", "absolute"])
def test_new_images_are_noticed_however_their_folder_is_written(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere" if kind == "absolute" else tmp_path / "project" / "photos"
    folder.mkdir(parents=True)
    (folder / "one.jpg").write_bytes(b"1")
    project = tmp_path / "project"
    project.mkdir(exist_ok=True)
    monkeypatch.chdir(project)  # as the flow does: DVC reads the dvc.yaml of the working folder
    (project / "code.py").write_text("open('out', 'w').write('x')")
    (project / "params.yaml").write_text("number: 1\n")
    (project / "dvc.yaml").write_text(DAG.format(root=folder if kind == "absolute" else kind))
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=project, check=True)

    def noticed() -> bool:
        with Repo(str(project)) as repo:
            return has_new_data(repo)

    assert noticed()  # there was no run yet
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=project, check=True)
    assert not noticed()
    (project / "params.yaml").write_text("number: 2\n")
    (project / "code.py").write_text("open('out', 'w').write('y')")
    assert not noticed()
    (folder / "two.jpg").write_bytes(b"2")
    assert noticed()
