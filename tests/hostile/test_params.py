"""params.yaml as editors, scripts and attackers leave it: refused in one line, in bounded time, and nothing is run."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from headstart import params_file
from headstart.base.errors import ParamError
from tests.support.images import ROOT

SOUND = (ROOT / "params.yaml").read_text(encoding="utf-8")


def replaced(old: str, new: str) -> bytes:
    assert SOUND.count(old) == 1
    return SOUND.replace(old, new).encode()


def bomb(levels: int = 30) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


MEAN = "mean: null                 # three numbers, for pixels scaled to 0..1"
TIMEOUT = "timeout_s: 60.0            #"
FILES = {
    "latin-1": (f"# caf\xe9\n{SOUND}".encode("latin-1"), "params.yaml is not UTF-8 at line 1. Save it as UTF-8"),
    "utf-16": (SOUND.encode("utf-16"), "params.yaml is not UTF-8 at line 1."),
    "zeros": (bytes(5000), "params.yaml is not valid YAML"),
    "50 MB": (SOUND.encode() + b"# x\n" * 12_500_000, "params.yaml has 50.0 MB. At most 2 MB were expected."),
    "nested lists": (SOUND.encode() + b"a: " + b"[" * 50_000, "params.yaml is nested too deeply."),
    "items in items": (SOUND.encode() + b"a:\n" + b"- " * 500_000, "params.yaml is nested too deeply."),
    "keys in keys": (SOUND.encode() + b"? " * 500_000, "params.yaml is nested too deeply."),
    "a staircase": (
        SOUND.encode() + b"".join(b" " * n + b"a:\n" for n in range(1800)),
        "params.yaml is nested too deeply.",
    ),
    "nested maps": (SOUND.encode() + b"a: " + b"{a: " * 5_000, "params.yaml is nested too deeply."),
    "a bomb": (SOUND.encode() + bomb().encode(), "params.yaml holds more than 100000 values. Aliases"),
    "a bomb as a value": (
        (bomb() + SOUND.replace("root: data/digits ", "root: *a29 ")).encode(),
        "params.yaml holds more than 100000 values. Aliases",
    ),
    "a list in itself": (replaced("epochs: 10\n", "epochs: &a [*a]\n"), "finetune.epochs is "),
    "a number of 5,000 digits": (replaced("epochs: 10\n", f"epochs: {'9' * 5000}\n"), "params.yaml is not valid YAML"),
    "a number of 4,000 digits": (replaced("epochs: 10\n", f"epochs: {'9' * 4000}\n"), "finetune.epochs is 9999"),
    "a tag that calls": (
        replaced("epochs: 10\n", "epochs: !!python/object/apply:os.system ['touch ran']\n"),
        "finetune.epochs is ",
    ),
    "a tag of one's own": (replaced("epochs: 10\n", "epochs: !mine 3\n"), "finetune.epochs is "),
    "a binary tag": (replaced("epochs: 10\n", "epochs: !!binary aGVsbG8=\n"), "finetune.epochs is b'hello'"),
    "a section twice": (SOUND.encode() + b"split:\n  seed: 1\n", "params.yaml is not valid YAML at line "),
    "a name twice": (replaced("epochs: 10\n", "epochs: 10\n  epochs: 11\n"), "params.yaml is not valid YAML at line "),
    "an infinite time": (replaced(TIMEOUT, "timeout_s: .inf #"), "validate.timeout_s is inf: a finite number"),
    "no time": (replaced(TIMEOUT, "timeout_s: .nan #"), "validate.timeout_s is nan: "),
    "time that runs back": (replaced(TIMEOUT, "timeout_s: -.inf #"), "validate.timeout_s is -inf: "),
    "means that are none": (
        replaced(MEAN, "mean: [.nan, 0.5, .inf]"),
        "backbone.mean is nan: a finite number is expected",
    ),
    "a mean that overflows": (replaced(MEAN, "mean: [1.0e+400, 0.5, 0.5]"), "backbone.mean is inf: a finite number is"),
    "a value of 10 kB": (replaced("root: data/digits ", f"root: [{'x' * 10_000}] "), "data.root is ['xxxx"),
    "a list": (b"- a\n- b\n", "params.yaml holds "),
    "nothing": (b"", "params.yaml holds NoneType."),
    "a scalar": (b"text", "params.yaml holds str."),
    "two documents": (SOUND.encode() + b"---\na: 1\n", "params.yaml is not valid YAML"),
    "no date": (SOUND.encode() + b"a: 2020-99-99\n", "params.yaml is not valid YAML"),
    "keys of other types": (SOUND.encode() + b"1: 2\n", "1 is not a parameter."),
    "a key that is a list": (SOUND.encode() + b"? [a, b]\n: 2\n", " is not a parameter."),
    "an alias to nothing": (SOUND.encode() + b"a: *nowhere\n", "params.yaml is not valid YAML at line "),
    "a control character": (SOUND.encode() + b"a: \x1b[2J\n", "params.yaml is not valid YAML"),
}


@pytest.mark.parametrize("name", FILES)
def test_it_is_refused_in_a_line_and_soon(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data, expected = FILES[name]
    file = tmp_path / "params.yaml"
    file.write_bytes(data)
    began = time.monotonic()
    for read in (params_file.load, lambda path: params_file.assign(path, ["split.seed=1"])):
        with pytest.raises(ParamError) as error:
            read(file)
        assert expected in str(error.value)
        assert len(str(error.value)) < 1000
        assert str(error.value).isprintable()
    assert time.monotonic() - began < 10
    assert file.read_bytes() == data
    assert not (tmp_path / "ran").exists()


VALUES = (
    *("9" * 5000, "[" * 50_000, "{a: " * 500, "- " * 50_000, "[[1]]", "&a [*a]", "*a", "'", "\x00"),
    *("!!python/object/apply:os.system ['touch ran']", "!!binary x", ".nan", "2020-99-99", f"[{bomb()}]"),
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:12])
def test_an_assignment_is_refused_in_a_line(tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "params.yaml"
    file.write_text(SOUND, encoding="utf-8")
    with pytest.raises(ParamError) as error:
        params_file.assign(file, [f"finetune.epochs={value}"])
    assert len(str(error.value)) < 1000
    assert str(error.value).isprintable()
    assert file.read_text(encoding="utf-8") == SOUND
    assert not (tmp_path / "ran").exists()


def test_anchors_that_are_no_bomb_are_read(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    text = replaced("epochs: 10\n", "epochs: &n 10\n").decode()
    assert text.count("folds: 5 ") == 1
    file.write_text(text.replace("folds: 5 ", "folds: *n "), encoding="utf-8")
    assert params_file.load(file).train_head.folds == 10


@pytest.mark.parametrize("target", ["run", "flow"])
@pytest.mark.parametrize(
    "name", ["it's", 'a "b" c', "$(touch ran)", "`touch ran`", "a b", "a;b", "-x", "caf\u00e9", "a\\b"]
)
def test_make_hands_a_name_over_as_it_is(tmp_path: Path, name: str, target: str) -> None:
    """`make` with a stand-in for Python that prints what it is given."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("python -m headstart", "printf '<%s>'")
    (tmp_path / "Makefile").write_text(text, encoding="utf-8")
    (tmp_path / ".venv").mkdir()
    for stamp in (".ready", ".ready-tests"):
        (tmp_path / ".venv" / stamp).touch()
    for file in ("pyproject.toml", "requirements.lock"):
        (tmp_path / file).touch()
    command = ["make", "--silent", "-o", ".venv/.ready", target, f"DATA={name.replace('$', '$$')}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"<{target}><--data={name}>", "")
    assert not (tmp_path / "ran").exists()
