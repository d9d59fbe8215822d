"""Makes the model of the current commit the accepted one: a version in DVC's model registry, which GTO tags in git.

Later models are compared with it: `export.gate` in params.yaml names the version that a new one must not be worse than.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from flows.request import Request
from headstart.base.errors import CheckError, HeadstartError, ParamError
from headstart.evaluation import accepted
from headstart.evaluation.folder import scores
from headstart.handover.cli import main as headstart
from headstart.layout import Layout

ROOT = Path(__file__).resolve().parents[1]
_FIRST = "v1.0.0"
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_TRACKED = ("dvc.yaml", "dvc.lock", "params.yaml")


def accept(version: str, root: Path = ROOT) -> str:
    """Tag the current commit's model, write the version to params.yaml, and return it; '' stands for the next one.

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
    Request(overrides={"export.gate": version}).write(layout.params)
    return version


def _next(version: str | None) -> str:
    """Return the version after `version`; the middle number counts models."""
    if version is None:
        return _FIRST
    major, minor, _ = map(int, version.removeprefix("v").split("."))
    return f"v{major}.{minor + 1}.0"


def _check_committed(root: Path) -> None:
    """Raise CheckError unless the files that describe the model are committed."""
    done = subprocess.run(
        ["git", "status", "--porcelain", "--", *_TRACKED], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CheckError(f"git status failed: {done.stderr.strip()}. A git repository with a commit was expected.")
    loose = ", ".join(line[3:] for line in done.stdout.splitlines())
    if loose or not (root / "dvc.lock").is_file():
        raise CheckError(
            f"{loose or 'dvc.lock'} is not committed, but the tag names a commit. Run `git add {' '.join(_TRACKED)}`"
            " and `git commit`, then accept again."
        )


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.accept", description="Tag the current commit's model as the accepted one."
    )
    parser.add_argument("version", nargs="?", default="", metavar="VERSION", help="such as v1.2.0 (default: the next)")
    try:
        version = accept(parser.parse_args().version)
    except HeadstartError as error:
        print(f"accept: {error}", file=sys.stderr)
        return 1
    test = scores(Layout(ROOT).evaluation)
    print(f"accept: {accepted.tag_of(version)} is this commit's model: {test.accuracy:.2%} of {test.n_images} right")
    print(f"accept: export.gate in params.yaml is now {version}, which later models are compared with; commit it")
    print(f"accept: `git push origin {accepted.tag_of(version)}` and `make push` publish it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
