"""A project in a temporary folder: a real git and DVC repository, made by the commands that users type."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from tests.support.images import ROOT, encoded, photograph

# A network of 0.1 million numbers, so that what is timed here is the pipeline. Tests that need the default say so.
SETTINGS = (
    "data.root=photos",
    "backbone.name=test_efficientnet",
    "backbone.weights=random",
    "backbone.input_px=64",
    "evaluate.bootstrap_samples=100",
)
DEFAULT_BACKBONE = ("backbone.name=tf_efficientnet_lite0", "backbone.weights=bundled", "backbone.input_px=null")
CLASSES = {"ants": (40, -40, 0), "bees": (-40, 40, 0)}  # levels added to red, green, blue


@dataclass(frozen=True)
class Project:
    """A checkout, and the commands that run in it."""

    root: Path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command; stdout holds both streams."""
        foreign = ("PREFECT_", "DVC_", "MAKE", "MFLAGS")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        # A user's machine: no git identity, bytecode kept as usual, and home is elsewhere.
        home = {"HOME": str(self.root.parent), "PATH": path, "GIT_CONFIG_NOSYSTEM": "1", "PYTHONFAULTHANDLER": "1"}
        home["HEADSTART_CACHE"] = str(self.cache)
        return subprocess.run(
            command,
            cwd=self.root,
            env={**inherited, **home, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def must(self, *command: str, **environment: str) -> str:
        """Run a command that has to succeed and return what it printed."""
        done = self.run(*command, **environment)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    @property
    def cache(self) -> Path:
        """The cache of this project alone: a copy of the project has a copy of it."""
        return self.root / ".dvc" / "tmp" / "headstart"

    @property
    def lock(self) -> bytes:
        """dvc.lock, which names the digest of every input and output."""
        return (self.root / "dvc.lock").read_bytes()

    def artefacts(self) -> dict[str, str]:
        """Return the digest of every file that the stages have made, and of dvc.lock."""
        files = [*(self.root / "artifacts").rglob("*"), self.root / "dvc.lock"]
        return {
            path.relative_to(self.root).as_posix(): sha256(path.read_bytes()).hexdigest()
            for path in sorted(files)
            if path.is_file() and path.name not in ("timings.json", "README.md")
        }

    def copy(self, root: Path) -> Project:
        """Return a copy of everything, DVC's cache included."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)


def checkout(root: Path) -> Project:
    """Return a clone of the working tree as it is, with this environment in place of a .venv of its own."""
    root.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file() and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / ".venv").symlink_to(sys.prefix)
    for name in ("pyproject.toml", "requirements.lock"):
        os.utime(root / name, (0, 0))  # older than the environment, so that no `make` sets it up again for this clone
    project = Project(root)
    project.must("git", "init", "--quiet")
    project.must("git", "add", "--all")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    project.must("git", *author, "commit", "--quiet", "-m", "begin")
    return project


def write_photographs(folder: Path, n_images: int, first: int = 0) -> None:
    """Write `n_images` smooth pictures a class, ants reddish and bees greenish."""
    for label, tint in CLASSES.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + n_images):
            picture = photograph(number + 1000 * len(label) + ord(label[0]), 60 + number % 5, 80)
            tinted = np.clip(picture.astype(int) + tint, 0, 255).astype(np.uint8)
            (folder / label / f"{number:03d}.jpg").write_bytes(encoded(tinted, "JPEG"))


def begun(root: Path, *settings: str) -> Project:
    """Return a checkout with a few photographs, the quick `SETTINGS` and further ones; it has run nothing yet."""
    project = checkout(root)
    write_photographs(root / "photos", 12)
    project.must("python", "-m", "tasks", "set", *SETTINGS, *settings)
    return project
