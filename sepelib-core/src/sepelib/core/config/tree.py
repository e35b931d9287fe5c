"""From YAML text to a read-only tree that knows the place of each value."""

import re
from typing import Any

import yaml

from sepelib.core.config.ambiguous import FINE, doubt, doubt_of_text
from sepelib.core.config.errors import ConfigSyntaxError, DuplicateKeyError
from sepelib.core.config.frozen import FrozenDict, FrozenList, frozen_dict, frozen_list, offsets_of
from sepelib.core.config.layers import Layers
from sepelib.core.config.merge import DELETE, Appended
from sepelib.core.config.secrecy import MASK
from sepelib.core.config.source import Rendered

__all__ = ["parse", "parse_value", "plain_scalar"]

MAX_DEPTH = 100
SAFE_DEPTH = 10_000  # levels that PyYAML's composer takes without harm
MAX_VALUES = 1_000_000

# The pure Python loader gives the same marks, five times slower; it is what is left where
# PyYAML was built without libyaml.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_TEXT = (_TAG + "str", _TAG + "value")  # "value" is a plain `=`
_SECRET, _APPEND, _DELETE = "!secret", "!append", "!delete"
_NULLS = ("", "~", "null", "Null", "NULL")
_NUMERIC = "+-.0123456789"
_SCALARS = {
    tag: yaml.SafeLoader.yaml_constructors[tag]
    for tag in (_TAG + kind for kind in ("null", "bool", "int", "float", "timestamp", "binary"))
}


def parse(rendered: Rendered, layers: Layers, layer: str) -> FrozenDict:
    """Load one YAML mapping as a *layer* of *layers*; an empty text is an empty mapping."""
    root, offset = _parse(rendered, layers, layer)
    if root is None and offset is None:
        return frozen_dict({}, ())
    if isinstance(root, FrozenDict):
        return root
    kind = "list" if isinstance(root, FrozenList) else "single value"
    what = f"the file holds a {kind}; make it a mapping, `key: value`"
    raise _error(rendered, offset or 0, what)


def parse_value(rendered: Rendered, layers: Layers, layer: str) -> Any:
    """Load any one value."""
    value, _ = _parse(rendered, layers, layer)
    return value


def plain_scalar(rendered: Rendered, layers: Layers, layer: str) -> tuple[Any, int]:
    """All of the text as one plain scalar, with its number in *layers*."""
    loader = _Loader("")
    try:
        text, mark = rendered.text, yaml.Mark("", 0, 0, 0, None, 0)
        tag = loader.resolve(yaml.ScalarNode, text.strip(), (True, False))
        if tag in _SCALARS:
            text = text.strip()
        else:  # `<<` too is only text here
            tag = _TAG + "str"
        node = yaml.ScalarNode(tag, text, mark, mark)
        start = layers.add(layer, rendered)
        return _Builder(rendered, loader, layers, layer, start).root(node)[0], start
    finally:
        loader.dispose()


def _parse(rendered: Rendered, layers: Layers, layer: str) -> tuple[Any, int | None]:
    """The value and its offset, None when there is none."""
    try:
        _refuse_depth(rendered)
        loader = _Loader(rendered.text)
        try:
            node = loader.get_single_node()
            start = layers.add(layer, rendered)
            # Nothing, or only `---`.
            if node is None or (node.tag == _TAG + "null" and not node.value):
                return None, None
            return _Builder(rendered, loader, layers, layer, start).root(node)
        finally:
            loader.dispose()
    # Without a cause: its words are in ours, and the pure loader adds a piece of the rendered text.
    except yaml.MarkedYAMLError as error:
        raise _explained(error, rendered) from None
    except (yaml.reader.ReaderError, UnicodeEncodeError):
        raise _unprintable(rendered) from None


