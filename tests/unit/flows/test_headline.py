from __future__ import annotations

import urllib.error
import urllib.request
from hashlib import md5
from pathlib import Path

import pytest
from prefect.utilities.names import generate_slug

from flows import files, headline
from headstart import params_file
from tests.support.images import ROOT


def test_a_name_that_prefect_made_up_is_told_from_one_that_somebody_typed() -> None:
    assert all(headline.is_generated(generate_slug(2)) for _ in range(300))
    assert headline.is_generated("Unbranded-Gollie")  # as the form proposes
    assert headline.is_generated("Tasty-Golden Retriever")
    for typed in ("bigger backbone", "run-2", "first-try", "Ants-Bees", "ants", "small"):
        assert not headline.is_generated(typed), typed


def test_a_run_is_named_by_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text((ROOT / "params.yaml").read_text())
    one = headline.run_name(params_file.load(file), "")
    other = headline.run_name(params_file.assign(file, ["split.seed=9"]), "another split")
    assert one.split()[:2] == ["digits", "tf_efficientnet_lite0"]
    assert other.startswith("digits tf_efficientnet_lite0 ")
    assert other.endswith(" another split")
    assert one.split()[2] != other.split()[2]


def test_a_file_of_the_cache_is_served_by_its_digest_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.html"
    report.write_bytes(b"<p>a report")
    digest = md5(report.read_bytes(), usedforsecurity=False).hexdigest()
    cached = tmp_path / "md5" / digest[:2] / digest[2:]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(report.read_bytes())
    monkeypatch.delenv(headline.FILES_VARIABLE, raising=False)
    assert headline.link(report) == f"file://{report}"
    with files.served(tmp_path / "md5", 0) as address:
        monkeypatch.setenv(headline.FILES_VARIABLE, address)
        with urllib.request.urlopen(headline.link(report)) as answer:
            assert answer.read() == b"<p>a report"
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        report.write_bytes(b"another")
        for wrong in (headline.link(report), f"{address}/", f"{address}/../report.html", f"{address}/{digest}"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(wrong)
        with files.served(tmp_path, int(address.rpartition(":")[2])) as other:
            assert other != address  # the port is taken
