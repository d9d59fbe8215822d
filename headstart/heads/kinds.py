"""The kinds of heads, by the name that params.yaml and head.json have for them: the simpler one first."""

from __future__ import annotations

from headstart.heads import knn, lda, mlp, prototype, ridge, softmax, svm
from headstart.heads.contract import Kind

_ALL: tuple[Kind, ...] = (softmax, svm, ridge, lda, prototype, mlp, knn)
KINDS: dict[str, Kind] = {kind.NAME: kind for kind in _ALL}