class _Builder:
    """Makes frozen values of the nodes of one document. Aliases share one value."""

    def __init__(
        self, rendered: Rendered, loader: Any, layers: Layers, layer: str, start: int
    ) -> None:
        self._rendered = rendered
        self._loader = loader
        self._layers = layers
        self._start = start  # of the text, in the layers
        self._overlay = layer == "overlay"
        self._count = 0  # values, those behind aliases counted each time
        self._deepest = 0
        self._hidden = 0  # collections with a tag !secret around the present node
        self._orders = 0  # !append and !delete, counted likewise
        self._done: dict[yaml.Node, tuple[FrozenDict | FrozenList, int, int, int]] = {}
        self._open: set[yaml.Node] = set()

    def root(self, node: Any) -> tuple[Any, int]:
        if node.tag in (_SECRET, _APPEND, _DELETE):
            raise self._unknown_tag(node)
        return self.build(node, 1), node.start_mark.index

    def build(self, node: yaml.Node, depth: int) -> Any:
        self._count += 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node in self._open:
            raise self._error(node, "an alias in this value means the value itself; write it out")
        value, count, height, orders = self._done.get(node) or self._collection(node, depth)
        self._deepest = max(self._deepest, depth + height)
        if self._deepest > MAX_DEPTH:
            raise self._error(node, f"nested deeper than {MAX_DEPTH} levels")
        self._count += count
        self._orders += orders
        if self._count > MAX_VALUES:
            raise self._error(node, f"aliases make over {MAX_VALUES} values of this")
        return value

    def _collection(
        self, node: yaml.Node, depth: int
    ) -> tuple[FrozenDict | FrozenList, int, int, int]:
        """The value of *node*, and how many values, levels and orders it holds."""
        outer = self._count, self._deepest, self._orders
        self._count, self._deepest, self._orders = 0, depth, 0
        self._open.add(node)
        if node.tag == _SECRET:
            self._mark_secret(node)
            self._hidden += 1
        mapping = isinstance(node, yaml.MappingNode)
        value = self._mapping(node, depth) if mapping else self._list(node, depth)
        if node.tag == _SECRET:
            self._hidden -= 1
        self._open.remove(node)
        self._done[node] = value, self._count, self._deepest - depth, self._orders
        self._count, self._deepest, self._orders = outer
        return self._done[node]

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag, text = node.tag, node.value
        if tag in _TEXT:
            if text[:1] in _NUMERIC and not node.style and (found := doubt_of_text(text)):
                self._doubt(node, *found)
            return text
        if tag not in _SCALARS:
            return self._tagged(node)
        kind = tag.removeprefix(_TAG)
        try:
            value = _SCALARS[tag](self._loader, node)
        except Exception:  # PyYAML lets pass what int(), date() and friends raise
            # Without a cause: its words hold the value.
            raise self._error(node, f"not a valid {kind}; quote it if it is text") from None
        if kind in FINE and not FINE[kind](text):
            self._doubt(node, *doubt(kind, value))
        return value

    def _tagged(self, node: yaml.ScalarNode) -> Any:
        if node.tag == _SECRET:
            self._mark_secret(node)
            return None if not node.style and node.value in _NULLS else node.value
        if node.tag == _DELETE and not node.value:
            self._order(node)
            return DELETE
        raise self._unknown_tag(node)

    def _mark_secret(self, node: Any) -> None:
        self._layers.secrets.add(self._start + node.start_mark.index)

    def _order(self, node: yaml.Node) -> None:
        if not self._overlay:
            what = f"{node.tag} is for overlays; there is nothing below this file"
            raise self._error(node, what)
        self._orders += 1

    def _doubt(self, node: Any, kind: str, clear: str) -> None:
        offset = node.start_mark.index
        if self._rendered.text.startswith("!", offset):
            return  # the tag says what is meant
        place = self._rendered.place(offset)
        what, how = "this value", "quote it if it is text"
        read_as = kind if kind == "text" else f"a {kind}"
        if not self._rendered.sources:
            pass  # a variable or an argument; it may hold a secret
        elif not self._rendered.is_literal(offset):
            what, how = "the value of this expression", "write {{ ...|yaml }}"
        elif MASK not in self._rendered.snippet(place):
            what, how = node.value, f"{how}, else write {clear}"
            read_as = kind if kind == "text" else f"the {kind} {clear}"
        self._layers.doubts[place] = f"{what} is read as {read_as}; {how}"

    def _list(self, node: yaml.Node, depth: int) -> FrozenList:
        if node.tag not in (_TAG + "seq", _SECRET, _APPEND):
            raise self._unknown_tag(node)
        values = [self.build(item, depth + 1) for item in node.value]
        if self._orders:
            what = "!append or !delete in a list; a list replaces the one below as a whole"
            raise self._error(node, what)
        offsets = [self._start + item.start_mark.index for item in node.value]
        if self._hidden:
            self._layers.secrets.update(offsets)
        if node.tag != _APPEND:
            return frozen_list(values, offsets)
        self._order(node)
        return frozen_list(values, offsets, Appended)

    def _mapping(self, node: yaml.Node, depth: int) -> FrozenDict:
        if node.tag not in (_TAG + "map", _SECRET):
            raise self._unknown_tag(node)
        seen: dict[Any, yaml.Node] = {}
        values: dict[Any, Any] = {}
        offsets: dict[Any, int] = {}
        merges: list[FrozenDict] = []
        for key_node, value_node in node.value:
            merge = key_node.tag == _MERGE
            key = _MERGE if merge else self._key(key_node)
            if key in seen:
                raise self._duplicate("<<" if merge else key, key_node, seen[key])
            seen[key] = key_node
            if merge:
                merges = self._merged(value_node, depth)
            else:
                values[key] = self.build(value_node, depth + 1)
                offsets[key] = self._start + value_node.start_mark.index
        for other in merges:  # the earlier wins, and what is written here beats them all
            values = other | values
            offsets = dict(zip(other, offsets_of(other), strict=True)) | offsets
        if self._hidden:
            self._layers.secrets.update(offsets.values())
        return frozen_dict(values, offsets.values())

    def _key(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, f"a {_kind(node)} cannot be a key; quote it if it is text")
        if node.tag in (_SECRET, _DELETE):
            raise self._unknown_tag(node)
        return self._scalar(node)

    def _merged(self, node: yaml.Node, depth: int) -> list[FrozenDict]:
        nodes = node.value if _kind(node) == "list" else [node]
        for one in nodes:
            if _kind(one) != "mapping":
                what = f"<< merges mappings, this is a {_kind(one)}; name an anchored mapping"
                raise self._error(one, what)
        return [self.build(one, depth + 1) for one in nodes]

    def _duplicate(self, key: Any, node: Any, first: Any) -> DuplicateKeyError:
        place = self._rendered.place(node.start_mark.index)
        before = self._rendered.place(first.start_mark.index)
        return DuplicateKeyError(key, place, before, self._rendered.snippet(place))

    def _unknown_tag(self, node: yaml.Node) -> ConfigSyntaxError:
        error = self._error(node, "")
        tag = f"unknown tag {node.tag}"
        if node.tag in (_SECRET, _APPEND, _DELETE):
            tag = f"{node.tag} cannot stand here"
        elif MASK in error.snippet or "{{" in error.snippet:
            tag = "a tag"  # `password: !x9` was meant as text, and so may `!{{ x }}` be
        return self._error(node, f"{tag}; remove it, or quote the value if it is text")

    def _error(self, node: Any, what: str) -> ConfigSyntaxError:
        return _error(self._rendered, node.start_mark.index, what)


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "mapping"
    return "list" if isinstance(node, yaml.SequenceNode) else "single value"


