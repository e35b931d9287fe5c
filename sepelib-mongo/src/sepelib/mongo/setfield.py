"""A field of mongoengine whose value is a set.

    class Host(Document):
        tags = SetField(StringField(max_length=40), max_length=100)

    host.tags.add("db")             # marks the field as changed, if it was not in
    Host.objects(tags="db")         # contains; tags={"db", "ssd"}: equals, in any order

Stored as an array without duplicates in a fixed order, so that equal sets are equal bytes. The
order is never relied on when reading, since `$addToSet` appends. `save()` writes the whole array
and so loses what others have added since the load; with SetDeltaMixin it writes the difference.
"""

from __future__ import annotations

import contextlib
import operator
import re
import weakref
from collections import UserDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any
from uuid import UUID

import bson
from bson.binary import Binary, UuidRepresentation
from bson.codec_options import CodecOptions
from mongoengine.base import BaseDocument, BaseField, ComplexBaseField, GeoJsonBaseField
from mongoengine.errors import InvalidQueryError, ValidationError
from mongoengine.fields import (
    CachedReferenceField,
    EmbeddedDocumentField,
    FileField,
    GenericEmbeddedDocumentField,
    GenericLazyReferenceField,
    GenericReferenceField,
    GeoPointField,
    LazyReferenceField,
    ListField,
    ReferenceField,
    StringField,
)
from mongoengine.queryset.transform import STRING_OPERATORS

from ._origin import Given, label_of, origin
from ._trackedset import TrackedSet, nobody

__all__ = ["SetField"]

# Not hashable, or fetched from the database when looked at.
_NO_ELEMENTS = (
    CachedReferenceField,
    ComplexBaseField,
    EmbeddedDocumentField,
    FileField,
    GenericEmbeddedDocumentField,
    GenericLazyReferenceField,
    GenericReferenceField,
    GeoJsonBaseField,
    GeoPointField,
    LazyReferenceField,
    ReferenceField,
)
# Of these each value can be stored, and comes back hashable and equal to itself.
_PLAIN = frozenset({bool, bson.ObjectId, bytes, datetime, int, str, UUID})
_BASES = (bool, bytes, float, int, str)
_CANONICAL: CodecOptions[dict[str, Any]] = CodecOptions(
    uuid_representation=UuidRepresentation.STANDARD
)


