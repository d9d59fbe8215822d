"""Join the three graphs to one model, and check it against the predictions of `evaluate`.

Reads the pieces, the predictions, and original files of the test split: all, or those on which a difference would show
first. Writes artifacts/export/. The stage fails unless the model gives evaluate's label on each of them, and its
probabilities within 1e-4.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from headstart.base import dataset, decisions, disk, licences, tables
from headstart.base.cores import n_cores
from headstart.base.errors import RejectedError
from headstart.base.files import located, replacing_folder, sha256_of, write_json, write_text
from headstart.base.licences import Licence
from headstart.base.progress import bar, say
from headstart.base.validation import ValidationSummary
from headstart.evaluation import folder as evaluation
from headstart.evaluation.candidates import Pieces, learned_from, pieces_of
from headstart.evaluation.folder import Comparison
from headstart.handover import bom, conformance, folder, hub, latency, parity
from headstart.handover.card import card
from headstart.handover.folder import Facts, Int8Model, ModelRecord, Outputs, Probabilities
from headstart.handover.model import FORMAT, NOVEL_ABOVE
from headstart.images import decoding, deep
from headstart.monitoring import reference
from headstart.onnx import backbone_folder, head_folder, model_folder, pieces, runtime

if TYPE_CHECKING:
    import polars as pl

    from headstart.evaluation.folder import Choice, TestScores
    from headstart.layout import Layout
    from headstart.monitoring.reference import Reference
    from headstart.params import Params

_SECONDS = 0.2  # that an image is asked about again and again, to say how long it takes


def run(params: Params, layout: Layout) -> None:
    """Join, check, write."""
    known = backbone_folder.read(layout.backbone)
    licences.check(Licence(known.licence, known.licence_source), known.name, params.export.licences)
    _refuse_a_worse_one(layout)
    predictions = evaluation.predictions(layout.evaluation)
    choice, test = evaluation.choice(layout.evaluation), evaluation.scores(layout.evaluation)
    head = head_folder.read(layout.head)
    validated = ValidationSummary.of(layout)
    facts = _facts(layout, choice, test, validated.bits or deep.ALL_BITS)
    chosen = pieces_of(layout, choice.chosen)
    model = _joined(chosen, chosen.network(), facts)
    disk.check_room(layout.export, len(model) * (2 if folder.int8_piece(layout.int8) else 1), "the model")
    manifest = tables.read(layout.manifest, tables.MANIFEST, "validate")
    checked = parity.most_telling(predictions, manifest, params.export.parity_images)
    files = [located(path, layout.images) for path in checked["path"]]
    tolerance = conformance.TOLERANCES["float32"]
    if choice.chosen != "tuned":
        tolerance = max(conformance.TOLERANCES[kept] for kept in (head.precision, head.dtype))
    with bar("checking model.onnx", len(files), "image") as advance:
        conformance.check_images(model, files, checked, facts, tolerance, advance)

    int8 = folder.read_int8(layout.int8)
    with replacing_folder(layout.export) as beside:
        (beside / model_folder.MODEL).write_bytes(model)
        if backbone := folder.int8_piece(layout.int8):
            (beside / model_folder.INT8_MODEL).write_bytes(_joined(chosen, backbone.read_bytes(), facts))
        n_images = params.export.conformance_images
        vectors = conformance.write_images(model, predictions, facts, layout.images, n_images, beside)
        record = _record(facts, test, int8, beside)
        folder.write_model(beside, record, conformance.expected(tolerance, vectors))
        reference.write(beside, _reference(predictions, record))
        name = PurePath(params.data.root).name
        told = card(
            record,
            head,
            choice,
            dataset=name,
            form=validated.form,
            decided=(decisions.told(decisions.read(layout.validation)), dataset.read_summary(layout).decided.told()),
            int8=int8.why,
            n_checked=len(files),
        )
        write_text(beside / model_folder.CARD, hub.with_metadata(told, record, name))
        parts = bom.of(record, dataset=name, form=validated.form, n_images=choice.n_images)
        write_json(beside / model_folder.BOM, parts)
        _write_sums(beside)
    session = runtime.session(model)
    image = decoding.decode(files[0].read_bytes(), facts.bits).rgb[None]
    took = latency.measure(model_folder.MODEL, lambda it: session.run(None, {"image": it}), image, n_cores(), _SECONDS)
    say(
        f"model.onnx gives evaluate's labels on {_how_many(len(files), len(predictions))} test images;"
        f" {len(model) / 1e6:.1f} MB,"
        f" {took.p50_ms:.1f} ms an image here"
    )


def _how_many(n_checked: int, n_images: int) -> str:
    if n_checked == n_images:
        return f"all {n_images}"
    return f"the {n_checked} most telling of {n_images}"


def _refuse_a_worse_one(layout: Layout) -> None:
    """RejectedError where the accepted model is significantly better."""
    comparison = evaluation.comparison(layout.evaluation)
    if isinstance(comparison, Comparison) and comparison.is_worse:
        raise RejectedError(
            f"rejected. {comparison.why} The model in artifacts/model stays as it is; the report"
            " says where this one fails. Set export.gate to null in params.yaml to hand it over all the same."
        )


def _facts(layout: Layout, choice: Choice, test: TestScores, bits: int) -> Facts:
    """Return the metadata of the model."""
    backbone = backbone_folder.read(layout.backbone)
    data = dataset.read(layout)
    return Facts(
        format=FORMAT,
        classes=data.classes,
        backbone=backbone.name,
        weights=backbone.weights,
        weights_sha256=backbone.weights_sha256,
        licence=backbone.licence,
        licence_source=backbone.licence_source,
        preprocessing=backbone.preprocessing,
        bits=bits,
        candidate=choice.chosen,
        training_data_sha256=data.digest(*learned_from(choice.chosen)),
        temperature=choice.temperature,
        abstain_below=test.abstain_below,
        label_sets=evaluation.label_sets(layout.evaluation),
        versions={"headstart": version("headstart"), "onnxruntime": version("onnxruntime"), **backbone.versions},
    )


def _joined(chosen: Pieces, backbone: bytes, facts: Facts) -> bytes:
    """Return the bytes of the one graph, with its facts as strings."""
    import onnx

    # What is as it was before there was a choice stays unsaid, so that such a model keeps its bytes.
    given = facts.model_dump(exclude_defaults=True)
    told = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    graphs = onnx.load(chosen.resize), onnx.load_from_string(backbone), onnx.load(chosen.head)
    return pieces.to_bytes(pieces.join(*graphs, told))


def _record(facts: Facts, test: TestScores, int8: folder.Int8Record, beside: Path) -> ModelRecord:
    in_integers = None
    if int8.chosen and int8.trial:
        digest = sha256_of(beside / model_folder.INT8_MODEL)
        in_integers = Int8Model(model_sha256=digest, why=int8.why, cpu=int8.trial.cpu)
    return ModelRecord(
        **dict(facts),
        model_sha256=sha256_of(beside / model_folder.MODEL),
        int8=in_integers,
        outputs=Outputs(probabilities=Probabilities(shape=("N", len(facts.classes)))),
        opset=pieces.OPSET,
        test=test,
    )


def _reference(predictions: pl.DataFrame, record: ModelRecord) -> Reference:
    """Return what `headstart monitor` compares new images with: what the model said to the held-out ones."""
    outputs = {
        "probabilities": np.array(predictions["probabilities"].to_list(), np.float32),
        "novelty": predictions["novelty"].to_numpy(),
    }
    labels = dataset.labels_of(predictions["label"], record.classes)
    return reference.of(outputs, labels, record.abstain_below, NOVEL_ABOVE, record.model_sha256)


def _write_sums(beside: Path) -> None:
    """Write the SHA-256 of every file, as `sha256sum --check` reads it."""
    names = sorted(path.relative_to(beside).as_posix() for path in beside.rglob("*") if path.is_file())
    write_text(beside / model_folder.SUMS, "".join(f"{sha256_of(beside / name)}  {name}\n" for name in names))
