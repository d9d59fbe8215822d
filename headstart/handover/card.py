"""MODEL_CARD.md: what the recipient of a model needs to know.

A paragraph is one line, because Prefect's page keeps line breaks.
"""

from __future__ import annotations

from headstart.base.markdown import plain
from headstart.evaluation.folder import Choice
from headstart.handover.folder import ModelRecord
from headstart.images.deep import ALL_BITS
from headstart.onnx.backbone_folder import LAST
from headstart.onnx.head_folder import HeadRecord

_CARD = """# Model card

An image classifier with {n_classes} classes: {classes}.

- **Backbone** {facts.backbone}, {how}. Weights {facts.weights} (weights_sha256 `{facts.weights_sha256}`), licence {facts.licence}{source}.
- **Head** {head}, trained on {n_train} images. {calibration}{choosing}
- **Data** {dataset}, {form}; training_data_sha256 `{facts.training_data_sha256}`.{decided}
- **Result on {test.n_images} held-out images** {headline}accuracy {test.accuracy:.2%} (95% interval {test.accuracy_low:.2%} to {test.accuracy_high:.2%}), macro F1 {test.macro_f1:.4f} ({test.macro_f1_low:.4f} to {test.macro_f1_high:.4f}), log loss {test.log_loss:.4f}, expected calibration error {test.ece:.4f}.{changed}
- **Abstaining** The model abstains below a probability of {test.abstain_below:.4f}. It answers {test.coverage:.2%} of these images{selective}.
- **Parity** The original files of {checked} held-out images were run through model.onnx: it gives the label that the result above counts, and the same probabilities.
{sets}- **int8** {int8}

## Use
`image` is uint8 [N, H, W, 3], RGB, upright (EXIF applied), any size; resizing, cropping and normalisation are inside the model. It gives `probabilities` float32 [N, {n_classes}] and `label_index` int64 [N], in the order of the classes above, and `novelty` float32 [N] in 0..1: the share of held-out images that are nearer to the training images.{bits}

    headstart predict FOLDER_OF_THIS_FILE photo.jpg
    headstart verify FOLDER_OF_THIS_FILE

## Limits
The figures hold for images from the same source as the training images. The model assigns one of its classes to every image, even to one that shows none of them: check `novelty`. It sees {facts.preprocessing.seen}.
"""  # noqa: E501 fields have long names


def card(
    facts: ModelRecord,
    head: HeadRecord,
    choice: Choice,
    *,
    dataset: str,
    form: str,
    decided: tuple[str, str],
    int8: str,
    n_checked: int,
) -> str:
    """Return the card in Markdown.

    `dataset` and `form`: the name of the data and how they were read. `decided`: sentences on what people decided about
    single images, and on what of it concerns held-out ones, each perhaps empty. `int8`: whether an int8 model ships,
    and why. `n_checked`: held-out images that the model was run on.
    """
    test = facts.test
    how, head_words, choosing = "frozen", _reading(head), _choosing(head)
    if choice.contest and choice.chosen == "tuned":
        how = f"fine-tuned for {choice.contest.best_epoch} epochs"
        head_words = "linear, initialised by the best linear head of the frozen backbone and fine-tuned with it"
        choosing = ""
    if choice.chosen == "adapted":
        head_words += ", then adapted to images of another domain (the result below is not of those)"
    first, headline = test.headline, ""
    if first.name != "accuracy":
        headline = f"{first.name} {first.value:.2%} (95% interval {first.low:.2%} to {first.high:.2%}), which counts"
        headline += " because classes differ much in size; "
    return _CARD.format(
        headline=headline,
        facts=facts,
        test=test,
        n_classes=len(facts.classes),
        classes=", ".join(map(plain, facts.classes)),
        source=f" ({facts.licence_source})" if facts.licence_source else "",
        how=how,
        head=head_words,
        choosing=choosing,
        calibration=choice.calibration.told,
        n_train=choice.n_images,
        dataset=plain(dataset),
        form=plain(form),
        selective="" if test.coverage == 0 else f", {test.selective_accuracy:.2%} of them correctly",
        int8=int8,
        decided=decided[0] and f" {decided[0]}",
        changed=decided[1] and f" **The {decided[1]}.**",
        sets=_sets(facts),
        checked=f"all {n_checked}" if n_checked == test.n_images else f"{n_checked} of {test.n_images}",
        bits=_bits(facts.bits),
    )


def _sets(facts: ModelRecord) -> str:
    """Return the paragraph on label sets, empty for a model that has none."""
    sets, test = facts.label_sets, facts.test
    if sets is None:
        return ""
    return (
        f"- **Label sets** {sets.promise} {sets.basis} On the held-out images {test.set_coverage:.2%} do (95% interval"
        f" {test.set_coverage_low:.2%} to {test.set_coverage_high:.2%}), with {test.mean_set_size:.2f} labels a set on"
        " average. `headstart predict --set` prints them.\n"
    )


def _bits(bits: int) -> str:
    """Return how files with 16 bits a channel are read, where they use fewer."""
    if bits == ALL_BITS:
        return ""
    return (
        f" Files with 16 bits a channel hold values of {bits} bits, as in training: a value v is v * 255 /"
        f" {2**bits - 1}, rounded, in `image`. headstart does that itself."
    )


def _reading(head: HeadRecord) -> str:
    """Return the kind of the head and the levels of the backbone that it reads, in words."""
    if head.levels == (LAST,):
        return f"{head.words}, on the backbone's last features"
    without = "" if LAST in head.levels else " without the layers above these"
    return f"{head.words}, on the backbone's features of {', '.join(head.levels)}{without}"


def _choosing(head: HeadRecord) -> str:
    """Return a paragraph with the cross-validated figures: the winner's own, and the nested one if it is known."""
    own = (
        f"\n- **Choice of the head** {head.n_folds}-fold cross-validation on {head.n_cross_validated} training images"
        f" gave {head.cv_accuracy:.2%} accuracy. The head was picked on these images, which can flatter it"
    )
    if head.nested is None:
        return f"{own}; by how much is not known."
    nested = head.nested
    return (
        f"{own}; where the choice is repeated within every fold, accuracy is {nested.accuracy:.2%} (95% interval"
        f" {nested.accuracy_low:.2%} to {nested.accuracy_high:.2%})."
    )