class SetField(ListField):  # type: ignore[misc]
    """A set of scalars; each document has one of its own, empty by default.

    The value is a `set` that tells its document of changes in place; its copies are plain sets.
    Elements are converted by *field* when they are assigned, added, or looked up for removal.
    Without *field* they are kept as they are. Assign a set, frozenset, list or tuple: anything
    else is kept and fails validation. In the database, anything but an array of hashable
    elements is a ValidationError when the document is loaded.

    Queries: `tags="a"` contains; `tags={"a", "b"}` (any iterable) equals, `tags=set()` also where
    the field is null or missing; `ne` with one element: does not contain; in, nin, all, size,
    exists, not. Updates: set, add_to_set, pull (of many too), pull_all, unset.

    What mongoengine does not let a field do: `set_on_insert__tags=` a list or set is stored in
    the order, and with the duplicates, given (a frozenset is stored properly); for
    `pull__box__tags` in an embedded document write `__raw__={"$pull": {"box.tags": ...}}`.
    As an element of a ListField or MapField the value is a frozenset, as nobody could see changes.
    """

    def __init__(
        self, field: Any = None, *, max_length: int | None = None, **field_options: Any
    ) -> None:
        if field is not None and (
            not isinstance(field, BaseField) or isinstance(field, _NO_ELEMENTS)
        ):
            given = field.__name__ if isinstance(field, type) else type(field).__name__
            raise TypeError(
                f"SetField cannot hold {given}: its elements are scalars, of an instance of a "
                "field; use ListField / EmbeddedDocumentListField / SetField(ObjectIdField())"
            )
        field_options.setdefault("default", set)
        super().__init__(field, max_length=max_length, **field_options)

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            return self
        value = instance._data.get(self.name)
        if type(value) is TrackedSet:
            if value._owner() is not instance:
                # Unpickling takes the data of a temporary document.
                value = instance._data[self.name] = TrackedSet(
                    value, self, instance, whole=value._whole
                )
        elif value is None and not instance._initialised and self.name not in instance._data:
            # While a document is made, only fields that were not given are read. Here is the one
            # place where "missing" and "null" differ: $addToSet works on the first only.
            value = self._own(instance, self._default())
            if type(value) is TrackedSet:
                value._whole = bool(value)
                instance._data[self.name] = value
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        data = instance._data
        current = data.get(self.name)
        if value is current and value is not None:
            return  # `doc.tags |= x` ends in assigning the set to its own place
        was_null = value is None
        value = self._own(instance, self._default() if was_null else value)
        if type(value) is TrackedSet:
            value._whole |= was_null
            if type(current) is TrackedSet and current == value:
                current._whole |= value._whole
                return
        if instance._initialised and (self.name not in data or current != value):
            instance._mark_as_changed(self.name)
        data[self.name] = value

    def _default(self) -> Any:
        if self.null:
            return None
        return self.default() if callable(self.default) else self.default

    def _own(self, owner: Any, value: Any) -> Any:
        """*value* as a set of *owner*, a document or None; as it is where that cannot be."""
        if type(value) is TrackedSet and value._owner is nobody:
            value._owner = weakref.ref(owner)
            return value
        if not isinstance(value, set | frozenset | list | tuple):
            return value
        whole = type(value) is TrackedSet and value._whole
        try:
            return TrackedSet(map(self._element, value), self, owner, whole=whole)
        except TypeError:  # not hashable
            return value

    def _element(self, value: Any) -> Any:
        if self.field is None or value is None:
            return value
        try:
            return self.field.to_python(value)
        except (TypeError, ValueError, ValidationError):
            return value  # validation will say what is wrong with it

    def _each(self, convert: Callable[[Any], Any], values: Any) -> list[Any]:
        if None in values:
            return [None if value is None else convert(value) for value in values]
        return list(map(convert, values))

    def to_python(self, value: Any) -> Any:
        if isinstance(value, list | tuple | set | frozenset):
            elements = value if self.field is None else self._each(self.field.to_python, value)
            try:
                if self.name is None:
                    return frozenset(elements)
                return TrackedSet(elements, self, whole=not self._is_canonical(elements, value))
            except TypeError:
                what = "has an element that is not hashable"
        elif isinstance(value, Given):
            return value.value
        else:
            what = f"is no array but {type(value).__name__}"
        if origin() != "_from_son":
            return value  # for validate()
        return self.error(f"{label_of(self)}: the stored value {what}")

    def _is_canonical(self, elements: Iterable[Any], stored: Iterable[Any]) -> bool:
        """Whether *elements* would be stored as they are: else $pullAll would not find them."""
        if not all(map(operator.is_, elements, stored)):
            try:
                elements = self._each(self.field.to_mongo, elements)
            except (TypeError, ValueError, ValidationError):
                return False
            if elements != list(stored):
                return False
        # True is 1 here and not in the database, so that of both the set has forgotten one.
        kinds = {*map(type, elements), *map(type, stored)}
        return bool not in kinds or len(kinds) == 1

    def to_mongo(self, value: Any) -> Any:
        if isinstance(value, list | tuple):  # in another field, where nothing was converted
            value = self._own(None, value)
        if not isinstance(value, set | frozenset):
            return Given(value) if origin() == "__getstate__" else value
        if self.field is None:
            return in_order(value)
        return in_order(self._each(self.field.to_mongo, value))

    def _bytes_of(self, element: Any) -> bytes:
        if self.field is not None and element is not None:
            element = self.field.to_mongo(element)
        return bson.encode({"": element}, codec_options=_CANONICAL)

    def _validate_choices(self, value: Any) -> None:
        if isinstance(value, set | frozenset):
            super()._validate_choices(list(value))

    def validate(self, value: Any) -> None:
        if isinstance(value, list | tuple):
            value = self._own(None, value)
            if not isinstance(value, TrackedSet):
                self.error("The elements of a set must be hashable")
        elif not isinstance(value, set | frozenset):
            self.error(f"Not a set, frozenset, list or tuple but {type(value).__name__}")
        if self.max_length is not None and len(value) > self.max_length:
            self.error(f"Set is too long: {len(value)} elements, {self.max_length} allowed")
        if self.required and not value:
            self.error("Field is required and cannot be empty")
        self._validate_elements(value)

    def _validate_elements(self, elements: AbstractSet[Any]) -> None:
        errors = {} if set(map(type, elements)) <= _PLAIN else _unfit(elements)
        if self.field is not None:
            for element in elements:
                try:
                    self.field._validate(element)
                except ValidationError as error:
                    errors.setdefault(repr(element), error.errors or error)
                except (ValueError, AssertionError) as error:
                    errors.setdefault(repr(element), error)
        if errors:
            self.error(f"{len(errors)} invalid of {len(elements)} elements", errors=errors)

    def prepare_query_value(self, op: str | None, value: Any) -> Any:
        if op in ("push", "pushAll", "inc"):
            raise InvalidQueryError(
                f"{label_of(self)}: {op} does not keep a set free of duplicates, use add_to_set"
            )
        if op in ("set", "addToSet", "setOnInsert"):
            return self._to_be_stored(op, value)
        many = _is_many(value)
        if op == "pull" and many:
            return {"$in": self._asked("in", value)}
        if op in (None, "not"):
            return self._equality(op, value, many)
        if many:
            raise InvalidQueryError(
                f"{label_of(self)}: {op} takes one element, not {type(value).__name__}"
            )
        return value if isinstance(value, Mapping) else self._asked(op, [value])[0]

    def _to_be_stored(self, op: str, value: Any) -> Any:
        many = _is_many(value)
        if op == "set":
            value = self._own(None, list(value) if many else value)
            self._validate(value)
            return self.to_mongo(value)
        if isinstance(value, list | tuple | set):  # of these we are given each element
            self.error(f"{label_of(self)}: an element cannot be a {type(value).__name__}")
        elements = self._own(None, list(value) if many else [value])
        if not isinstance(elements, TrackedSet):
            self.error(f"{label_of(self)}: an element must be hashable")
        if self.choices:
            self._validate_choices(elements)
        self._validate_elements(elements)
        stored = self.to_mongo(elements)
        return stored if many else stored[0]

    def _equality(self, op: str | None, value: Any, many: bool) -> Any:
        if isinstance(value, Mapping):
            raise InvalidQueryError(f"{label_of(self)}: a mapping is no set, use __raw__")
        if not many:
            element = self._asked(None, [value])[0]
            return {"$eq": element} if op and not isinstance(element, re.Pattern) else element
        elements = in_order(self._asked(None, value))
        if elements:
            return _Condition({"$all": elements, "$size": len(elements)})
        if isinstance(value, Iterator):
            # mongoengine may ask again, for each clone of a queryset.
            raise InvalidQueryError(f"{label_of(self)}: the iterator is used up, give a set")
        return _Condition({"$in": [[], None]})

    def _asked(self, op: str | None, values: Iterable[Any]) -> list[Any]:
        field = self.field
        if field is None and op in STRING_OPERATORS:
            field = StringField()
        if field is None:
            return list(values)
        return self._each(lambda value: field.prepare_query_value(op, value), list(values))


