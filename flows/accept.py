"""Makes the model of the current commit the accepted one: a version in DVC's model registry, which GTO tags in git.

It adds the tag and writes nothing else, so the accepted model's pipeline stays up to date. The stage `find_accepted` of
later runs finds the tag, and a new model must not be worse than that version.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from headstart import params_file
from headstart.base.errors import CheckError, HeadstartError, ParamError
from headstart.commands import record
from headstart.commands.main import main as headstart
from headstart.evaluation import accepted
from headstart.evaluation.folder import scores
from headstart.layout import Layout, find_root

_FIRST = "v1.0.0"
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_TRACKED = ("dvc.yaml", "dvc.lock", "params.yaml")


def accept(version: str, root: Path) -> str:
    """Tag the current commit's model and return the version; '' stands for the next one.

    ParamError or CheckError, and no tag, if the version cannot be used or there is no sound and committed model.
    """
    from dvc.repo import Repo
    from gto.api import register
    from gto.exceptions import GTOException

    layout = Layout(root)
    _check_committed(root)
    with Repo(str(root)) as repo:
        changed = ", ".join(sorted(repo.status()))
        tags = repo.scm.list_tags()
    if changed:
        raise CheckError(
            f"{changed} would run, so artifacts/model does not match the parameters and the data. `dvc status` without"
            " changes was expected. Run `dvc repro` and commit dvc.lock."
        )
    if headstart(["verify", str(layout.model)]):
        raise CheckError("artifacts/model fails `headstart verify`. Run `dvc repro --force export`.")
    version = version or _next(accepted.newest(tags))
    if not _VERSION.fullmatch(version):
        raise ParamError(f"'{version}' is not a version. A version such as v1.2.0 was expected.")
    if accepted.tag_of(version) in tags:
        raise ParamError(f"{version} is accepted already. A new version was expected, such as {_next(version)}.")
    try:
        register(root, accepted.NAME, "HEAD", version=version)
    except GTOException as error:
        raise CheckError(
            f"GTO cannot register {version}: {error}. A git repository with a user name and e-mail was expected."
        ) from None
    return version


def _next(version: str | None) -> str:
    """Return the version after `version`; the middle number counts models."""
    if version is None:
        return _FIRST
    major, minor, _ = map(int, version.removeprefix("v").split("."))
    return f"v{major}.{minor + 1}.0"


def _check_committed(root: Path) -> None:
    """Raise CheckError unless the files that describe the model are committed."""
    tracked = [*_TRACKED, record.NAME] if (root / record.NAME).is_file() else [*_TRACKED]
    done = subprocess.run(
        ["git", "status", "--porcelain", "--", *tracked], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CheckError(f"git status failed: {done.stderr.strip()}. A git repository with a commit was expected.")
    loose = ", ".join(line[3:] for line in done.stdout.splitlines())
    if loose or not (root / "dvc.lock").is_file():
        raise CheckError(
            f"{loose or 'dvc.lock'} is not committed, but the tag names a commit. Run `git add {' '.join(tracked)}`"
            " and `git commit`, then accept again."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="headstart accept", description="Tag the current commit's model as the accepted one."
    )
    parser.add_argument("version", nargs="?", default="", metavar="VERSION", help="such as v1.2.0 (default: the next)")
    options = parser.parse_args(arguments)
    try:
        root = find_root(Path.cwd())
        version = accept(options.version, root)
    except HeadstartError as error:
        print(f"accept: {error}", file=sys.stderr)
        return 1
    test = scores(Layout(root).evaluation)
    told = test.headline.told(test.n_images)
    print(f"accept: {accepted.tag_of(version)} is this commit's model: {told}")
    gate = params_file.load(Layout(root).params).export.gate
    if gate == accepted.NEWEST:
        print("accept: later models are compared with it")
    else:
        print(f"accept: export.gate is {gate or 'null'}; {accepted.NEWEST} compares later models with this one")
    print(f"accept: `git push origin {accepted.tag_of(version)}` and `make push` publish it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
