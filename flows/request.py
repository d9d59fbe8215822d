"""The request for a run. Prefect's page shows it as a form, and a deployment stores it as its parameters."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from headstart import params, params_file

Value = bool | int | float | str | list[float] | dict[str, int | str] | None


class Request(BaseModel):
    """One run of the DAG."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: list[str] = Field(
        default=[], description="Stages to bring up to date, with all that they depend on. None: every stage."
    )
    force: bool = Field(default=False, description="Run them even if nothing has changed.")
    overrides: dict[str, Value] = Field(
        default={}, description='Parameters to write to params.yaml first, by dotted name: {"split.seed": 1}.'
    )
    only_new_data: bool = Field(default=False, description="Do nothing unless the images have changed since dvc.lock.")
    pull: bool = Field(default=False, description="Fetch data, features and models from DVC's remote first.")
    push: bool = Field(default=False, description="Send them there after a successful run.")
    notify: str = Field(
        default="",
        description="The Prefect notification block to notify of a failure, by type and name: slack-webhook/team.",
    )
    note: str = Field(default="", description="The reason for this run; it becomes part of the run's name.")

    def assignments(self) -> list[str]:
        """Return the overrides as `headstart.params_file.assign` takes them."""
        return [
            f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in self.overrides.items()
        ]

    def write(self, file: Path) -> params.Params:
        """Check the overrides, write them to params.yaml and return it; ParamError leaves the file unchanged."""
        return params_file.assign(file, self.assignments())


def run_name(values: params.Params, note: str) -> str:
    """Return the name of a run: dataset, backbone, a short digest of all parameters, and the note."""
    digest = sha256(values.model_dump_json().encode()).hexdigest()[:8]
    parts = [Path(values.data.root).stem, values.backbone.name.rpartition("/")[2], digest, note]
    return " ".join(part for part in parts if part)
