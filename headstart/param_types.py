"""Types of single values in params.yaml: which are accepted, and what a refusal says."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from headstart.base import licences


class Section(BaseModel):
    """A section of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def finite(value: float) -> float:
    """Refuse infinities and what is no number."""
    if not math.isfinite(value):
        raise ValueError("a finite number is expected")
    return value


Fraction = Annotated[float, Field(ge=0, le=1), AfterValidator(finite)]
ProperFraction = Annotated[float, Field(gt=0, lt=1), AfterValidator(finite)]
Positive = Annotated[float, Field(gt=0), AfterValidator(finite)]
Finite = Annotated[float, AfterValidator(finite)]
Triple = tuple[Finite, Finite, Finite]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _unfreeze(value: object) -> int | str | dict[int, int | str]:
    given = value if isinstance(value, dict) else {1: value}
    counts = {int(epoch): _count(count) for epoch, count in given.items() if _is_number(epoch) and epoch > 0}
    if None in counts.values() or len(counts) < len(given):
        raise ValueError("a number of layer groups, all, or {epoch: either} from epoch 1 on is expected")
    plain = {epoch: count for epoch, count in counts.items() if count is not None}
    return plain if isinstance(value, dict) else plain[1]


def _count(value: object) -> int | str | None:
    if value == "all":
        return "all"
    return int(value) if _is_number(value) and value >= 0 else None


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


NO_IMAGES, NO_ROWS = "unlabelled.csv", "path\n"  # the list of no images that every project has


def _images_or_none(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(
            f"a folder or a manifest is expected. For no images it is {NO_IMAGES}, the empty list that every project"
            " has, since DVC has no word for a dependency that is not there"
        )
    return value


AS_IT_IS = PlainSerializer(lambda value: value)
Unfreeze = Annotated[int | Literal["all"] | dict[int, int | Literal["all"]], PlainValidator(_unfreeze), AS_IT_IS]


LINEAR_KINDS = ("softmax", "svm", "ridge", "lda", "prototype")  # which can be blended
ADAPT_METHODS = ("standardise", "coral", "mmd", "transport", "self_train", "label_shift")
HEAD_KINDS = (*LINEAR_KINDS, "mlp", "knn", "blend")


def _either(words: tuple[str, ...], otherwise: Callable[[object], Any], expected: str) -> PlainValidator:
    """Return what accepts one of the words, or what `otherwise` makes of a value, if that is not empty."""

    def check(value: object) -> Any:
        if isinstance(value, str) and value in words:
            return value
        if not (found := otherwise(value)):
            raise ValueError(f"{', '.join(words)}, or {expected} is expected")
        return found

    return PlainValidator(check)


def _layout(value: object) -> str:
    """Return `auto` or a pattern of levels of folders, such as `split/class` or `*/class`."""
    levels = value.split("/") if isinstance(value, str) else []
    named = [level for level in levels if level != "*"]
    is_right = all(re.fullmatch(r"[a-z][a-z0-9_]*", level) for level in named) and len(set(named)) == len(named)
    if value != "auto" and not (
        is_right and "class" in named and levels[-1] != "*" and not {"path", "label"} & {*named}
    ):
        raise ValueError(
            "auto, or levels of folders from the outside in is expected: class once, and split, group, * or a name of"
            " your own, such as class, split/class, */class or camera/class"
        )
    return str(value)


def _names(value: object) -> tuple[str, ...]:
    is_list = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return tuple(value) if is_list else ()  # type: ignore[arg-type]


def _weights(value: object) -> dict[str, float]:
    weights = value if isinstance(value, dict) else {}
    is_right = all(
        isinstance(each, int | float) and not isinstance(each, bool) and 0 < each < math.inf  # ruamel's own floats too
        for each in weights.values()
    )
    return {str(name): float(each) for name, each in weights.items()} if is_right else {}  # YAML reads '7' as a number


def licence(value: str) -> str:
    """Return an SPDX expression in its own spelling; ValueError if it is none."""
    try:
        return licences.canonical(value)
    except ValueError:
        raise ValueError("an SPDX identifier such as Apache-2.0, LicenseRef-NAME or unknown is expected") from None


def _licences(value: object) -> tuple[str, ...]:
    try:
        return tuple(licences.canonical(name) for name in _names(value))
    except ValueError:
        return ()


_bits = _either(("auto",), lambda value: _is_number(value) and 8 <= value <= 16 and value, "a number from 8 to 16")
_a_kind = f"a list of some of {', '.join(HEAD_KINDS)}"
_kinds = _either(("auto",), lambda value: _names(value) if set(_names(value)) <= set(HEAD_KINDS) else (), _a_kind)
_a_way = f"a list of some of {', '.join(ADAPT_METHODS)}"
_methods = _either(("auto",), lambda value: _names(value) if set(_names(value)) <= set(ADAPT_METHODS) else (), _a_way)
_levels = _either(("auto", "last", "all"), _names, "a list of names as in backbone.json")
_weight = _either(("none", "balanced"), _weights, "{class: weight} with positive weights")
ImagesOrNone = Annotated[str, PlainValidator(_images_or_none), AS_IT_IS]
FolderLayout = Annotated[str, PlainValidator(_layout), AS_IT_IS]
_permissive = "a list of SPDX identifiers such as Apache-2.0, of LicenseRef-NAME or unknown,"
_which = _either((licences.ANY,), _licences, _permissive)
Bits = Annotated[Literal["auto"] | int, _bits, AS_IT_IS]
HeadKinds = Annotated[Literal["auto"] | tuple[str, ...], _kinds, AS_IT_IS]
AdaptMethods = Annotated[Literal["auto"] | tuple[str, ...], _methods, AS_IT_IS]
HeadLevels = Annotated[str | tuple[str, ...], _levels, AS_IT_IS]
ClassWeight = Annotated[Literal["none", "balanced"] | dict[str, float], _weight, AS_IT_IS]
Licence = Annotated[str, AfterValidator(licence)]
Licences = Annotated[Literal["any"] | tuple[str, ...], _which, AS_IT_IS]
