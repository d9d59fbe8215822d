"""The kinds of heads, by the name that head.json has for them."""

from __future__ import annotations

from headstart.heads import softmax
from headstart.heads.contract import Kind

KINDS: dict[str, Kind] = {softmax.NAME: softmax}
