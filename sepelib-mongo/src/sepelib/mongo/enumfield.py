"""A field for one of a fixed set of values: the members of an Enum, or plain strings.

    class Status(Enum):
        NEW = "new"
        DONE = "done"

    class Ticket(Document):
        status = EnumField(Status, default=Status.NEW, aliases={"finished": Status.DONE})
        history = ListField(EnumField(Status))

    Ticket(status="done").status is Status.DONE
    Ticket.objects(status__in=[Status.NEW, "done"], history=Status.NEW)
    migrate_enum(Ticket, "status")      # "finished" becomes "done"

What is no member is refused: by `validate()` and `save()` (ValidationError, with all that may be),
by queries and updates (InvalidQueryError, and nothing is sent). mongoengine asks no field about the
operators size, type, mod, exists, min, max, mul, rename and those of places: they go as given.

A value that the program does not know, since it is older or newer than the database, is no error:
it is loaded as UnknownEnumValue, and stays in the database until something else is assigned.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import mongoengine
from mongoengine.base import BaseField
from mongoengine.errors import InvalidQueryError, LookUpError

from ._enumforms import Forms
from ._origin import Given, container_of, label_of, origin

__all__ = ["EnumField", "UnknownEnumValue", "migrate_enum"]

_log = logging.getLogger(__name__)

_FINDS = frozenset({None, "ne", "in", "nin", "all", "not"})
_COMPARES = frozenset({"gt", "gte", "lt", "lte"})
_WRITES = frozenset({"set", "push", "pushAll", "addToSet", "setOnInsert"})
_REMOVES = frozenset({"pull", "pullAll"})

_WARNINGS = 1000
"""So many values a field warns of: what a broken writer leaves does not fill memory and log."""


class UnknownEnumValue:
    """A stored value that is no member; equal to another with the same *raw*.

    In a query it finds that value: `Ticket.objects(status=UnknownEnumValue("gone"))`. Assigned to a
    field it fails validation, like all that is no member.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def __repr__(self) -> str:
        return f"UnknownEnumValue({self.raw!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UnknownEnumValue):
            return NotImplemented
        return bool(self.raw == other.raw)

    def __hash__(self) -> int:
        try:
            return hash(self.raw)
        except TypeError:  # a list or a document was stored
            return hash(UnknownEnumValue)

    def __reduce__(self) -> tuple[Any, ...]:
        return UnknownEnumValue, (self.raw,)


class _Loaded(UnknownEnumValue):
    """One that is still where it was read: *owner* holds the field, or nothing knows it yet."""

    __slots__ = ("_owner",)

    def __init__(self, raw: Any, owner: Any = None) -> None:
        super().__init__(raw)
        self._owner = None if owner is None else weakref.ref(owner)

    @property
    def owner(self) -> Any:
        return None if self._owner is None else self._owner()

    def stays(self, document: Any, current: Any) -> bool:
        """Whether it is read into *document*, or is its *current* value, and not assigned anew."""
        if self._owner is None or current is self:
            return True
        owner = self.owner  # reload() and modify() read into another object for the same document
        return bool(current == self if owner is document else owner == document)

    def is_left_alone(self) -> bool:
        document = self.owner
        with contextlib.suppress(ReferenceError):  # an embedded document outlives what it was in
            while document is not None:
                # Without a key it becomes a new document too, as from_json() makes one.
                if document._created or getattr(document, "pk", document) is None:
                    return False
                document = getattr(document, "_instance", None)
        return True


