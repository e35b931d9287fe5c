"""From YAML text to a read-only tree that knows the place of each value."""

from typing import Any

import yaml

from sepelib.core.config_errors import ConfigSyntaxError, DuplicateKeyError
from sepelib.core.frozen import FrozenDict, FrozenList, frozen_dict, frozen_list, offsets_of
from sepelib.core.source import Rendered

__all__ = ["parse"]

MAX_DEPTH = 100
SAFE_DEPTH = 10_000  # levels that PyYAML's composer takes without harm
MAX_VALUES = 1_000_000

# The pure Python loader gives the same marks, five times slower; it is what is left where
# PyYAML was built without libyaml.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_TEXT = (_TAG + "str", _TAG + "value")  # "value" is a plain `=`
_SCALARS = {
    tag: yaml.SafeLoader.yaml_constructors[tag]
    for tag in (_TAG + kind for kind in ("null", "bool", "int", "float", "timestamp", "binary"))
}


def parse(rendered: Rendered) -> FrozenDict:
    """Load one YAML mapping; an empty text is an empty mapping."""
    try:
        _refuse_depth(rendered)
        loader = _Loader(rendered.text)
        try:
            return _root(rendered, loader)
        finally:
            loader.dispose()
    # Without a cause: its words are in ours, and the pure loader adds a piece of the rendered text.
    except yaml.MarkedYAMLError as error:
        raise _explained(error, rendered) from None
    except (yaml.reader.ReaderError, UnicodeEncodeError):
        raise _unprintable(rendered) from None


def _root(rendered: Rendered, loader: Any) -> FrozenDict:
    node = loader.get_single_node()
    if node is None or (node.tag == _TAG + "null" and not node.value):  # nothing, or only `---`
        return frozen_dict({})
    root = _Builder(rendered, loader).build(node, 1)
    if isinstance(root, FrozenDict):
        return root
    what = f"the file holds a {_kind(node)}; make it a mapping, `key: value`"
    raise _error(rendered, node.start_mark.index, what)


class _Builder:
    """Makes frozen values of the nodes of one document. Aliases share one value."""

    def __init__(self, rendered: Rendered, loader: Any) -> None:
        self._rendered = rendered
        self._loader = loader
        self._count = 0  # values, those behind aliases counted each time
        self._deepest = 0
        self._done: dict[yaml.Node, tuple[FrozenDict | FrozenList, int, int]] = {}
        self._open: set[yaml.Node] = set()

    def build(self, node: yaml.Node, depth: int) -> Any:
        self._count += 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node in self._open:
            raise self._error(node, "an alias in this value means the value itself; write it out")
        value, count, height = self._done.get(node) or self._collection(node, depth)
        self._deepest = max(self._deepest, depth + height)
        if self._deepest > MAX_DEPTH:
            raise self._error(node, f"nested deeper than {MAX_DEPTH} levels")
        self._count += count
        if self._count > MAX_VALUES:
            raise self._error(node, f"aliases make over {MAX_VALUES} values of this")
        return value

    def _collection(self, node: yaml.Node, depth: int) -> tuple[FrozenDict | FrozenList, int, int]:
        """The value of *node*, and how many values and levels it holds."""
        outer, self._count, self._deepest = (self._count, self._deepest), 0, depth
        self._open.add(node)
        mapping = isinstance(node, yaml.MappingNode)
        value = self._mapping(node, depth) if mapping else self._list(node, depth)
        self._open.remove(node)
        self._done[node] = value, self._count, self._deepest - depth
        self._count, self._deepest = outer
        return self._done[node]

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in _TEXT:
            return node.value
        if node.tag not in _SCALARS:
            raise self._unknown_tag(node)
        try:
            return _SCALARS[node.tag](self._loader, node)
        except Exception:  # PyYAML lets pass what int(), date() and friends raise
            kind = node.tag.removeprefix(_TAG)
            # Without a cause: its words hold the value.
            raise self._error(node, f"not a valid {kind}; quote it if it is text") from None

    def _list(self, node: yaml.Node, depth: int) -> FrozenList:
        if node.tag != _TAG + "seq":
            raise self._unknown_tag(node)
        values = [self.build(item, depth + 1) for item in node.value]
        return frozen_list(values, [item.start_mark.index for item in node.value])

    def _mapping(self, node: yaml.Node, depth: int) -> FrozenDict:
        if node.tag != _TAG + "map":
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
                offsets[key] = value_node.start_mark.index
        for other in merges:  # the earlier wins, and what is written here beats them all
            values = other | values
            offsets = dict(zip(other, offsets_of(other), strict=True)) | offsets
        return frozen_dict(values, offsets.values())

    def _key(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, f"a {_kind(node)} cannot be a key; quote it if it is text")
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
        # `password: !x9` was meant as text.
        tag = "a tag" if "***" in error.snippet else f"unknown tag {node.tag}"
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
    character = rendered.text[offset : offset + 1]
    if not rendered.is_literal(offset):
        what += "; the value of this expression is not plain YAML, write {{ ...|yaml }}"
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
