"""The flow under a name that is the same in a checkout and in an installed package, for prefect.yaml of a project."""

from __future__ import annotations

from headstart.commands import origin

pipeline = origin.module("flows.pipeline").pipeline
