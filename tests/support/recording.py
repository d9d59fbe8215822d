"""Parameters, paths and images that note what a stage asks of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from headstart import layout as layout_module
from headstart.base import dataset
from headstart.base.dataset import Dataset, Images
from headstart.layout import Layout
from headstart.params import Params


class RecordedSection:
    """A section of the parameters: what is read of it goes to `asked`, its own name if it is read whole."""

    def __init__(self, section: BaseModel, name: str, asked: set[str]) -> None:
        self._section, self._name, self._asked = section, name, asked

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._section, name)
        is_parameter = name in type(self._section).model_fields
        self._asked.add(f"{self._name}.{name}" if is_parameter else self._name)
        return value


class RecordedParams:
    """The parameters, whose sections are recorded."""

    def __init__(self, params: Params, asked: set[str]) -> None:
        self._params, self._asked = params, asked

    def __getattr__(self, name: str) -> Any:
        return RecordedSection(getattr(self._params, name), name.rstrip("_"), self._asked)


def recorded(layout: Layout, asked: set[str]) -> Layout:
    """Return the layout; names of the paths that are asked for, but not by itself, go to `asked`."""

    class Recorded(Layout):
        def __getattribute__(self, name: str) -> Any:
            caller = sys._getframe(1).f_code.co_filename
            if isinstance(getattr(Layout, name, None), property) and caller != layout_module.__file__:
                asked.add(name)
            return super().__getattribute__(name)

    return Recorded(*(getattr(layout, field.name) for field in fields(Layout)))


WHOLE_TABLE = "the whole table"


def recorded_images(of: Dataset, asked: set[str]) -> Dataset:
    """Return the images; the splits that are asked for, and the whole table, go to `asked`."""

    class Recorded(Dataset):
        def __getattribute__(self, name: str) -> Any:
            if name == "table" and sys._getframe(1).f_code.co_filename != dataset.__file__:
                asked.add(WHOLE_TABLE)
            return super().__getattribute__(name)

        def of(self, *splits: str) -> Images:
            asked.update(splits)
            return super().of(*splits)

        def digest(self, *splits: str) -> str:
            asked.update(splits)
            return super().digest(*splits)

    return Recorded(of.table)


def run_recorded(
    run: Callable[[Params, Layout], None], params: Params, root: Path
) -> tuple[set[str], set[str], set[str]]:
    """Run a stage; return the parameters, the paths and the splits that it asked for."""
    parameters, paths, splits = set[str](), set[str](), set[str]()
    with pytest.MonkeyPatch.context() as patch:
        read = dataset.read
        patch.setattr(dataset, "read", lambda layout: recorded_images(read(layout), splits))
        run(RecordedParams(params, parameters), recorded(Layout.of(root, params), paths))  # type: ignore[arg-type]
    return parameters, paths, splits
