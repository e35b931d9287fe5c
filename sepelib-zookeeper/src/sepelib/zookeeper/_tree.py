"""The nodes of a tree cache, and what has become of each of them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kazoo.protocol.states import ZnodeStat

__all__ = ["NodeData", "Put", "Tree", "TreeEvent", "TreeEventType", "below"]


class TreeEventType(enum.Enum):
    """What a TreeEvent tells."""

    NODE_ADDED = "node added"
    NODE_UPDATED = "node updated"
    NODE_REMOVED = "node removed"
    """With the last data that was known."""
    CONNECTION_SUSPENDED = "connection suspended"
    CONNECTION_LOST = "connection lost"
    CONNECTION_RECONNECTED = "connection reconnected"
    INITIALIZED = "initialized"
    """All has been read: for the first time, and after each CONNECTION_RECONNECTED."""


class NodeData(NamedTuple):
    """A node as it was last read."""

    path: str
    data: bytes
    stat: ZnodeStat
    """Of the last change of the data: later children and ACLs do not show."""


class TreeEvent(NamedTuple):
    """A change of a tree cache; *event_data* is None for what is of no node."""

    event_type: TreeEventType
    event_data: NodeData | None = None


class Put(enum.Enum):
    """What was done with a node that was read."""

    NEW = "new"
    KNOWN = "known"
    HOMELESS = "homeless"
    """Its parent is not in the tree."""


class _Node:
    # There may be a million of them; other threads read while the hub's writes.
    __slots__ = ("children", "value")

    def __init__(self, value: tuple[bytes, ZnodeStat]) -> None:
        self.value = value
        """One object, so that another thread reads no half of it."""
        self.children: dict[str, _Node] | None = None


class Tree:
    """Nodes at *root* and below; *publish* is told each change of a node."""

    def __init__(self, root: str, publish: Callable[[TreeEvent], object]) -> None:
        self.root = root
        self._publish = publish
        self._top: _Node | None = None
        self.size = 0

    def parts(self, path: str) -> list[str]:
        """The names from the root to *path*; ValueError when it is not in this tree."""
        path = path.rstrip("/") or "/"
        root = self.root
        if path == root:
            return []
        prefix = root if root == "/" else root + "/"
        if not path.startswith(prefix):
            raise ValueError(f"{path} is not {root} and not below it")
        return path[len(prefix) :].split("/")

    def get(self, path: str) -> NodeData | None:
        node = self._find(self.parts(path))
        return None if node is None else NodeData(path.rstrip("/") or "/", *node.value)

    def children(self, path: str) -> frozenset[str] | None:
        node = self._find(self.parts(path))
        return None if node is None else frozenset(node.children or ())

    def paths(self) -> Iterator[str]:
        """Of all nodes, parents before their children."""
        if self._top is not None:
            for path, _ in _walk(self.root, self._top):
                yield path

    def put(self, path: str, value: tuple[bytes, ZnodeStat]) -> Put:
        """The node was read: it is there."""
        parts = self.parts(path)
        node = self._find(parts)
        if node is not None:
            old = node.value[1]
            if old.czxid == value[1].czxid:
                node.value = value
                if old.mzxid != value[1].mzxid:
                    self._tell(TreeEventType.NODE_UPDATED, path, node)
                return Put.KNOWN
            self.remove(path)
        node = _Node(value)
        if not parts:
            self._top = node
        else:
            parent = self._find(parts[:-1])
            if parent is None:
                return Put.HOMELESS
            if parent.children is None:
                parent.children = {}
            parent.children[parts[-1]] = node
        self.size += 1
        self._tell(TreeEventType.NODE_ADDED, path, node)
        return Put.NEW

    def remove(self, path: str) -> None:
        """There is no such node, and so none below it: those are told of before it."""
        parts = self.parts(path)
        node = self._find(parts)
        if node is None:
            return
        if not parts:
            self._top = None
        else:
            parent = self._find(parts[:-1])
            assert parent is not None and parent.children is not None
            del parent.children[parts[-1]]
            if not parent.children:
                parent.children = None
        for below_it, gone in reversed(list(_walk(path, node))):
            self.size -= 1
            self._tell(TreeEventType.NODE_REMOVED, below_it, gone)

    def clear(self) -> None:
        """Forget all, and tell nobody."""
        self._top = None
        self.size = 0

    def _find(self, parts: list[str]) -> _Node | None:
        node = self._top
        for name in parts:
            children = None if node is None else node.children  # read once: see `_Node`
            if children is None:
                return None
            node = children.get(name)
        return node

    def _tell(self, kind: TreeEventType, path: str, node: _Node) -> None:
        self._publish(TreeEvent(kind, NodeData(path, *node.value)))


def below(path: str, name: str) -> str:
    """The path of a child."""
    return f"{path}/{name}" if path != "/" else f"/{name}"


def _walk(path: str, node: _Node) -> Iterator[tuple[str, _Node]]:
    left = [(path, node)]
    while left:
        path, node = left.pop()
        yield path, node
        for name, child in (node.children or {}).items():
            left.append((below(path, name), child))
