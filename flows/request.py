"""The request for a run. Prefect's page shows it as a form, and a deployment stores it as its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from headstart import params
from headstart.base.errors import ParamError, did_you_mean

Stage = Literal[
    "sample",
    "validate",
    "split",
    "rank",
    "backbone",
    "transform",
    "embed",
    "unlabelled",
    "train_head",
    "adapt",
    "audit",
    "finetune",
    "find_accepted",
    "evaluate",
    "quantize",
    "report",
    "export",
    "publish",
]
_PARAMETERS: list[JsonValue] = [name for name in params.names() if "." in name]


def _emptied(value: object) -> object:
    return "" if value is None else value  # a form sends null for a field that was cleared


Text = Annotated[str, BeforeValidator(_emptied)]
_Choice = Literal["as in params.yaml", "on", "off"]


class Override(BaseModel):
    """The value of one parameter for one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The form offers the names; a wrong one is refused later, with the nearest known one.
    name: str = Field(
        title="Parameter",
        description="Its name.",
        json_schema_extra={"enum": _PARAMETERS},
    )
    value: Text = Field(default="", title="Value", description="As it is written in params.yaml.")


class Request(BaseModel):
    """One run of the DAG. Fields that are left empty stay as params.yaml has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    note: Text = Field(
        default="", title="Note", description="The reason for this run; it becomes part of the run's name."
    )
    images: Text = Field(
        default="", title="Images", description="Folder or list of labelled images (data.root). Empty: as it is."
    )
    backbone: Text = Field(
        default="",
        title="Backbone",
        description="Network of torchvision, timm or a hub, such as timm/resnet50 (backbone.name). Empty: as it is.",
    )
    finetune: _Choice = Field(
        default="as in params.yaml", title="Fine-tuning", description="Train the last layers too (finetune.enabled)."
    )
    views: Annotated[int | None, WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 1000})] = Field(
        default=None,
        ge=0,
        le=1000,
        title="Views",
        description="Random crops and flips of each training image for the head (embed.views). Empty: as it is.",
    )
    overrides: list[Override] = Field(
        default=[], title="Other parameters", description="Any parameter of params.yaml, by its name."
    )
    keep: bool = Field(
        default=False,
        title="Keep these parameters",
        description="Leave them in params.yaml after the run. Otherwise params.yaml is then as it was before.",
    )
    targets: list[Stage] = Field(
        default=[], title="Stages", description="To bring up to date, with all that they need. None: every stage."
    )
    force: bool = Field(default=False, title="Force", description="Run the stages even if nothing has changed.")
    only_new_data: bool = Field(
        default=False, title="Only new data", description="Do nothing unless the images have changed since dvc.lock."
    )
    pull: bool = Field(
        default=False, title="Pull", description="Fetch data, features and models from DVC's remote first."
    )
    push: bool = Field(default=False, title="Push", description="Send them there after a successful run.")
    notify: Text = Field(
        default="",
        title="Notify",
        description="The Prefect notification block to notify of a failure, by type and name: slack-webhook/team.",
    )

    def assignments(self) -> list[str]:
        """Return what the request sets, as `headstart.params_file.assign` takes it; ParamError for a name set twice."""
        enabled = {"on": "true", "off": "false"}.get(self.finetune)
        fields = {
            "data.root": self.images or None,
            "backbone.name": self.backbone or None,
            "finetune.enabled": enabled,
            "embed.views": self.views,
        }
        given = [(name, str(value)) for name, value in fields.items() if value is not None]
        given += [(each.name.strip(), each.value) for each in self.overrides]
        names = [name for name, _ in given]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ParamError(f"{twice[0]} is given twice. One value was expected. Leave out one of the two.")
        return [f"{name}={value}" for name, value in given]


def check_targets(names: Sequence[str]) -> None:
    """Raise ParamError unless all of these are stages."""
    known = get_args(Stage)
    for name in names:
        if name not in known:
            raise ParamError(
                f"'{name}' is not a stage.{did_you_mean(name, known)} One of {', '.join(known)} was expected."
            )
