"""Put the exported model where it is used.

Reads artifacts/export; writes artifacts/model, the same files. DVC removes a stage's outputs before it runs them, but
artifacts/model must be whole at every moment, also while a run is at work or after one was killed. So it is replaced
in one step, by a stage of its own whose output DVC leaves alone.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from headstart.base import disk
from headstart.base.errors import CheckError
from headstart.base.files import existing, replacing_folder, sha256_of
from headstart.base.progress import say
from headstart.onnx import model_folder

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.layout import Layout
    from headstart.params import Params


def run(params: Params, layout: Layout) -> None:
    """Check and copy."""
    check_sums(layout.export)
    n_bytes = sum(path.stat().st_size for path in layout.export.rglob("*"))
    disk.check_room(layout.model, n_bytes, "the new model beside the present one")
    with replacing_folder(layout.model) as beside:
        shutil.copytree(layout.export, beside, dirs_exist_ok=True, copy_function=shutil.copyfile)
        check_sums(beside)
    say(f"{layout.model.relative_to(layout.root)} is the new model")


def check_sums(folder: Path) -> None:
    """Raise CheckError unless every file has the SHA-256 that `export` wrote down."""
    for line in existing(folder / model_folder.SUMS, "export").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if sha256_of(existing(folder / name, "export")) != digest:
            raise CheckError(
                f"{folder / name} is not what `export` wrote. SHA-256 {digest[:12]}.. was expected. Run `dvc repro"
                " --force export`."
            )
