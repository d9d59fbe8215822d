"""Does the ranking of frozen features hold after fine-tuning? Held-out accuracy of each candidate, frozen and tuned."""

from __future__ import annotations

import json

import numpy as np
from scipy.stats import kendalltau, pearsonr

from benchmarks.harness import arguments, assign, machine, project, result, run, table

CANDIDATES = {
    "tf_efficientnet_lite0": "bundled",
    "tf_efficientnet_lite1": "bundled",
    "tf_efficientnet_lite2": "bundled",
    "mobilenet_v2": "bundled",
    "resnet18": "random",
}
_STAGES = ("backbone", "transform", "embed", "train_head", "finetune", "find_accepted", "evaluate")


def main() -> None:
    """Print a row a candidate, and one line of JSON for the correlation."""
    given = arguments(__doc__, epochs=4, candidates=[*CANDIDATES])
    rows = []
    with project() as root:
        named = ", ".join(f"{{name: {name}, weights: {CANDIDATES[name]}}}" for name in given.candidates)
        assign(root, data__root=given.data, export__licences="any", rank__backbones=f"[{named}]", export__gate="null")
        assign(root, rank__racing="false", finetune__enabled="true", finetune__epochs=given.epochs)
        for stage in ("validate", "split", "rank"):
            run(root, "python", "-m", "tasks", stage)
        entries = json.loads((root / "artifacts" / "ranking" / "ranking.json").read_text())["entries"]
        for entry in entries:
            name = entry["name"].partition("/")[2]
            assign(root, backbone__name=name, backbone__weights=CANDIDATES[name])
            seconds = {stage: run(root, "python", "-m", "tasks", stage)[0] for stage in _STAGES}
            contest = json.loads((root / "artifacts" / "evaluation" / "candidates.json").read_text())["contest"]
            frozen, tuned = (contest["test"][which] for which in ("frozen", "tuned"))
            row = [name, entry["accuracy"], entry["log_loss"], frozen["accuracy"], tuned["accuracy"]]
            rows.append([*row, frozen["log_loss"], tuned["log_loss"], seconds["finetune"]])
            print(f"{name}: {frozen['accuracy']:.2%} frozen, {tuned['accuracy']:.2%} tuned", flush=True)
    header = ["candidate", "ranked: accuracy", "log loss", "held out, frozen", "tuned", "log loss, frozen", "tuned"]
    table([*header, "seconds of finetune"], rows)
    print(machine())
    ranked, tuned = np.array([row[2] for row in rows]), np.array([row[4] for row in rows])
    result("correlation_of_ranking_with_tuned_accuracy", float(pearsonr(-ranked, tuned)[0]), "", None, None)
    result("kendall_tau_of_ranking_with_tuned_accuracy", float(kendalltau(-ranked, tuned)[0]), "", None, None)


if __name__ == "__main__":
    main()
