"""`headstart new FOLDER [--data PHOTOS] [--set NAME=VALUE]`: a project of its own, ready to run.

Its dvc.yaml and params.yaml are derived from those of headstart's repository as shipped, so they cannot drift apart.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from headstart import params_file, reviewed
from headstart.base.errors import CheckError, ParamError
from headstart.commands import origin, record
from headstart.commands.run import dvc
from headstart.commands.track import track
from headstart.param_types import NO_IMAGES, NO_ROWS

_FILES = (
    *("params.yaml", "dvc.yaml", "prefect.yaml", "prefect.toml", "Makefile"),
    *(reviewed.NAME, NO_IMAGES, ".dvcignore", ".dvc/config"),
)
_HEADERS = {
    "dvc.yaml": """\
# The DAG of the pipeline. `headstart run` runs it, and so do `dvc repro` and `headstart flow`, which uses Prefect.
#
# Every stage depends on headstart.json: the version and the code of headstart that the results come from.
""",
    "params.yaml": """\
# Every parameter of the pipeline, one section a stage. A default is written here and nowhere else.
#
#   headstart run                        # runs the stages that a change affects, and no others
#   headstart set split.seed=1           # checks a new value, then writes it here; an editor will do too
#
# The sections that are changed most often stand first. In each section, what is rarely changed stands last.
""",
    "prefect.yaml": """\
# Deployments for a work pool of processes: `prefect --no-prompt deploy --all`, from this folder. They run in it.
# Secrets belong into Prefect's blocks, never here.
""",
}
_MAKEFILE = """\
# The usual commands by name. An environment in .venv is used if there is one, else the one that is active.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DO_NOT_TRACK := 1
.PHONY: help run review next flow serve status report accept push

help:      ## list the targets
\t@grep -hE '^[a-z]+: +##' $(MAKEFILE_LIST) | sed -E 's/: +## /\\t/' | expand -t 10

run:       ## run the pipeline; `make run DATA=folder` on other images
\t@headstart run $(if $(DATA),--data '$(DATA)')

review:    ## look at what the audit found, on a local page, and decide about it
\t@headstart review

next:      ## what to label next of images without labels, on a local page; `make next N=50`
\t@headstart next $(if $(N),--n '$(N)')

flow:      ## the same run under Prefect; `make flow DATA=folder`
\t@headstart flow $(if $(DATA),--data '$(DATA)')

serve:     ## the same every night at three, with Prefect's page
\t@headstart schedule

status:    ## what has changed, what would run
\t@headstart status

report:    ## open the report
\t@headstart report

accept:    ## tag this commit's model as the accepted one
\t@headstart accept

push:      ## send data, features and models to DVC's remote
\tdvc push
"""
_GITIGNORE = """\
# What the stages write: DVC tracks it, git does not.
/artifacts/
/data/
/dvc_plots/

