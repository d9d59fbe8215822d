"""Which held-out images the exported model is run on, where it is not run on all."""

from __future__ import annotations

import polars as pl

_ODD = 4  # images of each extreme of size and shape


def most_telling(predictions: pl.DataFrame, manifest: pl.DataFrame, n_images: int | None) -> pl.DataFrame:
    """Return the rows of up to `n_images` predictions on which a wrong graph would show first; None or 0: all.

    First come one file of each format and ending, the images of the oddest sizes and shapes, and the least certain one
    of each class, true and predicted. Half of what is left goes to the least certain images, half to any others.
    """
    if not n_images or n_images >= len(predictions):
        return predictions
    top = pl.col("probabilities").list.sort(descending=True)
    width, height = pl.col("width_px").cast(pl.Int64), pl.col("height_px").cast(pl.Int64)
    rows = (
        predictions.select("image_id", "path", "label", "predicted", margin=top.list.get(0) - top.list.get(1))
        .join(manifest.select("image_id", "format", "width_px", "height_px"), on="image_id", how="left")
        .with_columns(
            ending=pl.col("path").str.to_lowercase().str.extract(r"(\.[^./]*)$"),
            area=width * height,
            shape=width / height,
            oddness=(width % 2) + (height % 2),
        )
        .sort("margin", "image_id")
    )
    first = [rows.unique(["format", "ending"], keep="first", maintain_order=True)["image_id"]]
    for name in ("area", "shape", "width_px", "height_px"):
        first += [rows.sort(name, "image_id", descending=falling)["image_id"].head(_ODD) for falling in (False, True)]
    first.append(rows.sort("oddness", "image_id", descending=True)["image_id"].head(_ODD))
    first += [rows.unique(name, keep="first", maintain_order=True)["image_id"] for name in ("label", "predicted")]
    chosen = pl.concat(first).unique(maintain_order=True).head(n_images)
    others = rows.filter(~pl.col("image_id").is_in(chosen.implode()))["image_id"]
    unsure = others.head((n_images - len(chosen)) // 2)
    some = others[len(unsure) :].sort().head(n_images - len(chosen) - len(unsure))  # an image_id is a hash
    wanted = pl.concat([chosen, unsure, some])
    return predictions.filter(pl.col("image_id").is_in(wanted.implode()))
