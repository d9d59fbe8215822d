"""What a run leaves to know: how good the model is, where things are, and what people do next."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

from headstart.base.terminal import styled
from headstart.evaluation.folder import scores
from headstart.onnx.model_folder import MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.layout import Layout


def tell(layout: Layout, out: TextIO) -> None:
    """Print the headline, two paths and three commands; CheckError if the pipeline has not been run."""
    test = scores(layout.evaluation)
    model, report = layout.model.relative_to(layout.root), layout.report.relative_to(layout.root)
    value = styled(f"{test.headline.value:.2%}", "good", out)
    print(f"\n  {test.headline.told(test.n_images, value)}", file=out)
    print(f"\n  report  {report}\n  model   {model / MODEL}\n\n  next", file=out)
    commands = _next(layout, model)
    width = max(map(len, commands))
    for command, purpose in commands.items():
        print(f"    {styled(command, 'strong', out)}{' ' * (width - len(command))}  {purpose}", file=out)


def _next(layout: Layout, model: Path) -> dict[str, str]:
    """Return commands for a shell in the project's folder, and what each is for."""
    headstart = _command(layout)
    commands = {
        f"{headstart} predict {model} IMAGE...": "classify images",
        f"{headstart} serve {model}": "the same on a page in the browser",
    }
    if layout.data_root == layout.digits:
        return {**commands, f"{headstart} run --data FOLDER": "train on your own images"}
    return {**commands, f"{headstart} accept": "keep this model; later ones have to be as good"}


def _command(layout: Layout) -> str:
    """Return how `headstart` is called: by its path, unless the project's environment is active or elsewhere."""
    own = layout.root / ".venv"
    is_active = os.environ.get("VIRTUAL_ENV") == str(own)
    return ".venv/bin/headstart" if (own / "bin" / "headstart").exists() and not is_active else "headstart"