/.venv
.env
__pycache__/
.DS_Store
"""
_GITIGNORE_OF_DVC = "/config.local\n/tmp\n/cache\n"
_UNNAMED = ("-c", "user.name=headstart", "-c", "user.email=headstart@localhost")  # of who has not told git a name


def new(options: argparse.Namespace) -> int:
    """Make the project; CheckError or ParamError, and nothing is left, if the folder or the images are unusable."""
    folder = Path(options.folder).expanduser().resolve()
    data = options.data and _data_root(options.data, folder)
    if any(each.partition("=")[0].strip() == "data.root" for each in options.set):
        raise ParamError("--set names data.root, which `headstart new` takes as --data PHOTOS.")
    _check_free(folder)
    undo = _undoing(folder)
    has_git = (folder / ".git").exists()
    try:
        _write(folder, data, options.set)
        if not has_git:
            _commit(folder)
    except BaseException:
        undo()
        raise
    if data:  # when nothing is undone any more: where DVC links files, its cache now holds the only copy of the images
        _give_to_dvc(folder, data, is_committed=not has_git)
    where = os.path.relpath(folder)
    print(f"new: {where} is a project now: {'the images at ' + data if data else 'the embedded handwritten digits'}")
    print(f"new: next, {'' if where == '.' else f'`cd {where}`, then '}`headstart run`")
    return 0


def _data_root(given: str, folder: Path) -> str:
    """Return data.root for a path given from the current folder: relative inside the project, else absolute."""
    if "://" in given:
        return given
    path = Path(given).expanduser().resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) and path != folder else path.as_posix()


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CheckError(f"{folder} is a file. A new or an empty folder was expected.")
    taken = [name for name in (*_FILES, record.NAME, ".dvc") if (folder / name).exists()]
    if taken:
        raise CheckError(
            f"{folder} has {taken[0]} already, so it may be a project. A folder without one was expected. Name another"
            " folder, or go there and run `headstart run`."
        )
    if not shutil.which("git"):
        raise CheckError("git is not installed, and DVC needs it. Install git, then run the same command again.")


def _write(folder: Path, data: str | None, assignments: Sequence[str]) -> None:
    """Write the files of the project; parameters and data.root are checked before they are written."""
    try:
        (folder / ".dvc").mkdir(parents=True)
    except OSError as error:
        raise CheckError(
            f"{folder} cannot be made ({error.strerror}). A folder that you may write was expected. Name another one."
        ) from None
    for name, text in {
        "params.yaml": _with_header("params.yaml", origin.project_file("params.yaml")),
        "dvc.yaml": project_dag(origin.project_file("dvc.yaml"), has_digits=data is None),
        "prefect.yaml": _with_header("prefect.yaml", _prefect(origin.project_file("prefect.yaml"), folder.name)),
        "prefect.toml": origin.project_file("prefect.toml"),
        "Makefile": _MAKEFILE,
        reviewed.NAME: reviewed.EMPTY,
        NO_IMAGES: NO_ROWS,
        ".dvcignore": origin.project_file(".dvcignore"),
        ".dvc/config": origin.project_file(".dvc/config"),
        ".dvc/.gitignore": _GITIGNORE_OF_DVC,
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    record.write(folder)
    first = [f"data.root={data}"] if data else []
    check = origin.module("tasks.__main__").check_data
    params_file.assign(folder / "params.yaml", [*first, *assignments], lambda values: check(folder, values))
    ignored = folder / ".gitignore"
    before = ignored.read_text(encoding="utf-8") if ignored.exists() else ""
    ignored.write_text(f"{before}\n{_GITIGNORE}" if before else _GITIGNORE, encoding="utf-8")


def project_dag(text: str, has_digits: bool) -> str:
    """Return a project's dvc.yaml from that of the repository, whose comments and order stay.

    The code entries of a stage become headstart.json, its command this tool's; the stage `sample` goes without digits.
    """
    text = re.sub(r"^    cmd: python -m tasks (\w+)$", r"    cmd: headstart stage \1", text, flags=re.MULTILINE)
    text = re.sub(r"^      - (?:tasks|headstart)/.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^    deps:\n", f"    deps:\n      - {record.NAME}\n", text, flags=re.MULTILINE)
    if not has_digits:
        text = re.sub(r"^  sample:\n(?:    .*\n)+\n?", "", text, flags=re.MULTILINE)
    return _with_header("dvc.yaml", text)


def _prefect(text: str, name: str) -> str:
    """Return a project's prefect.yaml: its name, and the flow by its module instead of by a file of the repository."""
    text = re.sub(r"^name: .*$", f"name: {name}", text, flags=re.MULTILINE)
    return text.replace("entrypoint: flows/pipeline.py:pipeline", "entrypoint: headstart.commands.flow.pipeline")


def _with_header(name: str, text: str) -> str:
    """Return the text with this project's comment in place of the one that it begins with."""
    body = re.sub(r"\A(?:#.*\n)+", "", text)
    return _HEADERS[name] + body


def _commit(folder: Path) -> None:
    """Make a git repository with one commit of the project's files."""
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--", *_FILES, ".dvc/.gitignore", ".gitignore", record.NAME)
    _git(folder, "commit", "--quiet", "-m", "A new headstart project", options=_author(folder))


def _give_to_dvc(folder: Path, data: str, is_committed: bool) -> None:
    """Give images that lie in the project to DVC, and add them to the commit of the project if that is made here."""
    with contextlib.chdir(folder):
        track(folder, data, dvc)
    staged = subprocess.run(["git", "diff", "--cached", "--quiet"], cwd=folder, capture_output=True, check=False)
    if is_committed and staged.returncode:
        _git(folder, "commit", "--quiet", "--amend", "--no-edit", options=_author(folder))


def _author(folder: Path) -> tuple[str, ...]:
    named = subprocess.run(["git", "config", "user.email"], cwd=folder, capture_output=True, check=False)
    return () if named.returncode == 0 else _UNNAMED


def _git(folder: Path, command: str, *arguments: str, options: tuple[str, ...] = ()) -> None:
    done = subprocess.run(
        ["git", *options, command, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CheckError(f"`git {command}` failed in {folder}: {done.stderr.strip()}. Mend that, then try again.")


def _undoing(folder: Path) -> Callable[[], None]:
    """Return what removes all that is written from here on, and no file that is there already."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    has_git, ignored = (folder / ".git").exists(), folder / ".gitignore"
    before = ignored.read_bytes() if ignored.exists() else None

    def undo() -> None:
        if folder in made:
            shutil.rmtree(made[-1], ignore_errors=True)
            return
        for name in (*_FILES, record.NAME):
            (folder / name).unlink(missing_ok=True)
        for name in (".dvc", *([] if has_git else [".git"])):
            shutil.rmtree(folder / name, ignore_errors=True)
        if before is None:
            ignored.unlink(missing_ok=True)
        else:
            ignored.write_bytes(before)

    return undo
