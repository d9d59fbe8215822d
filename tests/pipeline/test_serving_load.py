"""`headstart serve` under more load than it can bear, and among hostile clients. Trials of minutes; they need wrk."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hostile_clients import measured, repeated
from tests.support.images import encoded, photograph
from tests.support.serving import PICTURE, SMALL, Serving, served

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk on the PATH")]

SCRIPT = """
local file = io.open("{body}", "rb"); wrk.body = file:read("*a"); file:close()
wrk.method = "POST"; wrk.path = "/predict"
local statuses, threads = {{}}, {{}}
function setup(thread) table.insert(threads, thread) end
function init() counts = {{[200] = 0, [503] = 0, [0] = 0}} end
function response(status)
  if not counts[status] then status = 0 end
  counts[status] = counts[status] + 1
  answered, refused, other = counts[200], counts[503], counts[0]
end
function done(summary)
  local a, r, o = 0, 0, 0
  for _, each in ipairs(threads) do
    a, r, o = a + each:get("answered"), r + each:get("refused"), o + each:get("other")
  end
  local e = summary.errors
  print(string.format("answered=%d refused=%d other=%d broken=%d", a, r, o, e.connect + e.read + e.write + e.timeout))
end
"""


def load(serving: Serving, body: Path, clients: int, seconds: int) -> dict[str, int]:
    """Return how many requests were answered, refused by 503, otherwise, and how many connections broke."""
    script = body.with_suffix(".lua")
    script.write_text(SCRIPT.format(body=body))
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "40s", "-s", str(script), serving.url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", said)}


def test_ten_times_the_capacity_for_a_minute_neither_grows_memory_nor_breaks_anything(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(encoded(photograph(1, 1500, 2000), "JPEG"))
    with served(SMALL, tmp_path / "log") as serving:
        load(serving, tmp_path / "body", 8, 3)
        seconds = 10
        capacity = load(serving, tmp_path / "body", 64, seconds)
        assert capacity["refused"] == capacity["other"] == capacity["broken"] == 0
        per_second = capacity["answered"] / seconds
        before_mb = serving.memory_mb()
        health_s: list[float] = []
        with repeated(lambda: health_s.append(_took_s(lambda: serving.get("/health"))), 1):
            found = load(serving, tmp_path / "body", 400, 60)
        offered = (found["answered"] + found["refused"]) / 60
        grown_mb = serving.memory_mb() - before_mb
        print(
            f"capacity {per_second:.0f}/s, offered {offered:.0f}/s, {found}, memory {before_mb:.0f} {grown_mb:+.0f} MB"
        )
        print(f"health: {max(health_s):.2f} s at most")
        assert offered >= 10 * per_second
        assert found["other"] == found["broken"] == 0
        assert found["answered"] / 60 > per_second / 4
        assert grown_mb < 150
        assert max(health_s) < 5
        assert serving.predict(PICTURE.read_bytes())[0] == 200


def test_fifty_hostile_clients_for_two_minutes_leave_a_good_one_its_answers(tmp_path: Path) -> None:
    with served(SMALL, tmp_path / "log", "--send-seconds", "10") as serving:
        found = measured(serving)
        alone, among = found.p99_s
        print(f"p99 {1e3 * alone:.0f} ms ({len(found.undisturbed_s)}), {1e3 * among:.0f} ms ({len(found.disturbed_s)})")
        print(f"memory {found.before_mb:.0f} MB, at most {found.peak_mb:.0f} MB")
        assert found.n_refused == (0, 0)
        assert found.peak_mb - found.before_mb < 300
        assert among < 3 * alone
        assert "Traceback" not in serving.log.read_text()


def _took_s(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began
