"""The configuration of a service: one YAML file, written as a Jinja2 template.

    from sepelib.core import config

    config.load("./cfg_default.yml", config_context={"port": 8080})
    config.get_value("web.http.port", type=int)

The functions here act on one `Config` of the process; a program may have more of its own.

Template: undefined names are errors (StrictUndefined), ``{% include "x.yml" %}`` finds files of
the configuration's directory and below only, and ``{{ name|yaml }}`` writes any value so that it
loads as the same value again, ``|b64`` writes base64. ``env("NAME", default)`` is a variable,
and an error when it is not set and there is no default. ``read_file(path)`` is the text of a file
of at most 1 MiB without the line end at its end; a relative *path* starts at the configuration's
directory, an absolute one such as ``/run/secrets/x`` is fine: a template is code, so load only
what you would run. A `sepelib.util.secrets.Secret` of the context shows as ``***`` unless it goes
through ``|yaml``, which writes it with its tag.

Layers: overlays lie over the file, the environment over them, overrides over all. Mappings are
merged, any other value is replaced. An overlay may also say ``!append [...]`` to add to a list and
``!delete`` to take a key away. A mapping, a list and a single value do not replace each other; a
null does, and may be replaced by any.

YAML: one document with a mapping in it (an empty file is an empty mapping). A key that stands
twice in a mapping is an error; ``<<`` merges as usual. ``!secret`` marks a value (as text) or all
of a mapping or list as not to be shown. Other tags beyond plain YAML are errors.

Errors: `ConfigError` names file, line and, where it can be known, column *of the template*,
through includes, loops and macros. Nothing is loaded then, and what was loaded before stays.

Secrets: `dump`, `to_dict` and all errors mask them. For logs, give each handler the filter:
``handler.addFilter(config.RedactingFilter())``.

``python -m sepelib.core.config check|show|explain FILE`` does for files what its names say.

Greenlets and threads may read and load at the same time: a reader sees a whole tree, the old one
or the new one.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from sepelib.core.config.configuration import Config, Path, Watcher
from sepelib.core.config.difference import Diff
from sepelib.core.config.errors import (
    ConfigError,
    ConfigSyntaxError,
    ConfigTemplateError,
    ConfigTypeError,
    DuplicateKeyError,
    MissingValueError,
    Place,
)
from sepelib.core.config.layers import Origin
from sepelib.core.config.request import Ambiguous
from sepelib.core.config.units import duration, size
from sepelib.core.config.values import MISSING, Changes, Key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from logging import LogRecord

__all__ = [
    "MISSING",
    "Config",
    "ConfigError",
    "ConfigSyntaxError",
    "ConfigTemplateError",
    "ConfigTypeError",
    "Diff",
    "DuplicateKeyError",
    "MissingValueError",
    "Origin",
    "Place",
    "RedactingFilter",
    "dump",
    "duration",
    "explain",
    "get",
    "get_value",
    "load",
    "on_reload",
    "override",
    "parse_context",
    "reload",
    "size",
    "to_dict",
]

T = TypeVar("T")
D = TypeVar("D")

_default = Config()


class RedactingFilter:
    """A filter for handlers of `logging` that puts ``***`` for the secrets of a configuration.

    Those of *config*, else of the configuration of the process; after a `reload` the new ones. In
    the message, the arguments, the traceback and the fields of ``extra=``; also what is secret in
    any URL. Numbers only where they have the tag ``!secret``, nothing of fewer than 4 characters.
    A section named ``key``, ``auth``, ``dsn`` or ``uri`` is not replaced as a whole: ``auth: {mode:
    local}`` would take the word from the log.

    For handlers: a filter of a logger does not see what the loggers below it log. The record is
    changed, so the handlers that come after are served too.
    """

    def __init__(self, config: Config | None = None) -> None:
        self._config = config

    def filter(self, record: "LogRecord") -> bool:
        from sepelib.core.config.secrecy import redact_record

        redact_record(record, (self._config or _default)._values.redact)
        return True


def load(
    path: Path,
    *,
    config_context: Mapping[str, Any] | None = None,
    overlays: Sequence[Path] = (),
    env_prefix: str | None = None,
    overrides: Changes | None = None,
    validate: Callable[[Mapping[str, Any]], object] | None = None,
    ambiguous: Ambiguous = "warn",
    replace: bool = False,
) -> Config:
    """`Config.load` of the configuration of the process."""
    return _default.load(
        path,
        config_context=config_context,
        overlays=overlays,
        env_prefix=env_prefix,
        overrides=overrides,
        validate=validate,
        ambiguous=ambiguous,
        replace=replace,
    )


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


def override(values: Changes) -> AbstractContextManager[None]:
    """`Config.override` of the configuration of the process."""
    return _default.override(values)


def to_dict(*, mask: bool = True) -> dict[str, Any]:
    """`Config.to_dict` of the configuration of the process."""
    return _default.to_dict(mask=mask)


def dump(*, mask: bool = True, fmt: Literal["yaml", "json"] = "yaml") -> str:
    """`Config.dump` of the configuration of the process."""
    return _default.dump(mask=mask, fmt=fmt)


def explain(key: Key) -> Origin:
    """`Config.explain` of the configuration of the process."""
    return _default.explain(key)


def reload() -> Diff:
    """`Config.reload` of the configuration of the process."""
    return _default.reload()


def on_reload(callback: Watcher, *, keys: Sequence[Key] = ((),)) -> Callable[[], None]:
    """`Config.on_reload` of the configuration of the process."""
    return _default.on_reload(callback, keys=keys)


def parse_context(items: "Iterable[str]") -> dict[str, Any]:
    """The names and values of ``NAME=VALUE`` texts: what an option ``-V`` of a program collects.

    VALUE is a YAML scalar, or YAML when it begins with a bracket or a quote; ``@FILE`` is what the
    YAML of that file holds. Of a name given twice the last counts. For *config_context* of `load`
    or, with keys as names, for its *overrides*. `ConfigError` says what is wrong, without values.
    """
    from sepelib.core.config.scalars import parse_context

    return parse_context(items)
