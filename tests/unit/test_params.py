from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from headstart import params, params_file
from headstart.base.errors import DataError, ParamError
from tests.support.images import ROOT


def shipped() -> dict[str, Any]:
    return YAML(typ="safe").load(ROOT / "params.yaml")


def changed(name: str, value: object) -> dict[str, Any]:
    values = shipped()
    section, _, key = name.partition(".")
    values[section][key] = value
    return values


def refusal(values: object) -> str:
    with pytest.raises(ParamError) as error:
        params.parse(values)
    return str(error.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    return path


def test_the_shipped_file_is_valid() -> None:
    assert params_file.load(ROOT / "params.yaml").data.root == "data/digits"


@pytest.mark.parametrize("name", [f"{section}.{key}" for section, values in shipped().items() for key in values])
def test_no_parameter_has_a_default_in_the_code(name: str) -> None:
    values = shipped()
    section, _, key = name.partition(".")
    del values[section][key]
    assert f"{name} is missing. Every parameter must be given." in refusal(values)


def test_a_misspelt_parameter_is_refused_with_the_nearest_name() -> None:
    assert refusal(changed("split.val_fractoin", 0.1)) == (
        "split.val_fractoin is not a parameter. Did you mean 'split.val_fraction'? Mend its name in params.yaml."
    )


def test_a_misspelt_section_is_refused_with_the_nearest_name() -> None:
    values = shipped()
    values["backbon"] = {}
    assert "backbon is not a parameter. Did you mean 'backbone'?" in refusal(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("split.seed", "0"),
        ("split.seed", -1),
        ("split.seed", True),
        ("split.method", "random"),
        ("split.val_fraction", float("nan")),
        ("split.val_fraction", 0),
        ("validate.max_quarantined_fraction", 1.5),
        ("validate.min_images", 0),
        ("data.bits", 7),
        ("data.bits", 17),
        ("data.bits", True),
        ("data.bits", "twelve"),
        ("transform.fit", "stretch"),
        ("backbone.sha256", "abc"),
        ("backbone.input_px", 224.5),
        ("backbone.mean", [0.5, 0.5]),
        ("backbone.std", [0.5, 0.5, 0.0]),
        ("train_head.strengths", []),
        ("train_head.strengths", [0.1, float("inf")]),
        ("embed.batch_size", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    message = refusal(changed(name, value))
    assert message.startswith(name)
    assert message.endswith("Mend it in params.yaml.")


def test_fractions_that_leave_nothing_to_train_on_are_refused() -> None:
    values = changed("split.val_fraction", 0.6)
    values["split"]["test_fraction"] = 0.4
    assert "leave nothing to train on" in refusal(values)


def test_a_seed_of_zero_is_a_seed() -> None:
    assert params.parse(changed("split.seed", 0)).split.seed == 0


def test_parameters_cannot_be_changed_after_loading() -> None:
    loaded = params_file.load(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        loaded.split.seed = 1  # type: ignore[misc]


def test_broken_yaml_is_told_with_its_line(file: Path) -> None:
    file.write_text("data:\n  root: [\n")
    with pytest.raises(ParamError, match=r"params\.yaml is not valid YAML at line 3"):
        params_file.load(file)


@pytest.mark.parametrize("content", [b"", b"- a\n", b"split:\n", b"\xff\xfe", b"export:\n  gate: 2024-99-01\n"])
def test_a_file_without_parameters_is_told_also_where_one_is_assigned(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    for assignments in ([], ["split.seed=1"], ["no.such=1"]):
        with pytest.raises(ParamError):
            params_file.assign(file, assignments)
    assert file.read_bytes() == content


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ParamError, match="does not exist"):
        params_file.load(tmp_path / "params.yaml")


def test_assigning_keeps_comments_and_every_other_line(file: Path) -> None:
    before = file.read_text().splitlines()
    params_file.assign(file, ["split.seed=7"])
    after = file.read_text().splitlines()
    assert [line for line in after if line not in before] == ["  seed: 7"]
    assert len(after) == len(before)


def test_assigning_nothing_changes_no_byte(file: Path) -> None:
    before = file.read_bytes()
    params_file.assign(file, [])
    assert file.read_bytes() == before


def test_assigning_the_same_value_changes_no_byte(file: Path) -> None:
    before = file.read_bytes()
    params_file.assign(file, ["split.seed=0", "backbone.sha256=null"])
    assert file.read_bytes() == before


def test_a_folder_named_like_a_number_stays_a_name(file: Path) -> None:
    assert params_file.assign(file, ["data.root=2024"]).data.root == "2024"


def test_a_folder_is_written_without_what_a_shell_adds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/users/ada")
    assert params_file.assign(file, ["data.root=photos/"]).data.root == "photos"
    assert params_file.assign(file, ["data.root=../my photos/"]).data.root == "../my photos"
    assert params_file.assign(file, ["data.root=~/photos"]).data.root == "/users/ada/photos"
    with pytest.raises(ParamError, match=r"data\.root is ''"):
        params_file.assign(file, ["data.root="])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("split.sede=1", "split.sede is not a parameter. Did you mean 'split.seed'?"),
        ("seed", "'seed' is not an assignment"),
        ("split.seed=[1", "is not a YAML value"),
        ("export.gate=2024-99-01", "is not a YAML value"),
        ("split.seed=one", "split.seed is 'one'"),
    ],
)
def test_a_refused_assignment_leaves_the_file_as_it_was(file: Path, assignment: str, message: str) -> None:
    before = file.read_bytes()
    with pytest.raises(ParamError) as error:
        params_file.assign(file, [assignment])
    assert message in str(error.value)
    assert file.read_bytes() == before


def test_a_check_that_fails_leaves_the_file_as_it_was(file: Path) -> None:
    before = file.read_bytes()

    def refuse(values: params.Params) -> None:
        raise DataError(f"no {values.data.root}")

    check: Callable[[params.Params], None] = refuse
    with pytest.raises(DataError, match="no elsewhere"):
        params_file.assign(file, ["data.root=elsewhere"], check)
    assert file.read_bytes() == before


def test_what_was_wrong_before_an_assignment_is_mended_in_the_file(file: Path) -> None:
    file.write_text(file.read_text().replace("  val_fraction: ", "  val_fraction: 7", 1))
    with pytest.raises(ParamError, match=r"split.val_fraction is 7.* Mend it in params.yaml\.") as caught:
        params_file.assign(file, ["split.seed=1"])
    assert "unchanged" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["finetune.optimizer=adam"],
            "finetune.optimizer is 'adam': Input should be 'adamw' or 'sgd'. params.yaml is unchanged: give another",
        ),
        (["finetune.momentum=0.9"], "momentum is 0.9, which adamw has no use for; set it to null"),
        (["finetune.step_epochs=7"], "step_epochs is 7 and step_factor None; both or neither are expected"),
        (["finetune.step_epochs=10", "finetune.step_factor=0.1"], "step_epochs is 10, and there are 10 epochs"),
        (["adapt.enabled=false", "adapt.ship=true"], "ship is true, and enabled is false, so there is nothing to ship"),
        (["finetune.patience=10"], "patience is 10, and there are 10 epochs; it would have no effect"),
        (["finetune.warmup_epochs=10.0"], "warmup_epochs is 10.0, and there are 10 epochs; fewer are expected"),
        (["finetune.accumulate=33"], "accumulate is 33, more than the batch_size 32"),
        (["finetune.mixup=0.2"], "views is 4, and mixup and cutmix mix new pixels in every step"),
        (["finetune.unfreeze=all"], "views is 4, and nothing stays frozen, so there is nothing to keep of them"),
        (["finetune.unfreeze={1: 1, 12: 2}"], "unfreeze names epoch 12, and there are 10; it would have no effect"),
        (
            ["finetune.unfreeze={1: 3, 4: 2}"],
            "which freezes what was trained; a number may not be below the one before",
        ),
        (["finetune.unfreeze={}"], "unfreeze is {}; {epoch: groups} is expected"),
        (["finetune.unfreeze=0", "finetune.train_norms=true"], "train_norms is true, and no group is unfrozen"),
        (
            ["finetune.batch_size=2", "finetune.devices=2", "finetune.hosts=2"],
            "batch_size is 2, and 4 devices share it",
        ),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(file: Path, assignments: list[str], message: str) -> None:
    params_file.assign(file, ["finetune.enabled=true"])
    before = file.read_bytes()
    with pytest.raises(ParamError) as caught:
        params_file.assign(file, assignments)
    assert message in str(caught.value)
    assert file.read_bytes() == before


def test_unfreezing_is_a_number_all_or_a_schedule(file: Path) -> None:
    for text, expected in (("3", 3), ("all", "all"), ("{1: 0, 3: 2, 5: all}", {1: 0, 3: 2, 5: "all"})):
        assigned = params_file.assign(file, ["finetune.views=0", f"finetune.unfreeze={text}", "finetune.enabled=true"])
        assert assigned.finetune.unfreeze == expected
    for text in ("-1", "some", "{0: 1}", "1.5"):
        with pytest.raises(ParamError, match=r"finetune\.unfreeze"):
            params_file.assign(file, [f"finetune.unfreeze={text}"])


def test_writing_parameters_leaves_the_yaml_of_others_alone(file: Path) -> None:
    """DVC writes dvc.lock by the same library, in the same process under Prefect."""

    def nothing() -> str:
        stream = io.StringIO()
        YAML().dump({"a": None}, stream)
        return stream.getvalue()

    before = nothing()
    params_file.assign(file, ["split.seed=5"])
    assert nothing() == before == "a:\n"
    assert "sha256: null" in file.read_text()


@pytest.mark.parametrize(
    ("kinds", "levels"),
    [
        (["blend"], "auto"),
        (["mlp", "knn", "blend"], "auto"),
        (["mlp", "ridge", "blend"], "last"),
        (["ridge", "blend"], ["stem"]),
    ],
)
def test_a_blend_of_fewer_than_two_heads_is_refused(kinds: list[str], levels: object) -> None:
    values = changed("train_head.kinds", kinds)
    values["train_head"]["levels"] = levels
    expected = "kinds has blend, but no two heads to blend; name more of softmax, svm, ridge, lda, prototype"
    assert expected in refusal(values)


@pytest.mark.parametrize(
    ("kinds", "levels"), [("auto", "last"), (["ridge", "blend"], "auto"), (["ridge", "lda", "blend"], "last")]
)
def test_a_blend_of_two_heads_is_accepted(kinds: object, levels: str) -> None:
    values = changed("train_head.kinds", kinds)
    values["train_head"]["levels"] = levels
    assert params.parse(values).train_head.levels == levels


def test_the_kinds_that_can_be_blended_are_those_of_one_matrix_product() -> None:
    from headstart.heads.kinds import KINDS

    assert {name for name, kind in KINDS.items() if kind.IS_LINEAR} == set(params.LINEAR_KINDS)


def test_licences_are_spdx_in_its_own_spelling() -> None:
    listed = ["apache-2.0", "licenseref-mine", "unknown", "MIT or isc"]
    allowed = params.parse(changed("export.licences", listed)).export.licences
    assert allowed == ("Apache-2.0", "LicenseRef-mine", "unknown", "MIT OR ISC")
    assert params.parse(changed("export.licences", "any")).export.licences == "any"
    assert params.parse(changed("backbone.licence", "mit")).backbone.licence == "MIT"


@pytest.mark.parametrize("value", [["Apache2"], [], "MIT", ["none"], None, [3]])
def test_what_is_no_list_of_licences_is_refused(value: object) -> None:
    said = refusal(changed("export.licences", value))
    assert said.startswith(f"export.licences is {value!r}: any, or a list of SPDX identifiers such as Apache-2.0,")


def test_a_licence_that_spdx_does_not_know_is_refused() -> None:
    assert refusal(changed("backbone.licence", "dinov3-license")) == (
        "backbone.licence is 'dinov3-license': an SPDX identifier such as Apache-2.0, LicenseRef-NAME or unknown is"
        " expected. Mend it in params.yaml."
    )


@pytest.mark.parametrize(("name", "value"), [("outputs", ["pool"]), ("channel_order", "bgr")])
def test_what_is_for_graphs_alone_is_refused_elsewhere(name: str, value: object) -> None:
    assert f"{name} is for onnx alone, set it to null" in refusal(changed(f"backbone.{name}", value))
    values = changed(f"backbone.{name}", value)
    values["backbone"]["name"] = "onnx"
    assert params.parse(values).backbone.is_onnx


def test_a_graph_cannot_be_fine_tuned_and_that_is_told_before_anything_runs() -> None:
    values = changed("finetune.enabled", True)
    values["backbone"]["name"] = "onnx"
    assert refusal(values) == (
        "finetune.enabled is true and backbone.name is 'onnx'. Such a graph can be run but not trained: it has no"
        " layers that PyTorch knows. Set finetune.enabled to false, or backbone.name to a network of torchvision or"
        " timm, in params.yaml."
    )


def test_a_candidate_is_a_name_or_values_of_a_backbone() -> None:
    given = ["resnet18", {"name": "resnet50", "weights": "random", "input_px": 96}]
    first, second = params.parse(changed("rank.backbones", given)).rank.backbones
    assert (first.name, first.weights, first.input_px) == ("resnet18", "auto", None)
    assert (second.name, second.weights, second.input_px) == ("resnet50", "random", 96)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["resnet18", "resnet18"], "rank: backbones names 'resnet18' twice with the same values; name it once."),
        (["ranked"], "the name of a network is expected; 'ranked' is the winner among these."),
        ([{"name": "resnet18", "nam": 1}], "rank.backbones.nam is not a parameter."),
        ([{"weights": "random"}], "rank.backbones.name is None"),
        ([7], "rank.backbones is 7"),
        ("resnet18", "rank.backbones is 'resnet18'"),
        ([{"name": "resnet18", "outputs": ["a"]}], "outputs is for onnx alone"),
        ([{"name": "resnet18", "sha256": "12"}], "rank.backbones.sha256 is '12'"),
    ],
)
def test_candidates_that_are_none_are_refused(given: object, said: str) -> None:
    assert said in refusal(changed("rank.backbones", given))


