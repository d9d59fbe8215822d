from __future__ import annotations

import pytest
import timm
from ruamel.yaml import YAML
from torchvision import models

from headstart.base import licences
from headstart.base.errors import ParamError
from headstart.base.licences import Licence, of_library
from tests.support.images import ROOT

SHIPPED: list[str] = YAML(typ="safe").load(ROOT / "params.yaml")["export"]["licences"]


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ("apache-2.0", Licence("Apache-2.0", "timm says 'apache-2.0'")),
        ("cc-by-nc-4.0", Licence("CC-BY-NC-4.0", "timm says 'cc-by-nc-4.0'")),
        ("dinov3-license", Licence("LicenseRef-dinov3-license", "timm says 'dinov3-license'")),
        ("some (odd) name", Licence("LicenseRef-some-odd-name", "timm says 'some (odd) name'")),
        ("https://example.org/LICENSE", Licence("unknown", "timm points to https://example.org/LICENSE")),
        ("unknown", Licence("unknown", "timm does not say")),
        (None, Licence("unknown", "timm does not say")),
    ],
)
def test_what_a_library_says_is_spdx_or_unknown(said: str | None, licence: Licence) -> None:
    assert of_library(said, "timm") == licence


def test_every_licence_that_the_libraries_name_has_a_name_here_that_params_yaml_may_list() -> None:
    named = {timm.get_pretrained_cfg(name).license for name in timm.list_models(pretrained=True)}
    named |= {models.get_model_weights(name).DEFAULT.meta.get("license") for name in models.list_models(module=models)}
    found = {said: of_library(said, "it").name for said in named}
    assert {licences.canonical(name) for name in found.values()} == set(found.values())
    assert (found["mit"], found["bsd-3-clause"], found[None]) == ("MIT", "BSD-3-Clause", "unknown")


@pytest.mark.parametrize("allowed", [SHIPPED, "any", ["unknown", "MIT"]])
def test_random_weights_ship_always(allowed: list[str]) -> None:
    licences.check(Licence("none", "the weights are random"), "net", allowed)


@pytest.mark.parametrize("name", ["Apache-2.0", "MIT", "BSD-3-Clause"])
def test_permissive_licences_ship_as_params_yaml_is_shipped(name: str) -> None:
    licences.check(Licence(name, "timm says so"), "net", SHIPPED)


@pytest.mark.parametrize("name", ["CC-BY-NC-4.0", "unknown", "LicenseRef-dinov3-license", "GPL-3.0-only"])
def test_others_ship_only_if_they_are_listed_or_any_may(name: str) -> None:
    licence = Licence(name, "timm says so")
    licences.check(licence, "net", [name])
    licences.check(licence, "net", "any")
    with pytest.raises(ParamError):
        licences.check(licence, "net", SHIPPED)


def test_a_refusal_names_the_licence_who_says_so_and_the_parameter_that_allows_it() -> None:
    with pytest.raises(ParamError) as error:
        licences.check(Licence("CC-BY-NC-4.0", "timm says 'cc-by-nc-4.0'"), "net", ["MIT", "ISC"])
    assert str(error.value) == (
        "the licence of the weights of 'net' is CC-BY-NC-4.0 (timm says 'cc-by-nc-4.0'). To ship, it must be one of"
        " export.licences: MIT, ISC. If you may hand them on, add CC-BY-NC-4.0 to export.licences; or choose other"
        " weights. Both are in params.yaml."
    )
    with pytest.raises(ParamError, match=r"Set backbone\.licence to theirs if you know it\. If you may"):
        licences.check(Licence("unknown", "torchvision does not say"), "net", ["MIT"])
