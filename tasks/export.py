"""Join the three graphs to the one model that ships, and hold it to the predictions of `evaluate`.

Reads the pieces, the head, the predictions and the original files of the test split; writes artifacts/model/. The stage
refuses to finish unless the model gives evaluate's label on every test image and its probabilities within 1e-4.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import polars as pl
from PIL import Image

from headstart import images
from headstart.base import tables
from headstart.base.cores import n_cores
from headstart.base.errors import CheckError, RejectedError, count_and_name
from headstart.base.files import (
    located,
    read_json,
    read_safetensors,
    replacing_folder,
    sha256_of,
    write_json,
    write_text,
)
from headstart.base.progress import bar, say
from headstart.handover import latency
from headstart.handover.model import FORMAT
from headstart.heads.graph import head_of
from headstart.onnx import pieces, runtime

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params

# Of a probability, between the joined graph in float32 at batch 1 and the features as `embed` computed and kept them.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}

_SECONDS = 0.2  # that an image is asked about again and again, to say how long it takes
_ORIENTATION = 0x0112  # the EXIF tag

CARD = """# Model card

An image classifier with {n_classes} classes: {classes}.

- **Backbone** {backbone}, {how}. Weights: {weights} (SHA-256 `{weights_sha256}`), licence: {licence}.
- **Head** {head}, trained on {n_train} images. Temperature {temperature}.
- **Data** {dataset}, {form}; SHA-256 of the training images and labels `{data_sha256}`.
- **Result on {n_test} held-out images** accuracy {accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}),
  macro F1 {macro_f1:.4f} ({macro_f1_low:.4f} to {macro_f1_high:.4f}), log loss {log_loss:.4f}, expected calibration
  error {ece:.4f}.
- **Abstaining** below a probability of {abstain_below:.4f} it answers {coverage:.2%} of these images, {selective}.
- **int8** {int8}

## Use
`image` is uint8 [N, H, W, 3], RGB, upright (EXIF applied), any size; resizing, cropping and normalisation are inside
the model. It gives `probabilities` float32 [N, {n_classes}] and `label_index` int64 [N], in the order of the classes
above, and `novelty` float32 [N] in 0..1: the share of held-out images that are nearer to what was trained on.

    headstart predict FOLDER_OF_THIS_FILE photo.jpg
    headstart verify FOLDER_OF_THIS_FILE

