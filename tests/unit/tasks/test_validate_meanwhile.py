"""Files that change, come and go while `validate` runs: DVC notes them as they are after it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.base import changed
from headstart.base.errors import DataError
from headstart.base.files import sha256_of
from headstart.base.validation import ValidationSummary
from headstart.images.decoding import read_unchanged
from headstart.layout import Layout
from tasks import __main__ as launcher
from tasks import split, validate
from tests.support.images import encoded, photograph
from tests.support.validation import Folders, run


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "project")


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Let a function be called, with a running number, whenever all files have been looked at."""

    def call(change: Callable[[int], None]) -> None:
        look, times = validate.look_at_all, iter(range(100))

        def look_and_change(*arguments: object) -> object:
            found = look(*arguments)
            change(next(times))
            return found

        monkeypatch.setattr(validate, "look_at_all", look_and_change)

    return call


CHANGES = {
    "rewritten": lambda root: (root / "ants" / "000.png").write_bytes(encoded(photograph(77))),
    "rewritten, with its times": lambda root: rewrite_in_secret(root / "ants" / "000.png"),
    "added": lambda root: (root / "ants" / "new.png").write_bytes(encoded(photograph(78))),
    "removed": lambda root: (root / "ants" / "000.png").unlink(),
    "renamed": lambda root: (root / "ants" / "000.png").rename(root / "ants" / "other.png"),
}


def rewrite_in_secret(file: Path) -> None:
    before = file.stat()
    file.write_bytes(encoded(photograph(77)))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_meanwhile_is_looked_at_again(
    class_folders: Folders,
    layout: Layout,
    meanwhile: Callable[[Callable[[int], None]], None],
    change: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = class_folders(ants=4, bees=4)
    meanwhile(lambda time: CHANGES[change](root) if time == 0 else None)
    manifest = run(root, layout)
    there = {path.relative_to(root).as_posix(): sha256_of(path) for path in root.rglob("*.png")}
    assert dict(manifest.select("path", "image_id").iter_rows()) == there
    assert ValidationSummary.of(layout).n_images == len(there)
    assert " changed meanwhile (" in capsys.readouterr().out


def test_a_file_that_is_another_one_each_time_ends_the_stage_and_nothing_is_written(
    class_folders: Folders, layout: Layout, meanwhile: Callable[[Callable[[int], None]], None]
) -> None:
    root = class_folders(ants=4, bees=4)
    meanwhile(lambda time: (root / "ants" / "000.png").write_bytes(encoded(photograph(100 + time))) and None)
    with pytest.raises(DataError, match=r"1 file changes while it is read \(ants/000\.png\)"):
        run(root, layout)
    assert not layout.manifest.exists()


def test_files_that_stay_are_looked_at_once(class_folders: Folders, layout: Layout, meanwhile: object) -> None:
    times: list[int] = []
    meanwhile(times.append)
    run(class_folders(ants=4, bees=4), layout)
    assert times == [0]


def test_a_stage_that_finds_another_image_notes_it_and_validate_forgets_it(
    class_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders("project/photos", ants=4, bees=4)
    project = tmp_path / "project"
    monkeypatch.chdir(project)
    for name in ("params.yaml", "dvc.yaml", "reviewed.csv"):
        (project / name).write_bytes((Path(__file__).parents[3] / name).read_bytes())
    assert launcher.main(["set", "data.root=photos"]) == 0
    assert launcher.main(["validate"]) == 0
    image = root / "ants" / "000.png"
    monkeypatch.setattr(split, "run", lambda values, layout: read_unchanged(image, "0" * 64))
    assert launcher.main(["split"]) == 1
    assert "has changed since `validate` read it" in capsys.readouterr().err
    layout = Layout(project)
    assert changed.is_noted(layout.failed)
    assert launcher.main(["validate"]) == 0
    assert not changed.is_noted(layout.failed)
