"""`headstart new` where something goes wrong: nothing is left, and nothing is lost that was there before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headstart.commands.main import main
from tests.support.projects import write_photographs


def there(folder: Path) -> dict[str, bytes]:
    """Return every file, links followed."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of one who has told DVC to link files, since that saves space, and git a name."""
    home = tmp_path / "home"
    home.mkdir()
    for name, value in {
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "GIT_CONFIG_NOSYSTEM": 1,
        "DVC_GLOBAL_CONFIG_DIR": home,
    }.items():
        monkeypatch.setenv(name, str(value))
    (home / ".gitconfig").write_text("[user]\n  name = a\n  email = a@example.org\n")
    command = [sys.executable, "-P", "-m", "dvc", "config", "--global", "cache.type", "symlink"]
    subprocess.run(command, check=True, capture_output=True)
    return home


def test_a_commit_that_git_refuses_leaves_the_folder_and_its_images_as_they_were(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".gitconfig").write_text("[commit]\n  gpgsign = true\n[gpg]\n  program = /bin/false\n")
    project = tmp_path / "project"
    write_photographs(project / "photos", 4)
    (project / ".gitignore").write_text("/mine\n")
    before = there(project)
    assert main(["new", str(project), "--data", str(project / "photos")]) == 1
    assert there(project) == before
    assert "`git commit` failed" in capsys.readouterr().err
    assert sorted(path.name for path in project.iterdir()) == [".gitignore", "photos"]
    (home / ".gitconfig").unlink()
    assert main(["new", str(project), "--data", str(project / "photos")]) == 0  # by one who has told git no name
    log = subprocess.run(
        ["git", "log", "--format=%s", "--name-only"], cwd=project, text=True, capture_output=True, check=True
    ).stdout.split("\n")
    assert log[0] == "A new headstart project"
    assert {"photos.dvc", ".gitignore", "headstart.json", ".dvc/config"} <= set(log[2:])
    status = subprocess.run(["git", "status", "--short"], cwd=project, text=True, capture_output=True, check=True)
    assert status.stdout == ""


@pytest.mark.parametrize("folder", ["file/project", "made/project"])
def test_a_folder_or_images_that_cannot_be_used_are_told_in_words_and_nothing_is_left(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["new", folder, "--data", "empty"]) == 1
    said = capsys.readouterr().err
    assert ("cannot be made (Not a directory)" if folder.startswith("file") else "holds no image") in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
