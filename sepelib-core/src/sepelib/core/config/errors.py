"""What can be wrong with a configuration, and the place of it.

    Error
    └── ConfigError            any of these; a file that cannot be read
        ├── ConfigSyntaxError      not YAML, or YAML that means nothing here
        │   └── DuplicateKeyError  one key twice in one mapping
        ├── ConfigTemplateError    Jinja: bad syntax, an undefined name, a bad include
        ├── MissingValueError      (KeyError) no such key
        └── ConfigTypeError        (TypeError) a value of another type, or over one of another

`str()` is one line, ``file:line:column: what; what to do``. Values never stand in it: they may
be secrets.
"""

from typing import NamedTuple

from sepelib.core.exceptions import Error

__all__ = [
    "ConfigError",
    "ConfigSyntaxError",
    "ConfigTemplateError",
    "ConfigTypeError",
    "DuplicateKeyError",
    "MissingValueError",
    "Place",
]


class Place(NamedTuple):
    """Where something is written. Line and column count from 1, None is "not known".

    *file* is the path as it was given to `load`, or words for what is no file: ``environment
    variable APP_PORT``, ``override``.
    """

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in self if part is not None)


class ConfigError(Error):
    """The configuration cannot be read or is not what the program expects.

    *snippet* is the line of the template (never of the rendered text, which holds interpolated
    secrets), cut where a key looks like a secret; it is not part of `str()`.
    """

    def __init__(self, what: str, place: Place | None = None, snippet: str = "", /) -> None:
        super().__init__(what, place, snippet)
        self.what = what
        self.place = place
        self.snippet = snippet

    @property
    def file(self) -> str | None:
        return self.place.file if self.place else None

    @property
    def line(self) -> int | None:
        return self.place.line if self.place else None

    @property
    def column(self) -> int | None:
        return self.place.column if self.place else None

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" if self.place else self.what


class ConfigSyntaxError(ConfigError):
    """Not YAML, or YAML that has no meaning in a configuration."""


class ConfigTemplateError(ConfigError):
    """Jinja could not render the file."""


class DuplicateKeyError(ConfigSyntaxError):
    """*key* stands twice in one mapping: at *place*, and before that at *first*."""

    def __init__(self, key: object, place: Place, first: Place, snippet: str = "", /) -> None:
        super().__init__(
            f"duplicate key {key!r}, first at {first}; remove one of them", place, snippet
        )
        self.args = (key, place, first, snippet)
        self.key = key
        self.first = first


class MissingValueError(ConfigError, KeyError):
    """There is no *key*; *prefix* is the longest part of it that exists, at *place*."""

    def __init__(
        self, what: str, place: Place | None, snippet: str, key: object, prefix: str, /
    ) -> None:
        super().__init__(what, place, snippet)
        self.args = (what, place, snippet, key, prefix)
        self.key = key
        self.prefix = prefix


class ConfigTypeError(ConfigError, TypeError):
    """The value of *key* is not of the wanted type, or not like what it is to be laid over."""

    def __init__(self, what: str, place: Place | None, snippet: str, key: object, /) -> None:
        super().__init__(what, place, snippet)
        self.args = (what, place, snippet, key)
        self.key = key