def test_the_winner_has_values_of_its_own_so_the_section_backbone_leaves_them_open() -> None:
    values = changed("rank.backbones", ["resnet18"])
    values["backbone"]["name"] = "ranked"
    assert params.parse(values).backbone.is_ranked
    values["backbone"]["input_px"] = 96
    assert refusal(values) == (
        "backbone: name is 'ranked', and input_px is 96; each candidate of rank.backbones has its own, so set it to"
        " null. Mend it in params.yaml."
    )
    values["backbone"] |= {"input_px": None, "weights": "random"}
    assert "weights is 'random'; each candidate of rank.backbones has its own, so set it to bundled" in refusal(values)


def test_the_winner_of_nothing_is_refused() -> None:
    assert refusal(changed("backbone.name", "ranked")).startswith(
        "backbone.name is 'ranked', and rank.backbones names none to choose among."
    )


def test_no_candidate_may_be_a_graph_where_the_winner_is_fine_tuned() -> None:
    values = changed("rank.backbones", ["resnet18", {"name": "onnx"}])
    values["finetune"]["enabled"] = True
    assert params.parse(values).backbone.name == "tf_efficientnet_lite0"  # ranked for information
    values["backbone"]["name"] = "ranked"
    assert refusal(values).startswith("finetune.enabled is true and rank.backbones has 'onnx'.")
