"""docs/python.md, block by block, in a finished project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.images import ROOT
from tests.support.projects import Project

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_page_can_be_followed(base: Project, tmp_path: Path, number: int) -> None:
    (tmp_path / "poison").mkdir()
    for name in ("torch", "torchvision", "timm"):
        (tmp_path / "poison" / f"{name}.py").write_text(f"raise ImportError('{name} was imported')")
    (tmp_path / "block.py").write_text(BLOCKS[number])
    path = f"{tmp_path / 'poison'}:{base.root}"
    said = base.must("python", str(tmp_path / "block.py"), PYTHONPATH=path)
    assert said.strip()


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 3