class _Condition(UserDict[str, Any]):
    """A condition that mongoengine does not mix with another one on the same field.

    It merges two dicts into one, so that an $all beside this one would replace it without a word.
    What is no dict it joins by $and.
    """


def in_order(values: Iterable[Any]) -> list[Any]:
    """*values* without duplicates, by type, then value: the same for equal sets."""
    values = list(values)
    if len(set(map(type, values))) <= 1:
        return _sorted(values)
    kinds: dict[str, list[Any]] = defaultdict(list)
    for value in values:
        # The driver loads numbers of 64 bits as Int64: no kind of its own, since equal to an int.
        kind = next((kind for kind in _BASES if isinstance(value, kind)), type(value))
        kinds[kind.__qualname__].append(value)
    return [value for kind in sorted(kinds) for value in _sorted(kinds[kind])]


def _sorted(values: list[Any]) -> list[Any]:
    # Not hashable is Decimal128; dates with a zone have no order with dates without one.
    with contextlib.suppress(TypeError):
        if Binary not in map(type, values):  # compares its bytes, not its subtype
            return sorted(set(values))
    by_bytes = {bson.encode({"": value}, codec_options=_CANONICAL): value for value in values}
    return [by_bytes[key] for key in sorted(by_bytes)]


def _is_many(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(
        value, str | bytes | Mapping | BaseDocument
    )


def _unfit(elements: Iterable[Any]) -> dict[str, Any]:
    errors: dict[str, Any] = {}
    for element in elements:
        if element is None:
            errors["None"] = ValidationError("None cannot be an element")
        elif isinstance(element, tuple | re.Pattern):
            errors[repr(element)] = ValidationError("would not be hashable when loaded")
        elif element != element:
            errors[repr(element)] = ValidationError("NaN is not equal to itself")
    return errors
