"""Signatures of finished models, by the real library and keys of OpenSSL."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.commands import main as cli
from tests.support.images import ROOT

Damage = Callable[[Path], object]


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def pair(folder: Path, name: str, curve: str = "prime256v1") -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    openssl("ecparam", "-genkey", "-name", curve, "-noout", "-out", private)
    openssl("ec", "-in", private, "-pubout", "-out", public)
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return pair(tmp_path_factory.mktemp("keys"), "mine")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "tests" / "models" / "format-1", tmp_path / "model"))


@pytest.fixture
def signed(model: Path, keys: tuple[Path, Path]) -> Path:
    assert cli.main(["sign", str(model), "--key", str(keys[0])]) == 0
    return model


def refusal(capsys: pytest.CaptureFixture[str], *command: str | Path) -> str:
    capsys.readouterr()
    assert cli.main([str(word) for word in command]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


def test_a_signed_model_is_verified_before_all_else(
    signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert cli.main(["verify", str(signed), "--signature", "--key", str(keys[1])]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith(f"verify: {signed}.sig is a signature of every file of {signed}")
    assert len(others) == 3


def test_the_signature_leaves_the_folder_and_its_checksums_as_they_are(signed: Path) -> None:
    original = ROOT / "tests" / "models" / "format-1"
    files = {path.relative_to(signed): path.read_bytes() for path in signed.rglob("*") if path.is_file()}
    assert files == {path.relative_to(original): path.read_bytes() for path in original.rglob("*") if path.is_file()}
    assert json.loads(signed.with_name("model.sig").read_text())["dsseEnvelope"]
    assert sorted(path.name for path in signed.parent.iterdir()) == ["model", "model.sig"]


def test_the_signature_goes_wherever_the_model_goes_under_any_name(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    elsewhere = signed.rename(tmp_path / "birds")
    signature = str(tmp_path / "model.sig")
    assert cli.main(["verify", str(elsewhere), "--signature", signature, "--key", str(keys[1])]) == 0


def one_byte(file: str) -> Damage:
    def change(folder: Path) -> None:
        data = bytearray((folder / file).read_bytes())
        data[-1] ^= 1
        (folder / file).write_bytes(data)

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (one_byte("model.onnx"), "Hash mismatch for 'model.onnx'"),
        (one_byte("SHA256SUMS"), "Hash mismatch for 'SHA256SUMS'"),
        (lambda folder: (folder / "model.json").unlink(), "Missing files in model 'model': model.json"),
        (lambda folder: (folder / "new.txt").touch(), "Extra files found in model 'model': new.txt"),
        (lambda folder: (folder / ".gitignore").touch(), "Extra files found in model 'model': .gitignore"),
        (lambda folder: (folder / "conformance" / "a").touch(), "Extra files found in model 'model': conformance/a"),
    ],
    ids=["a byte of the model", "a byte of the sums", "missing", "additional", "hidden", "in a folder"],
)
def test_any_other_content_is_refused(
    damage: Damage, said: str, signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(signed)
    message = refusal(capsys, "verify", signed, "--signature", "--key", keys[1])
    assert message.startswith(f"verify: {signed} is not what was signed: {said}")


def test_a_changed_model_with_matching_checksums_is_still_not_the_signed_one(
    signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever changes a file can write SHA256SUMS anew; it takes the key to sign anew."""
    card = signed / "MODEL_CARD.md"
    card.write_text("Another card.\n")
    sums = subprocess.run("sha256sum $(grep -o '  .*' SHA256SUMS)", shell=True, cwd=signed, capture_output=True)
    (signed / "SHA256SUMS").write_bytes(sums.stdout)
    assert cli.main(["verify", str(signed)]) == 0
    message = refusal(capsys, "verify", signed, "--signature", "--key", keys[1])
    assert "Hash mismatch for 'MODEL_CARD.md'" in message
    assert "Hash mismatch for 'SHA256SUMS'" in message


