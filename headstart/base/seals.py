"""Digests of what stages write, so that a stage notices an input that has changed since.

DVC compares digests before it runs a stage; a stage that is run by hand has only these. Tables carry their own, see
`tables`, as do the shards of a store and the records that are an output by themselves, `records.Sealed`; a
finished model has its own list. A folder without a list is taken as it is: an earlier version wrote it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from headstart.base import files
from headstart.base.errors import CheckError
from headstart.base.files import sha256_of, write_text

SUMS = "sums.sha256"  # as `sha256sum --check` reads it, to which the last line is a comment
_OWN = re.compile(r"shard-\d+-of-\d+\.safetensors")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def check(root: Path, stage: str) -> None:
    """Raise CheckError if a folder that the stage reads is not as the stage before has written it."""
    dag = _dag(root)
    makers = {out: name for name in dag for out in _outputs(dag, name)}
    for name in dag.get(stage, {}).get("deps", []):
        folder = root / str(name)
        if name in makers and folder.is_dir():
            _check_folder(folder, makers[name])


def sweep(root: Path, stage: str) -> None:
    """Remove what a killed run of the stage has left half-written beside its outputs."""
    for name in _outputs(_dag(root), stage):
        files.sweep(root / name)


def write(root: Path, stage: str) -> None:
    """Note the digests of the files in each folder that the stage has written, unless it has noted them itself."""
    for name in _outputs(_dag(root), stage):
        folder = root / name
        if folder.is_dir() and name.startswith("artifacts/") and not _has_its_own(folder):
            lines = [f"{sha256_of(folder / each)}  {each}\n" for each in _files(folder)]
            write_text(folder / SUMS, "".join([*lines, f"{_end(len(lines))}\n"]))


def _check_folder(folder: Path, maker: str) -> None:
    to_do = f"Run `dvc repro --force {maker}`."
    sums = folder / SUMS
    if not sums.is_file():
        return
    *listed, end = sums.read_bytes().decode("utf-8", "replace").splitlines() or [""]
    lines = [_LINE.fullmatch(line) for line in listed]
    found = {line[2]: line[1] for line in lines if line}
    if end != _end(len(found)) or None in lines or not all((folder / name).is_file() for name in found):
        raise CheckError(f"{sums} is not as {maker} wrote it, or a file that it lists is missing. {to_do}")
    for name, digest in found.items():
        if sha256_of(folder / name) != digest:
            raise CheckError(f"{folder / name} is damaged: its bytes have changed since {maker} wrote them. {to_do}")


def _end(n_files: int) -> str:
    """Return the last line of a list, by which a cut one is noticed."""
    return f"# {n_files} files"


def _has_its_own(folder: Path) -> bool:
    """Return whether the stage has listed its files itself: those of a model, whose list goes where the model goes."""
    return any(folder.glob("SHA256*"))


def _files(folder: Path) -> list[str]:
    """Return the sorted names of the files in a folder and below, without those that carry their own digest."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != SUMS and not _OWN.fullmatch(name.rpartition("/")[2]))


def _dag(root: Path) -> dict[str, Any]:
    """Return the stages of dvc.yaml; none if it cannot be read, which DVC tells."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        stages = YAML(typ="safe").load(root / "dvc.yaml")["stages"]
    except (OSError, YAMLError, KeyError, TypeError):
        return {}
    return dict(stages) if isinstance(stages, dict) else {}


def _outputs(dag: dict[str, Any], stage: str) -> list[str]:
    """Return the paths that a stage writes."""
    outs = dag.get(stage, {}).get("outs", [])
    return [str(each if isinstance(each, str) else next(iter(each))) for each in outs]
