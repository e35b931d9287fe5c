"""One configuration: loaded, read, replaced as a whole."""

import _thread
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, get_args, overload

from sepelib.core.config.difference import Diff, concerns, difference
from sepelib.core.config.frozen import freeze
from sepelib.core.config.layers import Origin
from sepelib.core.config.request import Ambiguous, Request
from sepelib.core.config.values import MISSING, Changes, Key, Unloaded, Values
from sepelib.core.exceptions import LogicalError

if TYPE_CHECKING:
    from sepelib.core.config.template import Template

__all__ = ["Config", "Path", "Watcher"]

T = TypeVar("T")
D = TypeVar("D")

Path = str | os.PathLike[str]
Watcher = Callable[[Diff], object]


class Config:
    """One configuration: a tree of values that is replaced as a whole and never changed.

    Mappings and lists come out as `dict` and `list` that refuse changes, since all callers
    share them; `copy.deepcopy()` of one is a plain copy.
    """

    __slots__ = ("_compiled", "_swap", "_values", "_watchers")

    def __init__(self) -> None:
        self._values: Values = Unloaded()
        self._compiled: dict[str, Template] = {}
        self._watchers: tuple[tuple[Watcher, tuple[Key, ...]], ...] = ()
        self._swap = _thread.allocate_lock()  # held for a comparison and a store: never yields

    def load(
        self,
        path: Path,
        *,
        config_context: Mapping[str, Any] | None = None,
        overlays: Sequence[Path] = (),
        env_prefix: str | None = None,
        overrides: Changes | None = None,
        validate: Callable[[Mapping[str, Any]], object] | None = None,
        ambiguous: Ambiguous = "warn",
        replace: bool = False,
    ) -> Self:
        """Render and read *path*; *config_context* holds the names for its template.

        *overlays*: files laid over it, the last on top; templates with the same names, each of
        which must exist. *env_prefix*: with ``"APP"`` the variable ``APP_WEB__HTTP__PORT`` is the
        value of ``web.http.port``, read as `parse_context` reads one. *overrides*: values by key,
        say those of the command line. The last two change values and add none: an unknown key is
        a `MissingValueError`. Only for a variable without ``__``, which may be a stranger's, it is
        a warning.

        *validate* is called with the new tree; what it raises is raised, and the old tree stays.

        *ambiguous*: what to do about values such as ``NO``, ``0644``, ``12:30`` and ``1.10``, of
        which YAML 1.1 makes false, 420, 750 and 1.1: log a warning for each, refuse them, or
        nothing.

        Loading once more with equal arguments does nothing. Other arguments are a
        `LogicalError`, since some part of the program would lose the values that it started
        with; *replace* says that this is meant, and reads the file anew in any case.
        """
        if isinstance(overlays, str | os.PathLike):
            raise LogicalError(f"overlays is a list of paths, not {overlays!r}")
        if env_prefix is not None and not re.fullmatch(r"\w*[^\W_]", env_prefix):
            raise LogicalError(f"env_prefix is a name such as 'APP', not {env_prefix!r}")
        if ambiguous not in get_args(Ambiguous):
            raise LogicalError(f"ambiguous is one of {get_args(Ambiguous)}, not {ambiguous!r}")
        names = tuple(os.fspath(name) for name in (path, *overlays))
        wanted = Request(
            names,
            "" if all(map(os.path.isabs, names)) else os.getcwd(),
            dict(config_context or {}),
            env_prefix,
            freeze(overrides or {}),
            validate,
            ambiguous,
        )
        loaded = self._values.request
        if loaded is not None and not replace:
            if loaded.same_as(wanted):
                return self
            raise LogicalError(
                f"{loaded.path} is loaded already, with other arguments; "
                f"pass replace=True to load {wanted.path} in its place"
            )
        self._values = values = self._read(wanted)
        _warn(values)
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
        function, which is called with the value: `duration`, `size`, `sepelib.util.secrets.Secret`.
        Else `ConfigTypeError`.
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

    def to_dict(self, *, mask: bool = True) -> dict[str, Any]:
        """A plain copy of the tree to show: with ``***`` for each secret, unless *mask* is false.

        Secret are values with the tag ``!secret``, all below a key with ``pass``, ``secret``,
        ``token``, ``key``, ``cookie``, ``auth``, ``dsn`` or ``uri`` in its name, and in URLs the
        password and parameters with such names.
        """
        if mask:
            shown: dict[str, Any] = self._values.shown(())
            return shown
        from copy import deepcopy

        return dict(deepcopy(self.get()))

    def dump(self, *, mask: bool = True, fmt: Literal["yaml", "json"] = "yaml") -> str:
        """`to_dict` as text. What the format has no type for is written as text."""
        from sepelib.core.config.writing import to_json, to_yaml_document

        if fmt not in ("yaml", "json"):
            raise LogicalError(f"fmt is 'yaml' or 'json', not {fmt!r}")
        tree = self.to_dict(mask=mask)
        return to_json(tree) if fmt == "json" else to_yaml_document(tree)

    def explain(self, key: Key) -> Origin:
        """Where the value of *key* was written, and what it replaced; `MissingValueError`."""
        return self._values.explain(key)

    def reload(self) -> Diff:
        """Read everything anew, with the arguments of `load`, and tell what is different.

        All or nothing: when it raises, the tree of before stays and nobody is called. Otherwise
        those of `on_reload` are called once the new tree is in force. Files are read before
        anything else changes; readers keep the mappings and lists that they got.
        """
        while True:
            before = self._values
            if before.request is None:
                raise LogicalError("no configuration is loaded; call config.load(path) first")
            after = self._read(before.request)
            with self._swap:
                # Whoever was faster may have read newer files: then once more.
                if self._values is before:
                    self._values = after
                    break
        _warn(after)
        diff = difference(before.root, after.root)
        for callback, keys in self._watchers:
            if any(concerns(diff, key) for key in keys):
                try:
                    callback(diff)
                except Exception:
                    from logging import getLogger

                    getLogger("sepelib.core.config").exception("%r failed on reload", callback)
        return diff

    def on_reload(self, callback: Watcher, *, keys: Sequence[Key] = ((),)) -> Callable[[], None]:
        """Call *callback* with the `Diff` of each `reload` that changes something at *keys*.

        Without *keys*, of each that changes anything. In the order of the calls of this, in the
        greenlet or thread that reloads; one that fails is logged and the rest are called. The
        result ends it, and may be called more than once.
        """
        if isinstance(keys, str):
            raise LogicalError(f"keys is a list of keys, not {keys!r}")
        watcher = callback, tuple(keys)
        with self._swap:
            self._watchers = (*self._watchers, watcher)

        def end() -> None:
            with self._swap:
                self._watchers = tuple(each for each in self._watchers if each is not watcher)

        return end

    @contextmanager
    def override(self, values: Changes) -> Iterator[None]:
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

    def _read(self, request: Request) -> Values:
        # Not at the top: who only asks for values, or prints --help, needs no PyYAML.
        from sepelib.core.config.loading import read

        # Taken away, so that who comes meanwhile compiles anew and nobody shares a template.
        compiled, self._compiled = self._compiled, {}
        try:
            return read(request, compiled)
        finally:
            self._compiled = compiled


def _warn(values: Values) -> None:
    from sepelib.core.config.loading import warn

    warn(values)
