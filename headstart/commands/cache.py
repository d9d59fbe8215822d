"""`headstart cache`: what this machine's user has in the cache that all projects share, and how to make it smaller."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

from headstart import params_file
from headstart.base.errors import ParamError
from headstart.layout import Layout, find_root
from headstart.store.cache import Cache, Item

_DAY_S = 86_400


def cache(options: argparse.Namespace) -> int:
    """Print what is in the cache by kind, after removing what was used longest ago if that is asked for."""
    found = _cache()
    if options.prune is not None:
        removed = found.prune(round(options.prune * 1e9))
        print(f"cache: {_size(removed)} removed")
    kinds: dict[str, list[Item]] = defaultdict(list)
    for item in found.items():
        kinds[item.what].append(item)
    for what, items in sorted(kinds.items(), key=lambda entry: -_bytes(entry[1])):
        days = (time.time() - max(item.used for item in items)) / _DAY_S
        used = "today" if days < 1 else f"{days:.0f} days ago"
        print(f"{what:<16} {_size(_bytes(items)):>9}   last used {used}")
    total = _size(sum(_bytes(items) for items in kinds.values()))
    print(f"{'in all':<16} {total:>9}   of at most {_size(found.max_bytes)} (cache.max_gb), in {found.folder}")
    return 0


def _cache() -> Cache:
    """Return the cache of the project that this folder is in, else the one that a project has by default."""
    try:
        root = find_root(Path.cwd())
    except ParamError:
        return Layout(Path.cwd()).cache
    return Layout.of(root, params_file.load(root / "params.yaml")).cache


def _bytes(items: list[Item]) -> int:
    return sum(item.n_bytes for item in items)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
