"""Images that lie in a project are given to DVC, so that experiments in a queue, branches and clones have them too.

DVC runs an experiment of `--temp` or `--queue` in a copy of what git tracks, where images that only lie beside it are
missing; and `git add .` would put every image into git.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from headstart.base import progress

_SHARE = 10  # DVC's copy may take a tenth of the free disk without being asked for


def track(root: Path, data: str, dvc: Callable[..., int]) -> None:
    """Run `dvc add` for a folder of images below `root` that nothing tracks yet, and say so, or say what would."""
    folder = root / data
    if "://" in data or Path(data).is_absolute() or not folder.is_dir() or not folder.resolve().is_relative_to(root):
        return
    name = Path(data).as_posix()
    pointer = f"{name}.dvc"
    if not _git(root, "rev-parse", "--git-dir") or _is_tracked(root, folder):
        return
    progress.begin("run")
    if _git(root, "check-ignore", "--quiet", pointer):
        progress.say(
            f"{name} is in the project, but git ignores {pointer}, so queued experiments and clones will not have the"
            " images. Move them to a folder that .gitignore does not name"
        )
        return
    n_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if n_bytes > shutil.disk_usage(root).free / _SHARE:
        progress.say(
            f"{name} is in the project, and neither git nor DVC tracks it: queued experiments and clones will not have"
            f" the images. `dvc add {name}` changes that; its copy takes {n_bytes / 1e9:.1f} GB"
        )
        return
    if dvc("add", "--quiet", name) == 0 and _git(root, "add", "--", pointer, str(Path(pointer).parent / ".gitignore")):
        progress.say(
            f"DVC tracks {name} now ({pointer}, `git add`ed), with a copy of {n_bytes / 1e6:.0f} MB in .dvc/cache:"
            f" queued experiments, branches and clones have the images. `dvc remove {pointer}` undoes it"
        )


def _is_tracked(root: Path, folder: Path) -> bool:
    """Return whether git or DVC knows the folder, one above it, or a file in it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    for each in (folder, *folder.parents):
        if each == root:
            break
        if each.with_name(f"{each.name}.dvc").exists():
            return True
    try:
        stages = YAML(typ="safe").load(root / "dvc.yaml")["stages"].values()
    except (YAMLError, TypeError, KeyError):
        return True  # DVC will say what is wrong with its file
    outs = [out if isinstance(out, str) else next(iter(out)) for stage in stages for out in stage.get("outs", [])]
    if any(folder.is_relative_to(root / out) for out in outs):
        return True
    listed = subprocess.run(
        ["git", "ls-files", "--", str(folder)], cwd=root, capture_output=True, text=True, check=False
    )
    return bool(listed.stdout.strip())


def _git(root: Path, *arguments: str) -> bool:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False).returncode == 0