class EnumField(mongoengine.EnumField):  # type: ignore[misc]
    """One of *enum_or_choices*: an Enum class (no Flag), or an iterable of strings.

    by: what is stored, "value" or "name". choices: the members that validate, all if None; others
    are still read and found. aliases: old stored forms and the member that each is read as; only
    `migrate_enum` makes queries find them. default: a member, its stored form, or a callable.

    unknown: what a stored value is read as that is none of these. None: an UnknownEnumValue; the
    document can be saved as long as the field is left alone, but not as an element of a list, map
    or set, unless it is "keep", which is the same otherwise. "raise": nothing, ValidationError. A
    member: that one, and it is not written. All but "raise" are logged once for each value.

    Assignment converts at once. A member of another Enum is refused, whatever it equals; True is
    not 1, and 1.0 is. Of a new element, as by `append`, only the validation knows. get_X_display()
    gives the member.
    """

    def __init__(
        self,
        enum_or_choices: Any,
        *,
        by: str = "value",
        unknown: Any = None,
        aliases: Mapping[Any, Any] | None = None,
        choices: Iterable[Any] | None = None,
        **field_options: Any,
    ) -> None:
        self._forms = forms = Forms(enum_or_choices, by=by, aliases=aliases)
        # By type: a member of a str-Enum may equal one of the words.
        self._word = unknown if type(unknown) is str and unknown in ("raise", "keep") else None
        self._stand_in = unknown if forms.is_member(unknown) else None
        if self._word is not None and self._stand_in is not None:
            raise ValueError(f"unknown={unknown!r} is a choice as well, so means two things")
        if unknown is not None and self._word is None and self._stand_in is None:
            raise ValueError(f"unknown={unknown!r}: it is None, 'raise', 'keep' or a member")
        allowed = list(forms.members if choices is None else choices)
        if not allowed or not all(map(forms.is_member, allowed)):
            raise ValueError(f"choices: {allowed!r} are not members of {forms.name}")
        default = field_options.get("default")
        if default is not None and not callable(default):
            field_options["default"] = forms.find(default)
            if field_options["default"] not in allowed:
                raise ValueError(f"default={default!r} is no member, or none of the choices")
        # Not that of mongoengine's EnumField, which knows Enums only.
        BaseField.__init__(self, choices=allowed, **field_options)

    def __set__(self, instance: Any, value: Any) -> None:
        if value is None and not self.null and self.default is not None:
            value = self.default() if callable(self.default) else self.default
        member = self._forms.find(value)
        if member is not None:
            value = member
        elif isinstance(value, UnknownEnumValue):
            current = instance._data.get(self.name)
            stays = isinstance(value, _Loaded) and value.stays(instance, current)
            value = _Loaded(value.raw, instance) if stays else UnknownEnumValue(value.raw)
        BaseField.__set__(self, instance, value)

    def to_python(self, value: Any) -> Any:
        if value is None or isinstance(value, UnknownEnumValue):
            return value
        member = self._forms.find(value)
        if member is not None:
            return member
        if isinstance(value, Given):
            return value.value
        if origin() != "_from_son":
            return value
        member = self._forms.find_alias(value)
        return self._read_unknown(value) if member is None else member

    def to_mongo(self, value: Any) -> Any:
        member = self._forms.find(value)
        if member is not None:
            return self._forms.stored(member)
        if value is None:
            return None
        is_unknown = isinstance(value, UnknownEnumValue)
        if not (is_unknown and self._may_stay(value)):
            wanted_by = origin()
            if wanted_by == "__getstate__":
                return Given(value)
            # In a query by a map or an embedded document mongoengine asks for no value by itself.
            if wanted_by == "prepare_query_value":
                raise InvalidQueryError(self._refusal(value))
        return value.raw if is_unknown else value

    def prepare_query_value(self, op: str | None, value: Any) -> Any:
        forms = self._forms
        compares = op in _COMPARES and forms.numeric and value is not None
        if not (compares or op in _FINDS or op in _WRITES or op in _REMOVES):
            raise InvalidQueryError(f"{label_of(self)}: an EnumField has no operator {op!r} here")
        if value is None:
            stored = None
        elif (member := forms.find(value)) is not None:
            if op in _WRITES and not self._is_allowed(member):
                raise InvalidQueryError(self._refusal(value))
            stored = forms.stored(member)
        elif isinstance(value, UnknownEnumValue) and op not in _WRITES:
            stored = value.raw
        else:
            raise InvalidQueryError(self._refusal(value))
        return {"$eq": stored} if op == "not" else stored

    def validate(self, value: Any, clean: bool = True) -> None:
        member = self._forms.find(value)
        if member is None or not self._is_allowed(member):
            self.error(self._refusal(value))

    def lookup_member(self, member_name: str) -> Any:
        # Asked of the field inside a container: of a map for a key, of a list for all but an index.
        if self.name is None and isinstance(container_of(self), mongoengine.DictField):
            field = copy.copy(self)
            field.db_field = member_name
            return field
        if member_name == "S":  # mongoengine's word for the positional $
            return None
        raise LookUpError(
            f"{label_of(self)}: an EnumField has no field or operator {member_name!r}"
        )

    def _validate(self, value: Any, **options: Any) -> None:
        if not (isinstance(value, UnknownEnumValue) and self._may_stay(value)):
            super()._validate(value, **options)

    def _validate_choices(self, value: Any) -> None:
        """Nothing: `validate` does, for stored forms and for what has no hash as well."""

    def _may_stay(self, value: UnknownEnumValue) -> bool:
        if self.name is None:
            return self._word == "keep"
        return isinstance(value, _Loaded) and value.is_left_alone()

    def _is_allowed(self, member: Any) -> bool:
        return member in self.choices

    def _read_unknown(self, raw: Any) -> Any:
        if self._word == "raise":
            self.error(self._refusal(raw))
        self._warn(raw)
        if self._stand_in is not None:
            return self._stand_in
        return UnknownEnumValue(raw) if self.name is None else _Loaded(raw)

    def _warn(self, raw: Any) -> None:
        shown, mine, warned = f"{raw!r:.200}", object(), self._forms.warned
        # One step, so that of many threads one is the first.
        if len(warned) < _WARNINGS and warned.setdefault(shown, mine) is mine:
            _log.warning(
                "%s: the database holds %s, no %s", label_of(self), shown, self._forms.name
            )

    def _refusal(self, value: Any) -> str:
        allowed = ", ".join(repr(self._forms.stored(member)) for member in self.choices)
        return f"{label_of(self)}: {value!r:.200} is none of {allowed}"


