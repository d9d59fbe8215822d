"""Writes a copy of the report that names the commit it belongs to, to hand to others.

The report is made before its commit, and equal inputs give equal bytes: it cannot name the commit itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path

from ruamel.yaml import YAML

from headstart.base.errors import CheckError, HeadstartError
from headstart.base.files import existing, write_text
from headstart.layout import Layout, find_root
from headstart.report.page import with_commit


def share(root: Path, target: Path) -> str:
    """Write the copy and return the commit; CheckError, and no copy, if no commit holds this report."""
    report = Layout(root).report
    page = existing(report, "report").read_bytes()
    commit, day = _git(root, "log", "-1", "--format=%H %cs", "--", "dvc.lock").split() or ("", "")
    recorded = YAML(typ="safe").load(_git(root, "show", f"{commit}:./dvc.lock")) if commit else {}
    outs = recorded.get("stages", {}).get("report", {}).get("outs", [])
    if md5(page, usedforsecurity=False).hexdigest() not in [each.get("md5") for each in outs]:
        raise CheckError(
            f"{report.relative_to(root)} is not the report that the last committed dvc.lock names. A committed run was"
            " expected. Run `git add dvc.yaml dvc.lock params.yaml` and `git commit`, then share again."
        )
    write_text(target, with_commit(page.decode(), f"{commit} of {day}"))
    return commit


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(f"git failed: {done.stderr.strip()}. A git repository with a commit was expected.")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="headstart share", description="Copy the report; the copy names its commit.")
    parser.add_argument("file", type=Path, metavar="FILE", help="the copy to write, such as report.html")
    options = parser.parse_args(arguments)
    try:
        commit = share(find_root(Path.cwd()), options.file)
    except (HeadstartError, OSError) as error:
        print(f"share: {error}", file=sys.stderr)
        return 1
    print(f"share: {options.file} is the report of commit {commit[:10]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
