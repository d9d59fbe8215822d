"""MODEL_CARD.md: what the recipient of a model needs to know."""

from __future__ import annotations

from headstart.evaluation.folder import Choice
from headstart.handover.folder import ModelRecord
from headstart.onnx.head_folder import HeadRecord

_CARD = """# Model card

An image classifier with {n_classes} classes: {classes}.

- **Backbone** {facts.backbone}, {how}. Weights: {facts.weights} (SHA-256 `{facts.weights_sha256}`), licence: {facts.licence}.
- **Head** {head}, trained on {n_train} images. Temperature {facts.temperature}.
- **Data** {dataset}, {form}; SHA-256 of the training images and labels `{facts.training_data_sha256}`.
- **Result on {test.n_images} held-out images** accuracy {test.accuracy:.2%} (95 % interval {test.accuracy_low:.2%} to {test.accuracy_high:.2%}),
  macro F1 {test.macro_f1:.4f} ({test.macro_f1_low:.4f} to {test.macro_f1_high:.4f}), log loss {test.log_loss:.4f}, expected calibration
  error {test.ece:.4f}.
- **Abstaining** The model abstains below a probability of {test.abstain_below:.4f}. It answers {test.coverage:.2%} of these images{selective}.
- **int8** {int8}

## Use
`image` is uint8 [N, H, W, 3], RGB, upright (EXIF applied), any size; resizing, cropping and normalisation are inside
the model. It gives `probabilities` float32 [N, {n_classes}] and `label_index` int64 [N], in the order of the classes
above, and `novelty` float32 [N] in 0..1: the share of held-out images that are nearer to the training images.

    headstart predict FOLDER_OF_THIS_FILE photo.jpg
    headstart verify FOLDER_OF_THIS_FILE

## Limits
The figures hold for images from the same source as the training images. The model assigns one of its classes to every
image, even to one that shows none of them: check `novelty`. It sees only the centre square of an image.
"""  # noqa: E501 fields have long names


def card(facts: ModelRecord, head: HeadRecord, choice: Choice, *, dataset: str, form: str, int8: str) -> str:
    """Return the card in Markdown.

    `dataset` and `form`: the name of the data and how they were read. `int8`: whether an int8 model ships, and why.
    """
    test = facts.test
    how, head_words = "frozen", head.words
    if choice.contest and choice.chosen == "tuned":
        how = f"fine-tuned for {choice.contest.best_epoch} epochs"
        head_words = "linear, initialised by logistic regression and fine-tuned with the backbone"
    return _CARD.format(
        facts=facts,
        test=test,
        n_classes=len(facts.classes),
        classes=", ".join(facts.classes),
        how=how,
        head=head_words,
        n_train=choice.n_images,
        dataset=dataset,
        form=form,
        selective="" if test.coverage == 0 else f", {test.selective_accuracy:.2%} of them correctly",
        int8=int8,
    )
