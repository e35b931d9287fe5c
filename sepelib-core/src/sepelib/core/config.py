"""The configuration of a service: one YAML file, written as a Jinja2 template.

    from sepelib.core import config

    config.load("./cfg_default.yml", config_context={"port": 8080})
    config.get_value("web.http.port", type=int)

The functions here act on one `Config` of the process; a program may have more of its own.

Template: undefined names are errors (StrictUndefined), ``{% include "x.yml" %}`` finds files of
the configuration's directory and below only, and ``{{ name|yaml }}`` writes any value so that it
loads as the same value again. A template is code: load only what you would run.

YAML: one document with a mapping in it (an empty file is an empty mapping). A key that stands
twice in a mapping is an error; ``<<`` merges as usual. Tags beyond plain YAML are errors.

Errors: `ConfigError` names file, line and, where it can be known, column *of the template*,
through includes, loops and macros. Nothing is loaded then, and what was loaded before stays.

Greenlets and threads may read and load at the same time: a reader sees a whole tree, the old one
or the new one.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self, TypeVar, overload

from sepelib.core.config_errors import (
    ConfigError,
    ConfigSyntaxError,
    ConfigTemplateError,
    ConfigTypeError,
    DuplicateKeyError,
    MissingValueError,
    Place,
)
from sepelib.core.exceptions import LogicalError
from sepelib.core.frozen import FrozenDict
from sepelib.core.source import Mark, Rendered, read_text
from sepelib.core.values import MISSING, Key, Source, Unloaded, Values

__all__ = [
    "MISSING",
    "Config",
    "ConfigError",
    "ConfigSyntaxError",
    "ConfigTemplateError",
    "ConfigTypeError",
    "DuplicateKeyError",
    "MissingValueError",
    "Place",
    "get",
    "get_value",
    "load",
    "override",
]

T = TypeVar("T")
D = TypeVar("D")


class Config:
    """One configuration: a tree of values that is replaced as a whole and never changed.

    Mappings and lists come out as `dict` and `list` that refuse changes, since all callers
    share them; `copy.deepcopy()` of one is a plain copy.
    """

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: Values = Unloaded()

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        config_context: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> Self:
        """Render and read *path*; *config_context* holds the names for its template.

        Loading once more with equal arguments does nothing. Other arguments are a
        `LogicalError`, since some part of the program would lose the values that it started
        with; *replace* says that this is meant, and reads the file anew in any case.
        """
        wanted = Source(os.path.abspath(path), dict(config_context or {}))
        loaded = self._values.source
        if loaded is not None and not replace:
            if loaded == wanted:
                return self
            raise LogicalError(
                f"{loaded.path} is loaded already, with other arguments; "
                f"pass replace=True to load {wanted.path} in its place"
            )
        rendered = _rendered(os.fspath(path), wanted.context)
        self._values = Values(_parsed(rendered), rendered, wanted)
        return self

    @overload
    def get_value(self, key: Key, default: object = ...) -> Any: ...
    @overload
    def get_value(self, key: Key, *, type: type[T] | Callable[[Any], T]) -> T: ...
    @overload
    def get_value(self, key: Key, default: D, *, type: type[T] | Callable[[Any], T]) -> T | D: ...

    def get_value(self, key: Key, default: Any = MISSING, *, type: Any = None) -> Any:
        """The value of *key*: ``"web.http.port"``, ``"hosts.0.name"`` or ``("a.b", "c")``.

        Without a value: *default* as it is, or `MissingValueError`. A null is a value.

        *type* is one of str, int, float, bool, list, dict, bytes, date, datetime, and then the
        value must be of it (a bool is no int, an int is taken for a float), or any other class or
        function, which is called with the value. Else `ConfigTypeError`.
        """
        values = self._values
        value = values[key]
        if value is MISSING:
            if default is MISSING:
                raise values.missing(key)
            return default
        if type is None or value.__class__ is type:
            return value
        return values.typed(key, value, type)

    def get(self) -> Mapping[str, Any]:
        """The whole tree, read-only: `json.dumps` and ``app.config.update`` take it as it is."""
        tree: Mapping[str, Any] = self._values[()]
        return tree

    @contextmanager
    def override(self, values: Mapping[Key, Any]) -> Iterator[None]:
        """Other *values*, by key, inside of a ``with``: for tests.

        For all greenlets and threads of the process. Missing mappings on the way are made; at
        the end the tree of before comes back, whatever was loaded in between.
        """
        before = self._values
        self._values = before.overridden(values)
        try:
            yield
        finally:
            self._values = before


def _rendered(path: str, context: Mapping[str, Any]) -> Rendered:
    path = os.path.join(*os.path.split(path))  # as the template's loader will spell it
    text = read_text(path)
    if "{{" in text or "{%" in text or "{#" in text:
        # Jinja2 takes four times as long to import as all the rest: only who uses it pays.
        from sepelib.core.template import render

        return render(path, text, context)
    return Rendered(path, text, [Mark(0, lambda: Place(path, 1, 1), True)], {path: text})


def _parsed(rendered: Rendered) -> FrozenDict:
    from sepelib.core.tree import parse

    return parse(rendered)


_default = Config()


def load(
    path: str | os.PathLike[str],
    *,
    config_context: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> Config:
    """`Config.load` of the configuration of the process."""
    return _default.load(path, config_context=config_context, replace=replace)


@overload
def get_value(key: Key, default: object = ...) -> Any: ...
@overload
def get_value(key: Key, *, type: type[T] | Callable[[Any], T]) -> T: ...
@overload
def get_value(key: Key, default: D, *, type: type[T] | Callable[[Any], T]) -> T | D: ...


def get_value(key: Key, default: Any = MISSING, *, type: Any = None) -> Any:
    """`Config.get_value` of the configuration of the process."""
    # The same lines as the method's: passing the call on would double the price of a look-up.
    values = _default._values
    value = values[key]
    if value is MISSING:
        if default is MISSING:
            raise values.missing(key)
        return default
    if type is None or value.__class__ is type:
        return value
    return values.typed(key, value, type)


def get() -> Mapping[str, Any]:
    """`Config.get` of the configuration of the process."""
    return _default.get()


def override(values: Mapping[Key, Any]) -> AbstractContextManager[None]:
    """`Config.override` of the configuration of the process."""
    return _default.override(values)
