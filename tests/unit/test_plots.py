from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from headstart.embedding import contact_sheet
from headstart.evaluation import confusion_plot


@pytest.mark.parametrize("n_classes", [2, 10, 40])
def test_a_confusion_matrix_is_dark_where_it_should_be(n_classes: int) -> None:
    confusion = np.eye(n_classes, dtype=np.int64) * 9
    confusion[0] = 0  # a class without images
    picture = np.asarray(
        Image.open(io.BytesIO(confusion_plot.confusion_matrix(confusion, [f"class {i}" for i in range(n_classes)])))
    )
    blue = (picture[..., 2] > picture[..., 0].astype(int) + 40).sum(axis=(0, 1))
    share = blue / picture[..., 0].size
    assert 0.2 / n_classes < share < 1.2 / n_classes


def test_a_contact_sheet_has_a_row_a_class_and_shows_each_image() -> None:
    red, blue = np.zeros((2, 224, 112, 3), np.uint8)
    red[..., 0] = blue[..., 2] = 255
    sheet = Image.open(
        io.BytesIO(contact_sheet.contact_sheet({"ants": [red, red, red], "a very long name of bees": [blue]}))
    )
    assert sheet.format == "JPEG"
    values = np.asarray(sheet).astype(int)
    half = len(values) // 2
    n_red = (values[:half, :, 0] - values[:half, :, 2] > 150).sum()
    n_blue = (values[half:, :, 2] - values[half:, :, 0] > 150).sum()
    assert n_red == pytest.approx(3 * n_blue, rel=0.1)
    assert n_blue == pytest.approx(88 * 44, rel=0.1)
    assert not (values[:half, :, 2] - values[:half, :, 0] > 150).any()
