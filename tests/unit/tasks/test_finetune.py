from __future__ import annotations

import numpy as np
import pytest

from headstart.base.errors import CheckError, ParamError
from headstart.tuning.history import Epoch, Pace
from headstart.tuning.outcome import checked_parity
from headstart.tuning.plan import check_share, precision_on
from tasks.finetune import check_step_0, line_of
from tests.support.training import PARAMS

BEFORE = Epoch(0, None, 0.2476, 0.857143, 0.0, 0.0, 1000)
FIRST = Epoch(1, 0.5, 0.25, 0.9, 1e-4, 6.4e-5, 1_496_322)


def test_an_epoch_is_told_in_one_line() -> None:
    assert line_of(BEFORE, None, 6) == "before training: val log loss 0.2476, val accuracy 85.71%"
    assert line_of(FIRST, Pace(45.3, 23.4), 6) == (
        "epoch 1/6: train loss 0.5000, val log loss 0.2500, val accuracy 90.00%, learning rate 1.0e-04 to 6.4e-05,"
        " 1,496,322 trainable, 45 images/s, 23 s left"
    )
    assert "learning rate 1.0e-04, 1," in line_of(FIRST._replace(lowest_learning_rate=1e-4), None, 6)


def test_another_start_than_the_probe_is_refused() -> None:
    check_step_0(BEFORE, 0.2480, "float32")
    check_step_0(BEFORE, 0.2800, "bfloat16")
    with pytest.raises(CheckError, match=r"log loss on validation is 0\.2476, but that of the head that .* 0\.2800"):
        check_step_0(BEFORE, 0.2800, "float32")
    with pytest.raises(CheckError):
        check_step_0(BEFORE._replace(val_log_loss=float("nan")), 0.2476, "float32")


def test_precision_is_what_the_device_is_good_at() -> None:
    assert precision_on("auto", "cpu") == "float32"
    assert precision_on("auto", "cuda:0") == "bfloat16"
    assert precision_on("float16", "cuda:0") == "float16"
    with pytest.raises(ParamError, match=r"finetune\.precision is 'float16', but there is no GPU"):
        precision_on("float16", "cpu")


def test_every_device_has_an_image_of_every_batch() -> None:
    settings = PARAMS.finetune.model_copy(update={"batch_size": 8})
    check_share(settings, 4, 33)
    with pytest.raises(
        ParamError, match=r"finetune\.batch_size is 8, but 4 devices share batches of as few as 3 images"
    ):
        check_share(settings, 4, 3)


def test_an_export_that_computes_something_else_does_not_leave() -> None:
    features = np.random.default_rng(0).normal(size=(5, 7))
    assert checked_parity(features + 1e-5, features) < 1e-4
    for other in (features + 0.1, features * float("nan"), features[:, :3]):
        with pytest.raises(CheckError, match=r"of the tuned backbone differ from PyTorch's by .* on 5 validation"):
            checked_parity(other, features)
