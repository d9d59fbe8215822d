"""`headstart monitor`, `headstart serve --monitor` and the flow `monitor`, on a finished model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import expect

from headstart.commands import main as cli
from headstart.onnx.model_folder import REFERENCE
from tests.support.browser import opened
from tests.support.monitoring import watched_model, write_noise
from tests.support.orchestration import QUIET, Api, environment, notifying
from tests.support.projects import Project, write_photographs
from tests.support.server import Server
from tests.support.serving import Serving, served


@pytest.fixture(scope="module")
def model(base: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return watched_model(base, tmp_path_factory.mktemp("watched") / "model")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise") / "noise"
    write_noise(folder, 40)
    return folder


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("usual") / "usual"
    write_photographs(folder, 20, first=7000)
    return folder


def test_the_exported_model_says_what_is_normal_for_it(base: Project) -> None:
    folder = base.root / "artifacts" / "model"
    told = json.loads((folder / REFERENCE).read_text())
    table = pl.read_parquet(base.root / "artifacts" / "evaluation" / "predictions.parquet")
    assert told["n_images"] == len(table)
    assert told["accuracy"] == pytest.approx(table["correct"].mean(), abs=1e-6)
    assert told["model_sha256"] == json.loads((folder / "model.json").read_text())["model_sha256"]
    assert REFERENCE in (folder / "SHA256SUMS").read_text()


def test_usual_images_raise_no_alarm_and_others_end_with_status_3(
    model: Path, usual: Path, noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "ledger.json"
    assert cli.main(["monitor", str(model), str(usual), "--ledger", str(ledger)]) == 0
    said = capsys.readouterr().out
    assert "40 images, 40 of them new to the ledger; 40 in all, beside 120 held-out ones" in said
    assert "drift      none shown; an alarm needs 300 to 1" in said
    assert cli.main(["monitor", str(model), str(usual), str(noise), "--ledger", str(ledger)]) == 3
    said = capsys.readouterr().out
    assert "80 images, 40 of them new to the ledger (40 seen before are not counted again); 80 in all" in said
    assert "ALARM at image" in said
    assert "the last 2 looks" in said
    assert cli.main(["monitor", str(model), str(usual), "--ledger", str(ledger)]) == 3, "an alarm stays"
    assert cli.main(["monitor", str(model), str(usual), "--ledger", str(ledger), "--new"]) == 0
    assert len(list(tmp_path.glob("ledger.*.json"))) == 1


def test_json_says_the_same_and_the_ledger_lies_beside_the_model(
    model: Path, noise: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = model.with_name("model.monitor.json")
    (noise / "broken.png").write_bytes(b"no image")
    status = cli.main(["monitor", str(model), str(noise), "--json", "--false-alarm", "0.05"])
    said = capsys.readouterr()
    (noise / "broken.png").unlink()
    told = json.loads(said.out)
    assert status == 3
    assert told["alarm"]["n_images"] <= 40
    assert told["alarm"]["score"] in ("novelty", "confidence", "class")
    assert told["limit"] == 60
    assert told["p_value"] == 0.002
    assert "broken.png: not an image" in said.err
    assert ledger.exists()
    assert cli.main(["monitor", str(model), str(noise), "--false-alarm", "0.01"]) == 1
    assert "begun with a chance of false alarms of 0.05" in capsys.readouterr().err
    ledger.unlink()


def test_it_needs_nothing_of_the_pipeline(model: Path, usual: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from headstart.commands.main import main;"
        f"main(['monitor', {str(model)!r}, {str(usual)!r}, '--ledger', {str(tmp_path / 'ledger.json')!r}]);"
        "print(*sorted({'torch', 'polars', 'pydantic', 'scipy', 'sklearn', 'onnx', 'pandera'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


@pytest.fixture
def serving(model: Path, tmp_path: Path) -> Iterator[Serving]:
    with served(model, tmp_path / "log", "--monitor", str(tmp_path / "ledgers")) as started:
        yield started


def test_a_server_keeps_a_ledger_of_what_it_answers(serving: Serving, usual: Path, noise: Path, tmp_path: Path) -> None:
    for file in sorted(usual.rglob("*.jpg")):
        assert serving.predict(file.read_bytes())[0] == 200
    state = serving.get("/drift")["model"]
    assert state["alarm"] is None
    assert state["n_images"] == 40
    for file in sorted(noise.glob("*.png")):
        serving.predict(file.read_bytes())
    state = serving.get("/drift")["model"]
    assert 40 < state["alarm"]["n_images"] <= 80
    metrics = serving.text("/metrics")
    assert 'headstart_drift_alarm{model="model"} 1.0' in metrics
    assert 'headstart_drift_images{model="model"} 80.0' in metrics
    assert 'headstart_drift_evidence{model="model",score="novelty"}' in metrics
    with opened() as page:
        page.goto(serving.url)
        expect(page.locator("#drift .warn")).to_contain_text("Drift: at picture")
        expect(page.locator("#drift")).to_contain_text("80 pictures counted")
    serving.process.terminate()
    serving.process.wait(30)
    told = json.loads((tmp_path / "ledgers" / "model.json").read_text())
    assert told["bets"]["novelty"]["n_images"] == 80
    assert told["looks"][-1]["n_images"] == 80
    assert "WARNING:  model model: drift. After" in serving.log.read_text()


def test_without_the_option_nothing_is_watched(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path / "log") as serving:
        assert serving.get("/openapi.json")["paths"].keys().isdisjoint({"/drift"})
        with opened() as page:
            page.goto(serving.url)
            expect(page.locator("#drift")).to_be_hidden()


def test_the_flow_posts_a_table_and_pictures_tells_people_and_may_retrain(
    project: Project, model: Path, usual: Path, noise: Path, api: Api, server: Server, tmp_path: Path
) -> None:
    notify = notifying(project, api, server)
    shell = environment(project, PREFECT_API_URL=api.url)

    def looked(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.monitor", "--model", str(model), "--ledger", str(tmp_path / "l.json")]
        return subprocess.run([*command, *arguments], cwd=project.root, env=shell, capture_output=True, text=True)

    done = looked(str(usual), *notify)
    assert done.returncode == 0, done.stderr
    assert "no drift shown; 40 new images" in done.stdout
    assert server.posted == []
    done = looked(str(noise), "--retrain", *notify)
    assert done.returncode == 3, done.stderr
    assert "drift, alarm at image" in done.stdout
    assert "the pipeline ran" in done.stdout
    runs = api.asked("/flow_runs/filter", sort="START_TIME_DESC", limit=3)
    (run,) = [each for each in runs if each["state"]["name"] == "Drift"]
    found = api.asked("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    shown = {each["key"]: each["data"] for each in found}
    assert {"drift", "drift-over-time", "most-novel"} <= set(shown)
    assert "data:image/png;base64," in shown["drift-over-time"]
    assert "data:image/jpeg;base64," in shown["most-novel"]
    assert any(row["what"].startswith("odds of a change by novelty") for row in json.loads(shown["drift"]))
    (told,) = server.posted
    assert "drift, alarm at image" in told
    done = looked(str(noise), "--retrain", *notify)
    assert done.returncode == 3
    assert "the pipeline ran" not in done.stdout, "only the look that raises the alarm starts it"
    assert server.posted == [told]


def test_what_cannot_be_watched_is_told(base: Project, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    (lonely / "model.onnx").write_bytes((base.root / "artifacts" / "model" / "model.onnx").read_bytes())
    command = [sys.executable, "-m", "headstart", "serve", str(lonely), "--port", "0", "--monitor", str(tmp_path / "l")]
    done = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "reference.json does not exist" in done.stderr
    assert "Traceback" not in done.stderr
