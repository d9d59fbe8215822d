"""Score the candidates on the held-out test split, and record the results of the one that ships in detail.

Reads the features of the test split, the heads and earlier stages' records of the data; writes artifacts/evaluation/.
Validation alone decides whether the frozen or the fine-tuned backbone ships; the adapted head ships if adapt.ship is
true and there is one. Only this stage, `report` and `export` read the test split, and none of them chooses or fits
anything by it; nor by the labels that a manifest gives to some of the images without labels, which are read here alone.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from headstart.base import dataset, label_sets, validation
from headstart.base.cores import n_cores
from headstart.base.dataset import TEST, TRAIN, VAL, Dataset, Images
from headstart.base.errors import DataError
from headstart.base.files import located, replacing_folder, write_csv
from headstart.base.progress import bar, say, show_image, warn
from headstart.embedding import features, pixels
from headstart.embedding.batches import CPU_BATCH, in_batches
from headstart.evaluation import accepted, elsewhere, folder, imbalance, metrics, slices
from headstart.evaluation.candidates import CANDIDATES, contest, decide, pieces_of
from headstart.evaluation.confusion_plot import confusion_matrix
from headstart.evaluation.folder import (
    Candidate,
    Choice,
    Comparison,
    Contest,
    LabelSets,
    NotComparable,
    Scores,
    TestScores,
)
from headstart.evaluation.predictions import Answers, answers_of, class_records, predictions_table, thinned
from headstart.images import decoding, deep, formats
from headstart.onnx import adapt_folder, finetune_folder, head_folder, runtime
from headstart.onnx.model_folder import MODEL

if TYPE_CHECKING:
    from headstart.evaluation.accepted import Accepted
    from headstart.layout import Layout
    from headstart.onnx.finetune_folder import TunedRecord
    from headstart.params import Evaluate, Params


def run(params: Params, layout: Layout) -> None:
    """Predict, choose the candidate, score it, and write the results."""
    data = dataset.read(layout)
    test = data.of(TEST)
    if not len(test):
        raise DataError("the test split is empty. Held-out images were expected. Raise split.test_fraction.")
    tuned = finetune_folder.read(layout.finetune)
    counts = data.of(TRAIN, VAL).counts(len(data.classes))
    majority = int(counts.argmax())
    adapted = adapt_folder.read(layout.adapt)
    answers = _answers(layout, test, tuned, adapted.is_adapted)
    evaluations = {name: _evaluated(params.evaluate, each, test, majority) for name, each in answers.items()}
    scores = {name: Scores.model_validate(evaluation.scores) for name, evaluation in evaluations.items()}
    choice = _choice(layout, data, tuned, answers, scores)
    if params.adapt.ship and adapted.is_adapted:
        choice = _of_frozen(layout, "adapted", choice.contest)
    ours = answers[choice.chosen]
    told = _with_abstention(params.evaluate, scores[choice.chosen], ours, test.labels, choice, layout)
    sets = _label_sets(params.evaluate.coverage, _held_out_answers(choice.chosen, layout), data)
    told = told.model_copy(
        update={"class_ratio": round(imbalance.ratio(counts), 6), **_of_sets(params.evaluate, sets, ours, test)}
    )
    predictions = predictions_table(test, ours, data.classes)
    told_apart = slices.slices(
        validation.slices(layout), test.image_ids, predictions["correct"].to_numpy(), test.groups
    )
    there = elsewhere.of(layout, data.classes, scores, ships=choice.chosen == "adapted")
    compared = None
    if reference := accepted.read(layout.accepted):
        compared = _compared(reference, predictions, data, params.evaluate, layout)
        say(compared.why)

    with replacing_folder(layout.evaluation) as beside:
        calibrated = metrics.reliability(test.labels, ours.probabilities, params.evaluate.ece_bins)
        curve = metrics.risk_coverage(ours.probabilities.max(1), ours.predicted == test.labels)
        write_csv(beside / folder.CONFUSION, predictions.select("label", "predicted"))
        write_csv(beside / folder.RELIABILITY, pl.DataFrame([each._asdict() for each in calibrated]))
        write_csv(beside / folder.RISK_COVERAGE, thinned(curve))
        of_classes = class_records(data.classes, evaluations[choice.chosen].per_class)
        folder.write(beside, predictions, told, of_classes, choice, compared, sets)
        elsewhere.write(beside, there)
        slices.write(beside, told_apart)
    confusion = metrics.confusion_matrix(test.labels, ours.predicted, len(data.classes))
    show_image("confusion-matrix", lambda: confusion_matrix(confusion, data.classes), "The held-out images")
    if why := imbalance.warning(data.classes, counts, told.majority_accuracy):
        warn(why)
    if sets.holds_all:  # what other sets rest on is in the report
        warn(f"label sets: {sets.basis}")
    if why := slices.warning(told_apart):
        warn(why)
    if there.labelled:
        say(there.labelled.told)
    if there.ships:
        warn("the adapted head ships: the next figure is of held-out images, which are not from elsewhere")
    say(told.headline.told(told.n_images))


def _answers(layout: Layout, test: Images, tuned: TunedRecord | None, is_adapted: bool) -> dict[Candidate, Answers]:
    """Return each candidate's answers on the test images."""
    cached = features.opened(layout).at(head_folder.read(layout.head).levels).read(test.image_ids)
    answers: dict[Candidate, Answers] = {"frozen": answers_of(pieces_of(layout, "frozen").head, cached)}
    if is_adapted:
        answers["adapted"] = answers_of(pieces_of(layout, "adapted").head, cached)
    if tuned:
        pieces, source = pieces_of(layout, "tuned"), pixels.opened(layout)
        session = runtime.session(pieces.network(), threads=1)  # each core runs its own batch

        def backbone(batch: np.ndarray) -> np.ndarray:
            found: np.ndarray = session.run(None, {"pixels": batch})[0]
            return found

        with bar("embedding", len(test), "image") as advance:
            fresh = in_batches(backbone, source, test.where, CPU_BATCH, n_cores(), advance)[:, 0]
        answers["tuned"] = answers_of(pieces.head, fresh)
    return answers


