"""Render a configuration file with Jinja2 and remember where each part of it was written.

How: the text between the tags of a template reaches the output as `_Text`, a `str` that carries
marks, and joining such strings joins their marks. Nothing is added to the text itself, so
captured blocks, macros and comparisons see what they would see without us, and only text that
goes through a filter loses its marks (it then stands where the filter was applied).
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from traceback import walk_tb
from types import TracebackType
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes

from sepelib.core.config.errors import ConfigError, ConfigTemplateError, Place
from sepelib.core.config.frozen import freeze
from sepelib.core.config.secrecy import Redactor, looks_secret, texts
from sepelib.core.config.source import Mark, Rendered, read_text, snippet
from sepelib.core.config.yaml_filter import to_base64, to_yaml

__all__ = ["Template"]

MAX_READ = 1 << 20  # bytes; what a service is configured with is smaller
_UNSET: Any = object()


class _CallError(ConfigTemplateError):
    """A global *function* of templates refuses; the place is found when it comes out of Jinja."""

    def __init__(self, what: str, function: str) -> None:
        super().__init__(what)
        self.function = function


class _Token(NamedTuple):
    kind: str
    value: str
    place: Place


class _Text(str):
    """Text of a template with the marks that say where it was written."""

    __slots__ = ("marks",)
    marks: list[Mark]

    def __str__(self) -> str:
        return self  # generated code calls str() on all it puts out; the marks must survive


def _join(parts: Iterable[str]) -> _Text:
    texts: list[str] = []
    marks: list[Mark] = []
    length = 0
    for part in parts:
        if type(part) is _Text:
            marks += [Mark(length + offset, place, kind) for offset, place, kind in part.marks]
        texts.append(part)
        length += len(part)
    text = _Text("".join(texts))
    text.marks = marks
    return text


class _Environment(jinja2.Environment):
    """Jinja with marked output, files from one directory only, and no silent undefined names."""

    concat = staticmethod(_join)

    def __init__(self, directory: str, cwd: str) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            loader=jinja2.FunctionLoader(self._read),
            cache_size=-1,  # all of them: their pieces stay in any case
        )
        self.filters.update(yaml=to_yaml, b64=to_base64)
        self.globals.update(env=self._env, read_file=self._read_file)
        self.directory = directory
        self.cwd = cwd
        self.sources: dict[str, str] = {}  # by path
        self.heard: set[str] = set()  # perhaps secrets, from variables and files
        self._pieces = itertools.count()  # what the generated code puts out: attributes of ours
        self._counts: dict[str, int] = {}  # marks, by path
        self._starts: dict[str, list[Place]] = {}  # places of the marks, made on demand

    def _read(self, name: str) -> tuple[str, str, None] | None:
        if os.path.isabs(name) or ".." in name.split("/"):
            raise ConfigTemplateError(
                f"{name!r} leads out of the directory of the configuration; "
                "name a file in it, without '..'"
            )
        path = os.path.join(self.directory, os.path.normpath(name))
        if path not in self.sources:
            if not os.path.lexists(os.path.join(self.cwd, path)):
                return None  # TemplateNotFound, unless the include says `ignore missing`
            self.sources[path] = read_text(path, self.cwd)
        return self.sources[path], path, None

    def _env(self, name: str, default: Any = _UNSET) -> Any:
        value = os.environ.get(name, default)
        if value is _UNSET:
            what = f"environment variable {name} is not set; set it or write env({name!r}, default)"
            raise _CallError(what, "env")
        if isinstance(value, str) and looks_secret(name):
            self.heard.add(value.strip())
        return value

    def _read_file(self, path: str) -> str:
        try:
            text = read_text(os.path.join(self.directory, path), self.cwd, limit=MAX_READ)
        except ConfigError as error:
            raise _CallError(f"read_file({path!r}): {error.what}", "read_file") from error
        self.heard.add(text.strip())
        return text.removesuffix("\n")

    def _generate(
        self,
        source: nodes.Template,
        name: str | None,
        filename: str | None,
        defer_init: bool = False,
    ) -> str:
        assert filename is not None  # `_read` names a file for each template
        numbers = itertools.count()
        source.body = self._marked(source.body, filename, numbers)
        self._counts[filename] = next(numbers)
        return super()._generate(source, name, filename, defer_init)

    def _marked(
        self, body: list[nodes.Node], path: str, numbers: Iterator[int]
    ) -> list[nodes.Node]:
        marked: list[nodes.Node] = []
        for node in body:
            if isinstance(node, nodes.Output):
                node.nodes = self._marked_output(node.nodes, path, numbers)
            elif isinstance(
                node, nodes.FilterBlock | nodes.CallBlock | nodes.ScopedEvalContextModifier
            ):
                # What they put out comes from a function that drops the marks.
                mark = Mark(0, partial(Place, path, node.lineno), False)
                marked.append(nodes.Output([self._piece(_Text(), mark)], lineno=node.lineno))
            for field in ("body", "elif_", "else_"):
                # Inside of {% autoescape %} a piece would be escaped, as if it were a value.
                inner = getattr(node, field, None)
                if inner and not isinstance(node, nodes.ScopedEvalContextModifier):
                    setattr(node, field, self._marked(inner, path, numbers))
            marked.append(node)
        return marked

    def _marked_output(
        self, children: list[nodes.Expr], path: str, numbers: Iterator[int]
    ) -> list[nodes.Expr]:
        marked: list[nodes.Expr] = []
        text: _Text | None = None
        for child in children:
            place = partial(self._start, path, child.lineno, next(numbers))
            if isinstance(child, nodes.TemplateData):
                text = _Text(child.data)
                marked.append(self._piece(text, Mark(0, place, True)))
                continue
            if text is None:
                marked.append(self._piece(_Text(), Mark(0, place, False)))
            else:
                text.marks.append(Mark(len(text), place, False))
                text = None
            marked.append(child)
        return marked

    def _piece(self, text: _Text, mark: Mark) -> nodes.Expr:
        """An expression for *text*, which is kept for the generated code."""
        text.marks = [mark]
        name = f"piece{next(self._pieces)}"
        setattr(self, name, text)
        return nodes.EnvironmentAttribute(name)

    def _start(self, path: str, line: int, number: int) -> Place:
        """Where mark *number* of the file *path* stands."""
        starts = self._starts.get(path)
        if starts is None:
            starts = self._starts[path] = [
                token.place
                for token in self._tokens(path)
                if token.kind in ("data", "variable_begin")
            ]
        # They differ when there is a {% print %} or an {% autoescape %}: no column is known then.
        return starts[number] if len(starts) == self._counts[path] else Place(path, line)

    def _tokens(self, path: str) -> Iterator[_Token]:
        source = self.sources[path]
        offset = 0
        for line, kind, value in self.lex(source):
            offset = source.index(value, offset)  # blanks cut by {%- are in no token
            column = offset - source.rfind("\n", 0, offset)
            yield _Token(kind, value, Place(path, line, column))
            offset += len(value)

    def blame(self, error: BaseException) -> list[Place]:
        """The lines of templates through which *error* came, outermost first."""
        return [
            Place(frame.f_code.co_filename, line)
            for frame, line in walk_tb(error.__traceback__)
            if frame.f_code.co_filename in self.sources
        ]

    def beyond(self, error: BaseException) -> TracebackType | None:
        """The traceback of *error* without its frames in templates.

        A log prints the source line of each frame, and a template may hold a password.
        """
        rest = trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename in self.sources:
                rest = trace.tb_next
            trace = trace.tb_next
        return rest

    def name_place(self, near: Place, name: str) -> Place:
        """Where *name* is used in a tag on the line *near*, or in one that begins there."""
        begin = 0
        for token in self._tokens(near.file):
            line = token.place.line or 0
            if token.kind in ("variable_begin", "block_begin"):
                begin = line
            if begin > (near.line or 0):
                break
            if token.kind == "name" and token.value == name and line >= (near.line or 0):
                return token.place
        return near


class Template:
    """The file *path*, whose text is *source*; it may include files of its directory.

    Keeps what Jinja made of them. *cwd* is where a relative *path* starts. Not to be rendered by
    two threads at once.
    """

    def __init__(self, path: str, source: str, cwd: str = "") -> None:
        self._path = path
        self._environment = _Environment(os.path.dirname(path), cwd)
        self._environment.sources[path] = source

    def is_made_of(self, source: str) -> bool:
        """Whether *source* is still its text, and the other files are as they were."""
        environment = self._environment
        try:
            return environment.sources[self._path] == source and all(
                path == self._path or read_text(path, environment.cwd) == text
                for path, text in environment.sources.items()
            )
        except ConfigError:
            return False

    def render(self, context: Mapping[str, Any]) -> Rendered:
        path, environment = self._path, self._environment
        environment.heard.clear()
        try:
            text = environment.get_template(os.path.basename(path)).render(dict(context))
        except Exception as error:
            if isinstance(error, ConfigError) and error.place is not None:
                raise
            refusal = error
        else:
            assert isinstance(text, _Text)  # as `_join` made it
            marks = [Mark(0, partial(Place, path, 1), False), *text.marks]
            return Rendered(path, "".join(text), marks, environment.sources)
        explained, telling = _explained(refusal, environment, path, context)
        if isinstance(refusal, ConfigError) or telling:
            raise explained
        raise explained from refusal.with_traceback(environment.beyond(refusal))


def _explained(
    error: Exception, environment: _Environment, path: str, context: Mapping[str, Any]
) -> tuple[ConfigError, bool]:
    """What *error* means to the writer of the template, and whether it may tell a secret."""
    places = environment.blame(error)
    place = places[-1] if places else Place(path)
    own_words = False
    if isinstance(error, _CallError):
        place, what = environment.name_place(place, error.function), error.what
    elif isinstance(error, ConfigError):
        what = error.what
    elif isinstance(error, jinja2.TemplateSyntaxError):
        place = Place(error.filename or path, error.lineno)
        what = (error.message or "bad syntax").rstrip(".")
    elif isinstance(error, jinja2.UndefinedError):
        place, what = _undefined(error, environment, place, context)
    elif isinstance(error, jinja2.TemplateNotFound):
        directory = environment.directory or "."
        what = f"no file {error.name!r}; files are looked for in {directory}"
    elif isinstance(error, RecursionError):
        place, what = _endless(places or [place])
    else:
        what, own_words = " ".join(f"{type(error).__name__}: {error}".split()), True
    source = environment.sources.get(place.file, "")
    # Such words tend to hold the values, whole or in parts.
    line = source.split("\n")[place.line - 1] if place.line and source else ""
    if own_words and looks_secret(line):
        what = f"{type(error).__name__}, whose words are not shown on a line with a secret"
    known = {*environment.heard, *texts(freeze(context), ())}
    shown = Redactor(known)(what)
    telling = shown != what or (own_words and looks_secret(line))
    return ConfigTemplateError(shown, place, snippet(source, place.line)), telling


def _undefined(
    error: jinja2.UndefinedError,
    environment: _Environment,
    place: Place,
    context: Mapping[str, Any],
) -> tuple[Place, str]:
    from difflib import get_close_matches

    what = error.message or "a value is undefined"
    found = re.search(r"^'(\w+)' is undefined$|has no (?:attribute|element) '?(\w+)", what)
    if found is None:
        return place, what
    if found[1] is None:
        return environment.name_place(place, found[2]), what
    if near := get_close_matches(found[1], context, 1):
        what += f"; did you mean {near[0]!r}?"
    else:
        what += "; put it into config_context or {% set %} it"
    return environment.name_place(place, found[1]), what


def _endless(places: Sequence[Place]) -> tuple[Place, str]:
    for index, place in enumerate(places):
        if place in places[index + 1 :]:
            circle = places[index : places.index(place, index + 1) + 1]
            return place, f"this goes in a circle: {' -> '.join(map(str, circle))}; cut it open"
    return places[-1], "calls go too deep"
