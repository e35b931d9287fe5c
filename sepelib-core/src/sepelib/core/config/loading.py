"""From the files, the environment and the overrides of a request to values."""

import os
from typing import TYPE_CHECKING

from sepelib.core.config.errors import ConfigSyntaxError, ConfigTypeError
from sepelib.core.config.frozen import NOWHERE, FrozenDict
from sepelib.core.config.layers import Layers
from sepelib.core.config.merge import MergeConflict, deep_merge
from sepelib.core.config.overrides import with_environment, with_override
from sepelib.core.config.request import Request
from sepelib.core.config.source import Rendered, read_text, whole_file
from sepelib.core.config.tree import parse
from sepelib.core.config.values import Values, shown

if TYPE_CHECKING:
    from sepelib.core.config.template import Template

__all__ = ["read", "warn"]


def read(request: Request, compiled: "dict[str, Template]") -> Values:
    """The values that *request* asks for.

    *compiled*: templates by path, taken from here while their files are the same, and put here.
    """
    layers = Layers()
    try:
        stages = _stages(request, compiled, layers)
    except MergeConflict as conflict:
        raise _explained(conflict, layers) from None
    if request.ambiguous == "error":
        for place, what in layers.doubts.items():
            raise ConfigSyntaxError(what, place, layers.snippet(place))
    if request.validate is not None:
        request.validate(stages[-1])
    return Values(tuple(stages), layers, request)


def warn(values: Values) -> None:
    """Log what is doubtful in *values*, which are in force now."""
    request = values.request
    doubts = values.layers.doubts if request and request.ambiguous == "warn" else {}
    lines = [f"{place}: {what}" for place, what in doubts.items()] + values.layers.strangers
    if lines:
        from logging import getLogger  # not at the top: it costs more to import than all the rest

        for line in lines:
            getLogger("sepelib.core.config").warning("%s", line)


def _stages(request: Request, compiled: "dict[str, Template]", layers: Layers) -> list[FrozenDict]:
    """The tree after each layer."""
    stages: list[FrozenDict] = []
    for name in request.names:
        rendered = _rendered(name, request, compiled)
        tree = parse(rendered, layers, "overlay" if stages else "default")
        stages.append(deep_merge(stages[-1], tree, layers.secrets) if stages else tree)
    if request.env_prefix is not None:
        stages.append(with_environment(stages[-1], request.env_prefix, layers))
    for key, value in request.overrides.items():
        stages.append(with_override(stages[-1], key, value, layers))
    return stages


def _rendered(name: str, request: Request, compiled: "dict[str, Template]") -> Rendered:
    path = os.path.join(*os.path.split(name))  # as the template's loader will spell it
    text = read_text(path, request.cwd)
    if "{{" in text or "{%" in text or "{#" in text:
        # Jinja2 takes four times as long to import as all the rest: only who uses it pays.
        from sepelib.core.config.template import Template

        template = compiled.get(path)
        if template is None or not template.is_made_of(text):
            template = compiled[path] = Template(path, text, request.cwd)
        return template.render(request.context)
    return whole_file(path, text)


def _explained(conflict: MergeConflict, layers: Layers) -> ConfigTypeError:
    place, key = layers.place(conflict.over), shown(conflict.key)
    if conflict.under == NOWHERE:
        what = f"no {key!r} below, so there is nothing to !delete; remove this line"
    else:
        what = f"{key} is {conflict.what} at {layers.place(conflict.under)}; make both alike"
    return ConfigTypeError(what, place, layers.snippet(place), conflict.key)