## Limits
The figures hold for images drawn as the training images were. The model names one of its classes for any image,
also for one that shows none of them: look at `novelty`. Only the centre square of an image is seen.
"""


def gate(
    model: bytes,
    files: list[Path],
    predictions: pl.DataFrame,
    classes: list[str],
    tolerance: float = TOLERANCES["float32"],
    advance: Callable[[int], None] = lambda n: None,
) -> None:
    """Run the model on each of the original files; CheckError where it is not what `evaluate` reported.

    Where features were computed or kept in half precision, a label may differ if both classes are within the tolerance.
    """
    session = runtime.session(model, threads=1)  # the pool below is the parallelism
    rows = list(predictions.select("image_id", "path", "predicted", "probabilities").iter_rows())

    def answer(file: Path, image_id: str) -> tuple[np.ndarray, int]:
        rgb = images.decode(images.read_unchanged(file, image_id)).rgb
        probabilities, label_index = session.run(["probabilities", "label_index"], {"image": rgb[None]})
        advance(1)
        return probabilities[0], int(label_index[0])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = pool.map(answer, files, [row[0] for row in rows])
        other_labels, apart, furthest = [], [], 0.0
        for (probabilities, index), (_, path, predicted, expected) in zip(answers, rows, strict=True):
            difference = float(np.abs(probabilities - np.asarray(expected, np.float32)).max())
            furthest = max(furthest, difference)
            margin = max(expected) - expected[index]
            if classes[index] != predicted and (tolerance == TOLERANCES["float32"] or margin > 2 * tolerance):
                other_labels.append(path)
            if not difference <= tolerance:
                apart.append(path)
    if other_labels or apart:
        raise CheckError(
            f"model.onnx gives another label than evaluate on {len(other_labels)} and other probabilities on"
            f" {len(apart)} of {len(files)} test images ({count_and_name(other_labels or apart)}), by up to"
            f" {furthest:.1e}. The same labels and at most {tolerance:.0e} were expected. Run `dvc repro --force"
            " backbone`; if it stays, please report it."
        )


def conformance_rows(predictions: pl.DataFrame, n_images: int) -> pl.DataFrame:
    """Return up to `n_images` rows, evenly spaced from the least to the most confident prediction."""
    ordered = predictions.sort("probability", "image_id")
    picks = np.unique(np.linspace(0, len(ordered) - 1, min(n_images, len(ordered))).round().astype(int))
    return ordered[picks]


def odd_images(rgb: np.ndarray) -> dict[str, bytes]:
    """Return image files that a careless reader gets wrong, made of one picture uint8 [H, W, 3]: name -> bytes."""
    picture = Image.fromarray(rgb)
    turned = Image.Exif()
    turned[_ORIENTATION] = 6  # shown turned by 90 degrees
    return {
        "gray.jpg": _encoded(picture.convert("L"), "JPEG"),
        "turned.jpg": _encoded(picture, "JPEG", exif=turned),
        "transparent.png": _encoded(Image.merge("RGBA", (*picture.split(), picture.convert("L"))), "PNG"),
        "tiny.png": _encoded(picture.resize((7, 5)), "PNG"),
        "huge.jpg": _encoded(picture.resize((4000, 3000)), "JPEG", quality=50),
        "wide.png": _encoded(picture.resize((900, 12)), "PNG"),
    }


def _encoded(picture: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def training_digest(manifest: pl.DataFrame, splits: pl.DataFrame, learned_from: list[str]) -> str:
    """Return the digest of the images and labels that the model was trained on: those of some splits."""
    trained = splits.filter(pl.col("split").is_in(learned_from)).select("image_id")
    return tables.data_digest(manifest.join(trained, on="image_id", how="semi"))


def _odd_vectors(model: bytes, classes: list[str], folder: Path, surest: str) -> list[dict[str, Any]]:
    """Write the odd images made of the file `surest` to `folder`; return what the model says of each."""
    session = runtime.session(model)
    vectors = []
    for name, data in odd_images(images.decode((folder / surest).read_bytes()).rgb).items():
        (folder / name).write_bytes(data)
        found = session.run(["probabilities"], {"image": images.decode(data).rgb[None]})[0][0]
        probabilities = [float(value) for value in found]
        vectors.append({"file": name, "label": classes[int(found.argmax())], "probabilities": probabilities})
    return vectors


def run(params: Params, layout: Layout) -> None:
    """Join, gate, write."""
    manifest = tables.read(layout.manifest, tables.MANIFEST, "validate")
    splits = tables.read(layout.splits, tables.SPLITS, "split")
    predictions = tables.read(layout.evaluation / "predictions.parquet", tables.PREDICTIONS, "evaluate")
    test = read_json(layout.evaluation / "metrics.json", "evaluate")["test"]
    backbone = read_json(layout.backbone / "backbone.json", "backbone")
    head = read_json(layout.head / "head.json", "train_head")
    validated = read_json(layout.validation / "summary.json", "validate")
    choice = read_json(layout.evaluation / "candidates.json", "evaluate")
    comparison = read_json(layout.evaluation / "comparison.json", "evaluate")
    int8 = read_json(layout.int8 / "int8.json", "quantize")
    if comparison["accepted"] and comparison["is_worse"]:
        raise RejectedError(
            f"rejected. {comparison['why']} The model in {layout.model.relative_to(layout.root)} stays as it is; the"
            " report says where this one fails. Set export.gate to null in params.yaml to hand it over all the same."
        )
    is_tuned = choice["chosen"] == "tuned"
    trained_in, trained_by = (layout.finetune, "finetune") if is_tuned else (layout.head, "train_head")
    weights = read_safetensors(trained_in / "head.safetensors", trained_by)

    facts = {
        "format": FORMAT,
        "classes": head["classes"],
        "backbone": backbone["name"],
        "weights": backbone["weights"],
        "weights_sha256": backbone["weights_sha256"],
        "licence": backbone["licence"],
        "preprocessing": backbone["preprocessing"],
        "candidate": choice["chosen"],
        "training_data_sha256": training_digest(manifest, splits, ["train"] if is_tuned else ["train", "val"]),
        "temperature": choice["temperature"],
        "abstain_below": test["abstain_below"],
        "versions": {"headstart": version("headstart"), "onnxruntime": version("onnxruntime"), **backbone["versions"]},
    }

    def joined(backbone_file: Path) -> bytes:
        parts = onnx.load(layout.backbone / "resize.onnx"), onnx.load(backbone_file), head_of(weights)
        metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
        return pieces.to_bytes(pieces.join(*parts, metadata))

    model = joined((layout.finetune if is_tuned else layout.backbone) / "backbone.onnx")
    folder_of_images = layout.images_folder(params.data.root)
    files = [located(path, folder_of_images) for path in predictions["path"]]
    embedding = head["embedding"]
    tolerance = TOLERANCES["float32"] if is_tuned else max(TOLERANCES[embedding[it]] for it in ("precision", "dtype"))
    with bar("checking model.onnx", len(files), "image") as advance:
        gate(model, files, predictions, head["classes"], tolerance, advance)

    with replacing_folder(layout.model) as folder:
        (folder / "model.onnx").write_bytes(model)
        if int8["chosen"]:
            (folder / "model.int8.onnx").write_bytes(joined(layout.int8 / "backbone.int8.onnx"))
        (folder / "conformance").mkdir()
        vectors = []
        for row in conformance_rows(predictions, params.export.conformance_images).iter_rows(named=True):
            name = row["image_id"][:16] + PurePosixPath(row["path"]).suffix.lower()
            (folder / "conformance" / name).write_bytes(located(row["path"], folder_of_images).read_bytes())
            vectors.append({"file": name, "label": row["predicted"], "probabilities": row["probabilities"]})
        if vectors:
            vectors += _odd_vectors(model, head["classes"], folder / "conformance", vectors[-1]["file"])
        write_json(folder / "conformance" / "expected.json", {"tolerance": tolerance, "images": vectors})
        write_json(
            folder / "model.json",
            {
                "format": FORMAT,
                "model_sha256": sha256_of(folder / "model.onnx"),
                "int8": {
                    "model_sha256": sha256_of(folder / "model.int8.onnx"),
                    **{name: int8[name] for name in ("why", "cpu")},
                }
                if int8["chosen"]
                else None,
                "input": {"name": "image", "dtype": "uint8", "shape": ["N", "H", "W", 3], "colours": "RGB"},
                "outputs": {
                    "probabilities": {"dtype": "float32", "shape": ["N", len(head["classes"])]},
                    "label_index": {"dtype": "int64", "shape": ["N"]},
                    "novelty": {"dtype": "float32", "shape": ["N"]},
                },
                "opset": pieces.OPSET,
                **facts,
                "test": test,
            },
        )
        card = CARD.format(
            n_classes=len(head["classes"]),
            classes=", ".join(head["classes"]),
            backbone=backbone["name"],
            weights=backbone["weights"],
            weights_sha256=backbone["weights_sha256"],
            licence=backbone["licence"],
            how=f"fine-tuned for {choice['best_epoch']} epochs" if is_tuned else "frozen",
            head="linear, trained with the backbone from a logistic regression on" if is_tuned else head["kind"],
            n_train=choice["n_images"],
            temperature=choice["temperature"],
            n_test=test["n_images"],
            accuracy=test["accuracy"],
            low=test["accuracy_low"],
            high=test["accuracy_high"],
            macro_f1=test["macro_f1"],
            log_loss=test["log_loss"],
            ece=test["ece"],
            macro_f1_low=test["macro_f1_low"],
            macro_f1_high=test["macro_f1_high"],
            dataset=PurePath(params.data.root).name,
            form=validated["form"],
            data_sha256=facts["training_data_sha256"],
            abstain_below=test["abstain_below"],
            coverage=test["coverage"],
            selective="none" if test["coverage"] == 0 else f"{test['selective_accuracy']:.2%} of them rightly",
            int8=int8["why"],
        )
        write_text(folder / "MODEL_CARD.md", card)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        sums = [f"{sha256_of(folder / name)}  {name}\n" for name in names]  # as `sha256sum --check` reads it
        write_text(folder / "SHA256SUMS", "".join(sums))
    session = runtime.session(model)
    image = images.decode(files[0].read_bytes()).rgb[None]
    took = latency.measure("model.onnx", lambda it: session.run(None, {"image": it}), image, n_cores(), _SECONDS)
    say(
        f"model.onnx gives evaluate's labels on all {len(files)} test images; {len(model) / 1e6:.1f} MB,"
        f" {took.p50_ms:.1f} ms for one image here"
    )
