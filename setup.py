"""What pyproject.toml cannot say: where the files of the repository's top level lie in a wheel.

tasks/ and flows/ become headstart.tasks and headstart.flows, because modules named `tasks` and `flows` would meet
those of others. The files that a new project begins with become headstart/project/. An editable install needs none
of this.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PROJECT_FILES = ("dvc.yaml", "prefect.yaml", "prefect.toml", ".dvcignore", ".dvc/config")


class WithPipeline(build_py):
    """Adds the pipeline and the files of a project to the package."""

    def run(self) -> None:
        """Build the package, then copy what lies beside it."""
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib) / "headstart"
        sources = [file for folder in ("tasks", "flows") for file in (ROOT / folder).glob("*.py")]
        copies = {file: package / file.relative_to(ROOT) for file in sources}
        copies |= {ROOT / name: package / "project" / name for name in PROJECT_FILES}
        params = "project/params.yaml"  # as shipped; the one at the top is changed by who works in a checkout
        copies[ROOT / "headstart" / params] = package / params
        for source, target in copies.items():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target))


setup(cmdclass={"build_py": WithPipeline})
