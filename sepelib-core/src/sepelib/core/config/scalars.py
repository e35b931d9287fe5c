"""Values written as one short text: in an environment variable or an argument."""

from collections.abc import Iterable
from typing import Any

from sepelib.core.config.errors import ConfigError, ConfigSyntaxError, Place
from sepelib.core.config.frozen import freeze
from sepelib.core.config.layers import Layers
from sepelib.core.config.source import Mark, Rendered, read_text, whole_file
from sepelib.core.config.tree import parse_value, plain_scalar

__all__ = ["parse_context", "parse_text"]


def parse_text(text: str, origin: str, layers: Layers, layer: str) -> tuple[Any, int]:
    """The value that *text* writes, and its number in *layers*.

    A text that begins with ``[``, ``{`` or a quote is YAML. Any other is one plain scalar whatever
    is in it: ``a: b #c`` is text, so that a password need not be quoted.
    """
    if text[:1] in ("[", "{", "'", '"'):
        rendered = _rendered(text, origin)
        try:
            value = parse_value(rendered, layers, layer)
        except ConfigSyntaxError:
            # Not in its own words: they count lines of what is no file.
            what = f"not YAML, which a value that begins with {text[0]} has to be; quote it"
            raise ConfigSyntaxError(what, Place(origin)) from None
        # All of it has one number: in what is no file there are no places to tell apart.
        offset = layers.add_value(layer, origin)
        return freeze(value, offset), offset
    return plain_scalar(_rendered(text, origin), layers, layer)


def _rendered(text: str, origin: str) -> Rendered:
    return Rendered(origin, text, [Mark(0, lambda: Place(origin), False)], {})


def parse_context(items: Iterable[str]) -> dict[str, Any]:
    """See `sepelib.core.config.parse_context`."""
    context: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not name or not equals:
            raise ConfigError("not NAME=VALUE; write a name, '=' and a value")
        if text.startswith("@"):
            path = text[1:]
            source = read_text(path)
            value = parse_value(whole_file(path, source), Layers(), "default")
        else:
            value, _ = parse_text(text, f"value of {name}", Layers(), "override")
        context[name] = value
    return context
