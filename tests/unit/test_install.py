"""The set-up: what it checks before it downloads, what it installs, and what it shows of uv's many lines."""

from __future__ import annotations

import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.images import ROOT

_spec = importlib.util.spec_from_file_location("install", ROOT / "tools" / "install.py")
assert _spec is not None and _spec.loader is not None
install = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(install)

UV_SAYS = """\
Using Python 3.11.7 environment at: .venv
Resolved 231 packages in 9.16s
Downloading torch (800.0MiB)
Downloading numpy (16.0MiB)
 Downloaded numpy
 Downloaded torch
Prepared 2 packages in 3.00s
Installed 2 packages in 12ms
Bytecode compiled 9 files in 1.00s
 + numpy==2.4.6
 + headstart==0.1.0 (from file:///work/headstart)
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_that_is_written_over_and_a_pipe_none() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    assert install.narrate(UV_SAYS.splitlines(keepends=True), terminal) == []
    assert "downloaded 0.9 of 0.9 GB" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert install.narrate(UV_SAYS.splitlines(keepends=True), pipe) == []
    assert pipe.getvalue() == ""


def test_what_uv_says_of_an_error_is_kept() -> None:
    said = install.narrate(
        ["Resolved 3 packages in 1s\n", "error: Failed to fetch: `https://x`\n", "\n"], io.StringIO()
    )
    assert said == ["error: Failed to fetch: `https://x`"]


def test_another_build_of_pytorch_keeps_the_version_and_everything_else_its_digests() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert install.constraints(lock, None) == lock
    blocks = re.split(r"^(?=[a-z0-9])", install.constraints(lock, "cpu"), flags=re.MULTILINE)[1:]
    bare = [block.strip() for block in blocks if "--hash=" not in block]
    pinned = re.findall(r"^(torch(?:vision)?==[\d.]+)", lock, re.MULTILINE)
    assert len(bare) == 2
    assert bare == pinned
    names = [block.partition("==")[0] for block in blocks]
    assert names == re.findall(r"^([a-z0-9][\w.-]*)==", lock, re.MULTILINE)


def test_the_pipeline_needs_no_tool_of_the_tests_and_every_extra_has_a_name() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(install.extras_of(ROOT / "pyproject.toml")) == set(extras)
    assert {install.PIPELINE, install.TOOLS} <= set(extras)
    wanted = " ".join(extras[install.PIPELINE])
    for name in ("pytest", "mypy", "ruff", "openvino", "distributed", "umap", "lightning"):
        assert name not in wanted


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The files that set up, as a ZIP of the repository has them: without git."""
    root = tmp_path / "headstart-main"
    (root / "tools").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "tools/install.py"):
        shutil.copy(ROOT / name, root / name)
    return root


def make(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", f"PYTHON={sys.executable}", *arguments], cwd=root, stdout=-1, stderr=-2, text=True, check=False
    )


def test_a_zip_without_git_is_told_what_to_do_before_anything_is_installed(unpacked: Path) -> None:
    for target in ("run", "setup", "test"):
        done = make(unpacked, target)
        assert done.returncode != 0
        assert "is not a git repository" in done.stdout
        assert 'git init && git add --all && git commit -m "headstart"' in done.stdout
        assert not (unpacked / ".venv").exists()


def test_a_repository_of_another_user_is_told_in_gits_words(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "init", "--quiet"], cwd=unpacked, check=True)
    subprocess.run(["git", *author, "commit", "--quiet", "--allow-empty", "-m", "a"], cwd=unpacked, check=True)
    install.check_machine(unpacked)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("HOME", str(unpacked.parent))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    with pytest.raises(install.InstallError, match=r"git config --global --add safe\.directory") as error:
        install.check_machine(unpacked)
    assert "git init" not in str(error.value)


def test_a_python_without_venv_is_told_and_a_half_made_environment_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "VENV", tmp_path / ".venv")
    python = tmp_path / ".venv/bin/python"
    fake = tmp_path / "python3"
    fake.write_text(f"#!/bin/sh\nmkdir -p {python.parent}; touch {python}; echo 'apt install python3-venv'; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    for _ in range(2):
        with pytest.raises(install.InstallError, match=r"(?s)apt install python3-venv.*cannot make \.venv"):
            install.install(["pipeline"], None)


def test_an_interrupted_set_up_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "check_machine", interrupted)
    monkeypatch.setattr(sys, "argv", ["install.py"])
    assert install.main() == 130
    assert "interrupted" in capsys.readouterr().err


def test_an_extra_that_is_none_is_refused_before_anything_is_installed(unpacked: Path) -> None:
    done = make(unpacked, "setup", "EXTRAS=openvinno")
    assert done.returncode != 0
    assert "'openvinno' is not an extra. One of pipeline, backbones, cluster, openvino" in done.stdout
    assert not (unpacked / ".venv").exists()


def test_make_hands_on_what_was_asked_for(unpacked: Path) -> None:
    def does(*arguments: str) -> str:
        return make(unpacked, "--dry-run", *arguments).stdout

    assert re.search(
        r"tools/install.py openvino umap --torch cpu$", does("setup", "EXTRAS=openvino umap", "TORCH=cpu"), re.M
    )
    assert re.search(r"tools/install.py *$", does("run"), re.M)
    assert re.search(r"tools/install.py --tests *$", does("test"), re.M)
