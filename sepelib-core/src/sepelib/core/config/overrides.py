"""Values that come from the environment and from the command line, and what their keys mean.

Both change what the files have and add nothing: a key that does not exist is a mistake, and one
that nobody would notice if it were let pass.
"""

import os
import re
from typing import Any

from sepelib.core.config.errors import ConfigError, MissingValueError, Place
from sepelib.core.config.frozen import FrozenDict, freeze, offset_in, replaced
from sepelib.core.config.layers import Layers
from sepelib.core.config.merge import laid_over
from sepelib.core.config.scalars import parse_text
from sepelib.core.config.values import MISSING, Key, advice, child, parts_of, shown
from sepelib.core.exceptions import LogicalError

__all__ = ["with_environment", "with_override"]


def with_environment(root: FrozenDict, prefix: str, layers: Layers) -> FrozenDict:
    """*root* with the variables ``PREFIX_A__B``, each of them the value of ``a.b``.

    Case and all signs that a variable's name cannot have are equal: ``a-b`` is ``A_B``.
    """
    start = prefix + "_"
    for name in sorted(os.environ):
        if not name.startswith(start):
            continue
        spelt = name[len(start) :]
        origin = f"environment variable {name}"
        parts: list[Any] = []
        parent: Any = root
        for part in spelt.split("__"):
            found = _key(parent, part, origin)
            if found is MISSING:
                break
            parts.append(found)
            parent = parent[found]
        else:
            value, offset = parse_text(os.environ[name], origin, layers, "env")
            root = _with(root, tuple(parts), value, offset, layers)
            continue
        error = _missing(parent, tuple(parts), spelt.lower().split("__")[len(parts)], origin)
        if "__" in spelt:
            raise error
        # Kubernetes sets APP_PORT for whatever service is called app, and it is not alone.
        layers.strangers.append(f"{error}; ignored")
    return root


def with_override(root: FrozenDict, key: Key, value: Any, layers: Layers) -> FrozenDict:
    """*root* with *value* at *key*."""
    if not parts_of(key):
        raise LogicalError("an override is of a key, not of the whole tree")
    parts: list[Any] = []
    parent: Any = root
    for part in parts_of(key):
        found = child(parent, part)
        if found is MISSING:
            raise _missing(parent, tuple(parts), part, "override")
        parts.append(found)
        parent = parent[found]
    offset = layers.add_value("override", "override")
    changed: FrozenDict = _with(root, tuple(parts), freeze(value, offset), offset, layers)
    return changed


def _with(
    parent: Any, parts: tuple[Any, ...], value: Any, offset: int, layers: Layers, done: int = 0
) -> Any:
    """*parent*, to which parts[:done] led, with *value* from *offset* laid over what is there."""
    part = parts[done]
    old, under = parent[part], offset_in(parent, part)
    if done + 1 == len(parts):
        new, place = laid_over((old, under), (value, offset), layers.secrets, parts)
    else:
        new, place = _with(old, parts, value, offset, layers, done + 1), under
    return replaced(parent, part, new, place)


def _key(parent: Any, part: str, origin: str) -> Any:
    if not isinstance(parent, FrozenDict):
        return child(parent, part)
    found = [key for key in parent if _plain(str(key)) == part.upper()]
    if len(found) > 1:
        what = f"may mean {' or '.join(map(repr, found))}; rename one of them"
        raise ConfigError(what, Place(origin))
    return found[0] if found else MISSING


def _plain(key: str) -> str:
    return re.sub("[^0-9A-Za-z]", "_", key).upper()


def _missing(
    parent: Any, known: tuple[Any, ...], part: str | int, origin: str
) -> MissingValueError:
    key, prefix = (*known, part), shown(known)
    what = f"no {shown(key)!r}" + (f" in {prefix!r}" if known else "")
    what += advice(parent, known, part)
    return MissingValueError(what, Place(origin), "", key, prefix)