def migrate_enum(model: Any, field: str) -> int:
    """Store each alias of *field*, an EnumField of *model* or a list of them, as its member is now.

    field: as in a query, "status" or "box__status"; of a map it is one key, "votes__x". Returns how
    many documents were changed; a list with two old forms counts twice. It is one `update_many` for
    each alias: what others write meanwhile stays, and it can be broken off and run again. Errors
    are pymongo's, and TypeError for what is no EnumField.
    """
    found, target, element, forms = _place(model, field)
    collection = model._get_collection()
    changed = 0
    for raw, member in forms.old.items():
        changed += collection.update_many(
            # The queryset's own query keeps to the documents of this class.
            mongoengine.QuerySet(model, collection)(__raw__={found: raw})._query,
            {"$set": {target: forms.stored(member)}},
            array_filters=None if element is None else [{element: raw}],
        ).modified_count
    return changed


def _place(model: Any, field: str) -> tuple[str, str, str | None, Forms]:
    """The path to find *field* by, that to set it by, and that from an element to be filtered."""
    steps: list[str] = []
    enum_field: Any = None
    for part in model._lookup_field(field.replace("__", ".").split(".")):
        steps.append(part if isinstance(part, str) else part.db_field)
        enum_field = part
        if not isinstance(part, (str, mongoengine.DictField)) and getattr(part, "field", None):
            steps.append("$[]")
            enum_field = part.field
    if not isinstance(enum_field, EnumField):
        raise TypeError(f"{model.__name__}.{field} is no EnumField, nor a list or set of them")
    found = ".".join(step for step in steps if step != "$[]")
    if "$[]" not in steps:
        return found, found, None, enum_field._forms
    # All elements of the outer arrays, and those of the innermost that match.
    innermost = len(steps) - 1 - steps[::-1].index("$[]")
    within = steps[innermost + 1 :]
    target = ".".join([*steps[:innermost], "$[old]", *within])
    return found, target, ".".join(["old", *within]), enum_field._forms
