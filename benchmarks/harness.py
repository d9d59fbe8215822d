"""What the benchmarks share: arguments, a temporary copy of the project, more files from few, tables and results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from headstart.store.cache import VARIABLE

ROOT = Path(__file__).resolve().parents[1]


def arguments(doc: str | None, **options: object) -> argparse.Namespace:
    """Return the command line's `--data FOLDER` (unless `data=False`), and an option for each other keyword."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    if options.pop("data", True):
        parser.add_argument("--data", type=Path, required=True, help="a folder of labelled photographs")
    for name, default in options.items():
        kind = type(default[0]) if isinstance(default, list) else type(default)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, default=default, nargs="+" if isinstance(default, list) else None
        )
    given = parser.parse_args()
    if hasattr(given, "data"):
        given.data = given.data.resolve()
        if not given.data.is_dir():
            parser.error(f"--data is '{given.data}', which is no folder")
    return given


@contextmanager
def project() -> Iterator[Path]:
    """Yield a temporary copy of the project as it is, in a repository and with a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as folder, _own_cache():
        root = Path(folder)
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in listed.split("\0"):
            if name and name != "dvc.lock" and (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        run(root, "git", "init", "--quiet")
        yield root


@contextmanager
def _own_cache() -> Iterator[None]:
    """Let nothing that is measured be found in the machine's cache, nor enter it."""
    with tempfile.TemporaryDirectory(prefix="headstart-cache-") as folder:
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = folder
        try:
            yield
        finally:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


def assign(root: Path, **assignments: object) -> None:
    """Set parameters of the copy; a double underscore stands for the dot."""
    run(root, "python", "-m", "tasks", "set", *(f"{n.replace('__', '.')}={value}" for n, value in assignments.items()))


def run(root: Path, *command: str) -> tuple[float, str]:
    """Run a command in `root`; return its wall time in seconds and what it printed. It has to succeed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    foreign = ("MAKE", "MFLAGS", "PYTHONDONTWRITEBYTECODE")  # of whoever runs this, not of a user's machine
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=root,
        env={**inherited, "PATH": path, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")
    return seconds, done.stdout


def multiplied(data: Path, folder: Path, n_images: int, first: int = 0) -> None:
    """Write `n_images` distinct JPEGs below `folder`, in the class folders of `data`.

    Each is a photograph of `data` with its number behind the end of the image: other bytes, the same work.
    """
    originals = sorted(path for path in data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not originals:
        sys.exit(f"{data} holds no JPEG below class folders")
    for number in range(first, first + n_images):
        original = originals[number % len(originals)]
        (folder / original.parent.name).mkdir(parents=True, exist_ok=True)
        copy = folder / original.parent.name / f"{number:08d}.jpg"
        copy.write_bytes(original.read_bytes() + number.to_bytes(8, "big"))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print()
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
    print(flush=True)


def machine() -> str:
    """Return the processor's name and the number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores; only ratios travel to another machine"


def result(name: str, value: float, unit: str, target: float | None, is_met: bool | None) -> None:
    """Print one line of JSON, the last thing that a benchmark says for each of its targets."""
    print(
        json.dumps({"name": name, "value": round(value, 4), "unit": unit, "target": target, "met": is_met}), flush=True
    )
