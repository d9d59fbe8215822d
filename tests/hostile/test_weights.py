"""Weights and model folders from elsewhere: no code in them runs, and what they say of themselves is not believed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import save, save_file

from headstart.backbones import networks, weights
from headstart.base.errors import CheckError, ParamError
from headstart.commands import main as cli
from headstart.handover.model import Model
from tests.support.backbones import settings
from tests.support.images import ROOT

MODEL = ROOT / "tests" / "models" / "format-1"


class Runs:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Code


def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps({"weight": Runs()}))


def whole_module(file: Path) -> None:
    module = torch.nn.Linear(2, 2)
    module.hook = Runs()  # type: ignore[assignment]
    torch.save(module, file)


def in_extra_state(file: Path) -> None:
    torch.save({"state_dict": {"weight": torch.ones(2)}, "epoch": Runs()}, file)


def in_old_format(file: Path) -> None:
    torch.save({"weight": Runs()}, file, _use_new_zipfile_serialization=False)


def script(file: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(file)


def zip_of_pickles(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"weight": Runs()}))
        archive.writestr("a/version", "3")


KINDS = [pickled, whole_module, in_extra_state, in_old_format, script, zip_of_pickles]


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors", ".pt2", ".pkl"])
@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_code_in_weights_is_refused_and_not_run(place: Path, write: Callable[[Path], None], suffix: str) -> None:
    write(place / f"evil{suffix}")
    with pytest.raises(ParamError, match=r"cannot be read as tensors alone .*\. Nothing is ever unpickled"):
        weights.read(place / f"evil{suffix}")
    assert not (place / "ran").exists()


# Safetensors that lie


def safetensors(header: object, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES = {
    "no bytes": b"",
    "a header without end": safetensors(b"{}", length=2**63),
    "a header of 100 GB": safetensors(b"{}", length=10**11),
    "no JSON": safetensors(b"\xff{"),
    "deep JSON": safetensors(b"[" * 100_000),
    "a list": safetensors([]),
    "data beyond the end": safetensors({"a": entry([1000], 0, 4000)}),
    "data before the beginning": safetensors({"a": entry([2], -8, 0)}),
    "a shape that its bytes are not": safetensors({"a": entry([2, 2], 0, 8)}),
    "a shape of 2 ** 126": safetensors({"a": entry([2**63 - 1, 2**63 - 1], 0, 8)}),
    "a shape that wraps round": safetensors({"a": entry([2**62, 4], 0, 8)}),
    "a negative shape": safetensors({"a": entry([-2], 0, 8)}),
    "two tensors on the same bytes": safetensors({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}),
    "bytes that belong to none": safetensors({"a": entry([1], 0, 4)}),
    "an unknown type": safetensors({"a": entry([2], 0, 8, "X9")}),
    "no tensors": safetensors({}, b""),
}


@pytest.mark.parametrize("name", LIES)
def test_safetensors_that_lie_are_refused(place: Path, name: str) -> None:
    (place / "a.safetensors").write_bytes(LIES[name])
    with pytest.raises(ParamError, match=r"^a\.safetensors (cannot be read as tensors alone|holds no state dict)"):
        weights.read(place / "a.safetensors")


def test_every_cut_of_safetensors_is_refused(place: Path) -> None:
    whole = save({"a": torch.zeros(3, 4), "b": torch.ones(2)})
    for length in range(len(whole)):
        (place / "a.safetensors").write_bytes(whole[:length])
        with pytest.raises(ParamError):
            weights.read(place / "a.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(place: Path, value: float) -> None:
    small = settings(name="test_efficientnet", weights="random", input_px=64)
    state = networks.load(small, place, lambda _: None).module.state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.fill_(value)
    save_file(state, place / "w.safetensors")
    digest = hashlib.sha256((place / "w.safetensors").read_bytes()).hexdigest()
    given = settings(name="test_efficientnet", weights=str(place / "w.safetensors"), sha256=digest, input_px=64)
    with pytest.raises(ParamError, match="features that are not finite"):
        networks.load(given, place, lambda _: None)


# Model folders. tests/unit/handover/test_no_false_yes.py has checksums, metadata, answers and every other content.


@pytest.fixture
def folder(place: Path) -> Path:
    return Path(shutil.copytree(MODEL, place / "model"))


@pytest.mark.parametrize("where", ["../secret.bin", "/dev/zero", "nowhere.bin", "link.bin", "fifo.bin"])
def test_a_model_reads_no_file_beside_it(folder: Path, where: str) -> None:
    (folder.parent / "secret.bin").write_bytes(bytes(100_000))
    (folder / "link.bin").symlink_to("../secret.bin")
    os.mkfifo(folder / "fifo.bin")
    model = onnx.load(folder / "model.onnx")
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    length = str(len(tensor.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", where), ("offset", "0"), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckError, match="cannot be loaded by onnxruntime"):
        Model(folder)


@pytest.mark.parametrize(
    "name", ["SHA256SUMS", "model.json", "model.onnx", "conformance/expected.json", "MODEL_CARD.md"]
)
def test_a_fifo_in_a_model_folder_is_not_waited_for(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert cli.main(["verify", str(folder)]) == 1
    assert name.rpartition("/")[2] in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["a folder", "a loop", "a device"])
def test_another_kind_of_file_in_a_model_folder_is_told(
    folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.json").unlink()
    if kind == "a folder":
        (folder / "model.json").mkdir()
    else:
        (folder / "model.json").symlink_to("model.json" if kind == "a loop" else "/dev/zero")
    assert cli.main(["verify", str(folder)]) == 1
    assert "model.json cannot be read (" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["info", "predict", "serve"])
@pytest.mark.parametrize("data", [b"", b"x" * 1000, b"\x08" * 1000, bytes(100)])
def test_bytes_that_are_no_model_are_told(
    folder: Path, command: str, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.onnx").write_bytes(data)
    assert cli.main([command, str(folder), *(["x.jpg"] if command == "predict" else [])]) == 1
    assert "model.onnx" in capsys.readouterr().err