def _evaluated(settings: Evaluate, answers: Answers, test: Images, majority: int) -> metrics.Evaluation:
    return metrics.evaluate(
        test.labels,
        answers.probabilities,
        test.groups,
        majority_label=majority,
        bootstrap_samples=settings.bootstrap_samples,
        ece_bins=settings.ece_bins,
        seed=settings.seed,
    )


def _choice(
    layout: Layout,
    data: Dataset,
    tuned: TunedRecord | None,
    answers: dict[Candidate, Answers],
    scores: dict[Candidate, Scores],
) -> Choice:
    """Return which candidate ships, by validation, with the comparison on the test images."""
    if not tuned:
        return _of_frozen(layout, "frozen", None)
    validation = finetune_folder.validation(layout.finetune)
    group_of = dict(data.table.select("image_id", "group").iter_rows())
    groups = np.array([group_of[image_id] for image_id in validation["image_id"]])
    decision = decide(validation, groups, tuned.n_epochs)
    say(decision.why)
    labels = data.of(TEST).labels
    right = {name: answers[name].predicted == labels for name in CANDIDATES}
    told = contest(decision, {name: scores[name] for name in CANDIDATES}, right, tuned.best_epoch)
    if decision.chosen == "frozen":
        return _of_frozen(layout, "frozen", told)
    return Choice(
        chosen="tuned",
        n_images=tuned.n_train,
        temperature=tuned.temperature,
        calibration=tuned.calibration,
        contest=told,
    )


def _of_frozen(layout: Layout, chosen: Candidate, told: Contest | None) -> Choice:
    """Return the choice of the frozen backbone, with its own head or the adapted one."""
    head = head_folder.read(layout.head)
    return Choice(
        chosen=chosen,
        n_images=head.n_images,
        temperature=head.temperature,
        calibration=head.calibration,
        contest=told,
    )


