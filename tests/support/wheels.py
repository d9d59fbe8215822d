"""A wheel of the working tree as it is, and an environment of its own that it is installed in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.images import ROOT

UV = str(Path(sys.executable).parent / "uv")


def built_wheel(folder: Path) -> Path:
    """Build the sdist and, from that, the wheel, as `uv build` does, from a copy of the tracked and new files."""
    source = folder / "source"
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\0"):
        if name and not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    subprocess.run([UV, "build", "--quiet", "--out-dir", str(folder / "dist"), str(source)], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def installed(wheel: Path, folder: Path, *extras: str) -> Path:
    """Install a wheel with the pinned versions of its dependencies; return the new environment's folder of commands."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    wanted = f"headstart[{','.join(extras)}] @ {wheel.as_uri()}"
    command = [UV, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), wanted]
    subprocess.run([*command, "--constraint", str(ROOT / "requirements.lock")], check=True)
    return folder / "bin"


def bare_environment(commands: Path, home: Path) -> dict[str, str]:
    """Return a shell's environment with these commands, and nothing of this checkout."""
    path = os.pathsep.join([str(commands), "/usr/local/bin", "/usr/bin", "/bin"])
    home.mkdir(exist_ok=True)
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "PREFECT_HOME": str(home / "prefect")}
