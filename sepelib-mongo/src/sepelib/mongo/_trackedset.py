"""The value of a SetField: a set that tells its document when it changes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .setfield import SetField


def nobody() -> None:
    """The owner of a set that is in no document."""


class TrackedSet(set[Any]):
    """The set of a document: marks the field when its contents change. Copies are plain sets.

    *known* is None when the field is clean or was assigned. From the first change in place on it
    has what the server held at the load, twice: what it holds for sure, and what it may hold, as
    a save that fails may have written and may not. With *whole* the set is not what the server
    holds (a null, a default, elements in an old form), so that no difference can be sent until it
    has been written.
    """

    __slots__ = ("_field", "_known", "_owner", "_whole")

    def __init__(
        self,
        elements: Iterable[Any],
        field: SetField,
        owner: Any = None,
        *,
        whole: bool = False,
    ) -> None:
        super().__init__(elements)
        self._field = field
        self._owner: Callable[[], Any] = nobody if owner is None else weakref.ref(owner)
        self._known: tuple[frozenset[Any], frozenset[Any]] | None = None
        self._whole = whole

    def _will_change(self) -> None:
        owner, field = self._owner(), self._field
        if owner is None or owner._data.get(field.name) is not self:
            return  # the document has gone, or holds another set by now
        changed = getattr(owner, "_changed_fields", None)
        if changed is not None and field.db_field not in changed:  # None: new, not saved yet
            self._known = None if self._whole else (frozenset(self),) * 2
            owner._mark_as_changed(field.name)

    def _difference(self) -> tuple[set[Any], set[Any]] | None:
        """What to add and what to remove on the server; None: no change in place is known."""
        if self._known is None:
            return None
        held, perhaps = self._known
        removed = set(perhaps - self)
        if removed:
            # One that is still there in another guise, as a time with its zone, must not go.
            kept = set(map(self._field._bytes_of, self))
            removed = {one for one in removed if self._field._bytes_of(one) not in kept}
        return self - held, removed

    def _was_sent(self, added: set[Any], removed: set[Any]) -> None:
        if self._known is not None:
            held, perhaps = self._known
            self._known = held - removed, perhaps | added

    def _insert(self, elements: set[Any]) -> None:
        elements = elements - self  # `-=` would walk through all of self
        if elements:
            self._will_change()
            super().update(elements)

    def _remove(self, elements: set[Any]) -> None:
        if elements:
            self._will_change()
            super().difference_update(elements)

    def _converted(self, others: Iterable[Iterable[Any]]) -> set[Any]:
        return {self._field._element(element) for other in others for element in other}

    def add(self, element: Any, /) -> None:
        element = self._field._element(element)
        if element not in self:
            self._will_change()
            super().add(element)

    def discard(self, element: Any, /) -> None:
        self._remove({self._field._element(element)} & self)

    def remove(self, element: Any, /) -> None:
        element = self._field._element(element)
        if element not in self:
            raise KeyError(element)
        self._remove({element})

    def pop(self) -> Any:
        if self:
            self._will_change()
        return super().pop()

    def clear(self) -> None:
        if self:
            self._will_change()
            super().clear()

    def update(self, *others: Iterable[Any]) -> None:
        self._insert(self._converted(others))

    def difference_update(self, *others: Iterable[Any]) -> None:
        self._remove(self._converted(others) & self)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        kept = set(self).intersection(*(self._converted([other]) for other in others))
        self._remove(self - kept)

    def symmetric_difference_update(self, other: Iterable[Any], /) -> None:
        elements = self._converted([other])
        common = elements & self
        self._insert(elements)
        self._remove(common)

    def __ior__(self, other: AbstractSet[Any]) -> TrackedSet:  # type: ignore[misc]
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.update(other)
        return self

    def __iand__(self, other: AbstractSet[Any]) -> TrackedSet:  # type: ignore[misc]
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.intersection_update(other)
        return self

    def __isub__(self, other: AbstractSet[Any]) -> TrackedSet:  # type: ignore[misc]
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.difference_update(other)
        return self

    def __ixor__(self, other: AbstractSet[Any]) -> TrackedSet:  # type: ignore[misc]
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.symmetric_difference_update(other)
        return self

    def __repr__(self) -> str:
        return repr(set(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return set, (list(self),)