def _with_abstention(
    settings: Evaluate, scores: Scores, answers: Answers, labels: np.ndarray, choice: Choice, layout: Layout
) -> TestScores:
    """Return the scores, with those of a model that abstains below its threshold."""
    wanted = settings.wanted_accuracy
    held_out = _held_out_answers(choice.chosen, layout)
    threshold = metrics.abstain_threshold(held_out["probability"].to_numpy(), held_out["correct"].to_numpy(), wanted)
    answered, right = answers.probabilities.max(1) >= threshold, answers.predicted == labels
    shift = np.array(head_folder.read(layout.head).training.shift)
    raw = metrics.before_calibration(answers.probabilities, choice.temperature, shift)
    ece_before = metrics.expected_calibration_error(metrics.reliability(labels, raw, settings.ece_bins))
    return TestScores(
        **scores.model_dump(),
        wanted_accuracy=wanted,
        abstain_below=round(threshold, 6),
        coverage=round(float(answered.mean()), 6),
        selective_accuracy=round(float(right[answered].mean()), 6) if answered.any() else None,
        ece_before=round(ece_before, 6),
    )


def _held_out_answers(chosen: Candidate, layout: Layout) -> pl.DataFrame:
    """Return `tables.OUT_OF_FOLD` of the chosen candidate: its answers on images that it was not trained on.

    Of the adapted head, those of the head that it was made from: what that is behind the map is for images elsewhere.
    """
    if chosen != "tuned":
        return head_folder.out_of_fold(layout.head)
    own = {name: f"tuned_{name}" for name in ("correct", "probability", "mass_above")}
    return finetune_folder.validation(layout.finetune).select("image_id", **own)


def _label_sets(coverage: float, held_out: pl.DataFrame, data: Dataset) -> LabelSets:
    """Return the quantiles of label sets by `tables.OUT_OF_FOLD`."""
    known = data.of(TRAIN, VAL)
    row_of = {image_id: row for row, image_id in enumerate(known.image_ids)}
    seen = known[np.array([row_of[image_id] for image_id in held_out["image_id"]])]
    scores = held_out["mass_above"].to_numpy()
    found = label_sets.quantiles(scores, seen.labels, seen.groups, len(data.classes), coverage)
    n_groups = len(np.unique(seen.groups))
    return LabelSets(coverage=coverage, quantiles=found.tolist(), n_images=len(seen), n_groups=n_groups)


def _of_sets(settings: Evaluate, sets: LabelSets, answers: Answers, test: Images) -> dict[str, float]:
    """Return the scores of the label sets of the held-out images."""
    held = label_sets.members(answers.probabilities, np.array(sets.quantiles))
    right = held[np.arange(len(test)), test.labels]
    interval = metrics.share_interval(right, test.groups, settings.bootstrap_samples, settings.seed)
    found = {"": float(right.mean()), "_low": interval.low, "_high": interval.high}
    told = {f"set_coverage{end}": round(value, 6) for end, value in found.items()}
    return {**told, "mean_set_size": round(float(held.sum(1).mean()), 6)}


def _compared(
    reference: Accepted, predictions: pl.DataFrame, data: Dataset, settings: Evaluate, layout: Layout
) -> Comparison | NotComparable:
    """Run the accepted model on the original files of the test split and compare, if it has the same classes."""
    version = reference.version
    with TemporaryDirectory() as name:
        file = accepted.fetch(reference, layout, Path(name) / MODEL)
        session = runtime.session(file, threads=1)  # the pool below is the parallelism
    facts = session.get_modelmeta().custom_metadata_map
    classes, bits = json.loads(facts["classes"]), int(facts.get("bits", deep.ALL_BITS))
    if why := accepted.not_comparable(version, data.classes, classes):
        return NotComparable(version=version, why=why)
    rows = list(predictions.select("image_id", "path", "label").iter_rows())
    images_folder = layout.images
    with bar(f"running {version}", len(rows), "image") as advance:

        def is_right(row: tuple[str, str, str]) -> bool:
            image_id, where, label = row
            data = decoding.read_unchanged(located(where, images_folder), image_id)
            advance(1)
            try:
                rgb = decoding.decode(data, bits).rgb
            except formats.UnreadableError:  # its values use more bits than this model has learned from
                return False
            found = session.run(["label_index"], {"image": rgb[None]})[0]
            return bool(classes[int(found[0])] == label)

        with ThreadPoolExecutor(n_cores()) as pool:
            accepted_right = np.array(list(pool.map(is_right, rows)))
    ours, groups = predictions["correct"].to_numpy(), data.of(TEST).groups
    return accepted.compare(version, ours, accepted_right, groups, settings.bootstrap_samples, settings.seed)
