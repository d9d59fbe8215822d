"""Which held-out files the exported model is run on, where it is not run on all."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from headstart.handover.parity import most_telling

N, N_CLASSES = 2000, 30


@pytest.fixture(scope="module")
def held_out() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Predictions, and the manifest of these images and others."""
    random = np.random.default_rng(0)
    image_ids = sorted(f"{number:064x}" for number in random.integers(0, 2**60, N + 500))
    probabilities = random.dirichlet(np.full(N_CLASSES, 0.1), N).astype(np.float32)
    endings = [".jpg"] * (N - 3) + [".PNG", ".gif", ".jpeg"]
    names = np.array([f"class {label}" for label in range(N_CLASSES)])
    predictions = pl.DataFrame(
        {
            "image_id": image_ids[:N],
            "path": [f"photos/{number}{ending}" for number, ending in enumerate(endings)],
            "label": names[random.integers(0, N_CLASSES, N)],
            "predicted": names[probabilities.argmax(1)],
            "probabilities": pl.Series(probabilities.tolist(), dtype=pl.List(pl.Float32)),
        }
    )
    manifest = pl.DataFrame(
        {
            "image_id": image_ids,
            "format": ["JPEG"] * (N - 3) + ["PNG", "GIF", "JPEG"] + ["JPEG"] * 500,
            "width_px": pl.Series(random.integers(200, 400, N + 500) * 2, dtype=pl.Int32),
            "height_px": pl.Series(random.integers(200, 400, N + 500) * 2, dtype=pl.Int32),
        }
    )
    odd = pl.Series([5, 4001, 301, *manifest["width_px"][3:]], dtype=pl.Int32)
    return predictions, manifest.with_columns(width_px=odd)


def test_what_would_show_a_difference_first_is_among_the_chosen(held_out: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    predictions, manifest = held_out
    chosen = most_telling(predictions, manifest, 256)
    assert len(chosen) == 256
    assert set(predictions["image_id"][:3]) <= set(chosen["image_id"])  # the narrowest, the widest, an odd number
    assert {".jpg", ".PNG", ".gif", ".jpeg"} <= set(chosen["path"].str.extract(r"(\.\w+)$"))
    assert set(chosen["label"]) == set(predictions["label"])
    assert set(chosen["predicted"]) == set(predictions["predicted"])
    top = predictions["probabilities"].list.sort(descending=True)
    margin = predictions.with_columns(margin=top.list.get(0) - top.list.get(1)).sort("margin")
    assert set(margin["image_id"][:60]) <= set(chosen["image_id"])
    assert margin.join(chosen, on="image_id")["margin"].max() > 0.5  # and others, whatever their certainty


def test_the_chosen_keep_the_order_of_the_predictions_and_are_the_same_every_time(
    held_out: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    predictions, manifest = held_out
    chosen = most_telling(predictions, manifest, 100)
    assert chosen["image_id"].is_sorted()
    assert chosen.equals(most_telling(predictions, manifest.sample(fraction=1, shuffle=True, seed=1), 100))


@pytest.mark.parametrize("wanted", [None, 0, N, 5000])
def test_all_are_available(held_out: tuple[pl.DataFrame, pl.DataFrame], wanted: int | None) -> None:
    predictions, manifest = held_out
    assert most_telling(predictions, manifest, wanted).equals(predictions)


@pytest.mark.parametrize("wanted", [1, 3, 40])
def test_few_are_as_many_as_wanted(held_out: tuple[pl.DataFrame, pl.DataFrame], wanted: int) -> None:
    assert len(most_telling(*held_out, wanted)) == wanted
