"""/config/: what the service runs with, and where each value was written. Secrets are masked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sepelib.core.config import ConfigError
from sepelib.core.exceptions import LogicalError
from sepelib.flask.server._answers import NOT_KEPT, Answer, json_answer
from sepelib.flask.server._negotiation import best

if TYPE_CHECKING:
    from sepelib.flask.server._builtins import Ask

__all__ = ["ConfigPages", "ConfigSource"]

Parts = tuple[str | int, ...]


class ConfigSource(Protocol):
    """What the `config=` of a Server is: `sepelib.core.config`, the module, or a `Config` fits.

    One that has an `explain(key)` too, with a key such as `("hosts", 0)`, is asked it for
    `?explain=1`.
    """

    def dump(self, *, mask: bool = True, fmt: Literal["yaml", "json"] = "yaml") -> str: ...


class ConfigPages:
    def __init__(self, source: ConfigSource | None) -> None:
        self._source = source

    def show(self, ask: Ask) -> Answer:
        if self._source is None:
            return ask.refuse(404, "This service shows no configuration: it has no config=.")
        fmt = ask.query.get("fmt")
        if fmt not in (None, "yaml", "json"):
            return ask.refuse(400, "fmt is one of yaml, json.")
        if fmt is None:
            kinds = ("application/yaml", "application/json")
            fmt = (best(ask.accept, kinds) or kinds[0]).removeprefix("application/")
        try:
            # By way of JSON: masked as a whole, so that a part is masked by the keys above it too.
            tree = json.loads(self._source.dump(mask=True, fmt="json"))
        except LogicalError as error:
            return ask.refuse(404, f"{error}.")
        path = ask.path.removeprefix("/config").strip("/")
        parts: Parts = ()
        for name in path.split("/") if path else ():
            found = _child(tree, name)
            if found is None:
                inside = f" in {_dotted(parts)!r}" if parts else ""
                return ask.refuse(404, f"There is no {name!r}{inside}.")
            tree = tree[found]
            parts = (*parts, found)
        if ask.query.get("explain", "0") not in ("0", "false"):
            return self._explain(ask, tree, parts, fmt)
        if fmt == "json":
            return json_answer(tree)
        return _yaml(_to_yaml(tree))

    def _explain(self, ask: Ask, tree: Any, parts: Parts, fmt: str) -> Answer:
        explain = getattr(self._source, "explain", None)
        if explain is None:
            return ask.refuse(404, "This configuration does not know where its values come from.")
        leaves = list(_leaves(tree, parts))
        try:
            origins = [explain(at) if at else None for at, _ in leaves]
        except ConfigError:
            return ask.refuse(503, "The configuration was replaced meanwhile; ask again.")
        if fmt == "json":
            described = {
                _dotted(at): {"value": value, "origin": str(origin or ""), "layer": _layer(origin)}
                for (at, value), origin in zip(leaves, origins, strict=True)
            }
            return json_answer(described)
        lines = [
            f"{_dotted(at)}: {json.dumps(value, ensure_ascii=False)}  # {_words(origin)}\n"
            for (at, value), origin in zip(leaves, origins, strict=True)
        ]
        return _yaml("".join(lines))


def _yaml(text: str) -> Answer:
    # Not application/yaml: browsers would not show that.
    return Answer(200, text.encode(), "text/plain; charset=utf-8", (NOT_KEPT,))


def _child(tree: Any, name: str) -> str | int | None:
    if isinstance(tree, dict):
        return name if name in tree else None
    if isinstance(tree, list) and name.isascii() and name.isdigit() and len(name) < 9:
        return int(name) if int(name) < len(tree) else None
    return None


def _leaves(tree: Any, at: Parts) -> Iterator[tuple[Parts, Any]]:
    """All values that hold no others, with the keys on the way to them."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from _leaves(value, (*at, name))
    elif isinstance(tree, list) and tree:
        for index, value in enumerate(tree):
            yield from _leaves(value, (*at, index))
    else:
        yield at, tree


def _dotted(parts: Parts) -> str:
    return ".".join(map(str, parts))


def _layer(origin: Any) -> str:
    return str(getattr(origin, "layer", ""))


def _words(origin: Any) -> str:
    return " ".join(filter(None, (str(origin or ""), f"({_layer(origin)})" if origin else "")))


def _to_yaml(tree: Any) -> str:
    from sepelib.core.config.writing import to_yaml_document  # PyYAML, for those who look

    return to_yaml_document(tree)