def _error(rendered: Rendered, offset: int, what: str) -> ConfigSyntaxError:
    place = rendered.place(offset)
    return ConfigSyntaxError(what, place, rendered.snippet(place))


def _refuse_depth(rendered: Rendered) -> None:
    """Refuse a nesting that would overflow the C stack of PyYAML's composer (it does not ask)."""
    text = rendered.text
    if sum(map(text.count, ("[", "{", "- ", "? "))) < SAFE_DEPTH:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                what = f"nested deeper than {MAX_DEPTH} levels"
                start: Any = event.start_mark
                raise _error(rendered, start.index, what)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _explained(error: yaml.MarkedYAMLError, rendered: Rendered) -> ConfigSyntaxError:
    """PyYAML's own words, at a place in the files and with what usually helps."""
    mark: Any = error.problem_mark or error.context_mark
    offset = min(mark.index, len(rendered.text))
    what = error.problem or error.context or "not YAML"
    if what == "but found another document":
        return _error(rendered, offset, "a second document begins; keep one document in a file")
    begin: Any = error.context_mark
    if begin is not None and error.context and begin.index != offset:
        what = f"{what} {error.context} that begins at {rendered.place(begin.index)}"
    # The pure loader names them: `password: *x9` was meant as text.
    what = re.sub("(alias|anchor) '[^']*'", r"\1", what)
    character = rendered.text[offset : offset + 1]
    if not rendered.is_literal(offset):
        what += "; the value of this expression is not plain YAML, write {{ ...|yaml }}"
    elif error.context == "while scanning a tag":
        what += "; put a blank after the tag"
    elif character == "\t":
        what += "; indent with spaces, a tab cannot indent"
    elif character and character in "@`%":
        what += f"; quote a value that begins with {character}"
    elif "mapping values are not allowed" in what:
        what += "; quote a value that holds ': ', or correct the indentation"
    return _error(rendered, offset, what)


def _unprintable(rendered: Rendered) -> ConfigSyntaxError:
    # Searched for anew: libyaml counts bytes here, and characters everywhere else.
    found = yaml.reader.Reader.NON_PRINTABLE.search(rendered.text)
    assert found is not None  # it is why we are here
    what = f"character U+{ord(found[0]):04X} cannot stand in YAML; write it as an escape"
    return _error(rendered, found.start(), what)