def test_another_key_is_refused(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, other = pair(tmp_path, "other")
    assert "was made with another key than" in refusal(capsys, "verify", signed, "--signature", "--key", other)


def test_a_signature_that_was_altered_is_refused(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signature = tmp_path / "model.sig"
    bundle = json.loads(signature.read_text())
    other, _ = pair(tmp_path, "other")
    assert cli.main(["sign", str(signed), "--key", str(other)]) == 0
    foreign = json.loads(signature.read_text())
    bundle["dsseEnvelope"]["signatures"] = foreign["dsseEnvelope"]["signatures"]
    signature.write_text(json.dumps(bundle))
    assert "was altered, or" in refusal(capsys, "verify", signed, "--key", keys[1])
    for text in ("", "{}", "signed", '{"verificationMaterial": 3}'):
        signature.write_text(text)
        assert "is no signature of a model (" in refusal(capsys, "verify", signed, "--key", keys[1])
    signature.unlink()
    assert "model.sig does not exist." in refusal(capsys, "verify", signed, "--key", keys[1])
    assert "Name the key's file by --key." in refusal(capsys, "verify", signed, "--signature")


def test_what_is_not_as_it_was_exported_is_not_signed(
    model: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "notes.txt").touch()
    assert "1 file that `export` did not write (notes.txt)" in refusal(capsys, "sign", model, "--key", keys[0])
    (model / "notes.txt").unlink()
    (model / "link").symlink_to(tmp_path)
    assert "1 file that `export` did not write (link)" in refusal(capsys, "sign", model, "--key", keys[0])
    (model / "link").unlink()
    inside = ("--signature", model / "model.sig")
    assert "is in the folder that it signs." in refusal(capsys, "sign", model, "--key", keys[0], *inside)
    nowhere = ("--signature", tmp_path / "no" / "model.sig")
    assert "cannot be signed (" in refusal(capsys, "sign", model, "--key", keys[0], *nowhere)
    one_byte("model.json")(model)
    assert "SHA256SUMS lists" in refusal(capsys, "sign", model, "--key", keys[0])
    assert not list(tmp_path.glob("model.sig*"))


def test_a_key_that_cannot_be_used_is_told(
    model: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    openssl("genrsa", "-out", tmp_path / "rsa.pem", "2048")
    openssl("ecparam", "-genkey", "-name", "secp256k1", "-noout", "-out", tmp_path / "coin.pem")
    (tmp_path / "text.pem").write_text("key")
    for name, said in {
        "rsa.pem": "no key of an elliptic curve",
        "coin.pem": "Unsupported key for curve",
        "text.pem": "cannot be used (",
        "none.pem": "cannot be read (No such file or directory). A private key was expected; `openssl ecparam",
    }.items():
        assert said in refusal(capsys, "sign", model, "--key", tmp_path / name)
    assert "cannot be used (" in refusal(capsys, "verify", model, "--key", tmp_path / "text.pem")
    assert "cannot be used (" in refusal(capsys, "sign", model, "--key", keys[1])


def test_the_password_of_a_key_is_read_from_the_environment(
    model: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    locked = tmp_path / "locked.pem"
    openssl("pkcs8", "-topk8", "-in", keys[0], "-out", locked, "-passout", "pass:secret")
    assert "is read from $HEADSTART_KEY_PASSWORD." in refusal(capsys, "sign", model, "--key", locked)
    monkeypatch.setenv("HEADSTART_KEY_PASSWORD", "wrong")
    assert "cannot be used (" in refusal(capsys, "sign", model, "--key", locked)
    monkeypatch.setenv("HEADSTART_KEY_PASSWORD", "secret")
    assert cli.main(["sign", str(model), "--key", str(locked)]) == 0
    assert cli.main(["verify", str(model), "--key", str(keys[1])]) == 0


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1"])
def test_openssf_own_command_reads_our_signature_and_we_read_its(curve: str, model: Path, tmp_path: Path) -> None:
    private, public = pair(tmp_path, curve, curve)
    assert cli.main(["sign", str(model), "--key", str(private)]) == 0
    theirs = [sys.executable, "-m", "model_signing"]
    ours, written = tmp_path / "model.sig", tmp_path / "theirs.sig"
    read = [*theirs, "verify", "key", str(model), "--signature", str(ours), "--public_key", str(public)]
    subprocess.run(read, check=True, capture_output=True)
    write = [*theirs, "sign", "key", str(model), "--signature", str(written), "--private_key", str(private)]
    subprocess.run(write, check=True, capture_output=True)
    assert cli.main(["verify", str(model), "--signature", str(written), "--key", str(public)]) == 0
