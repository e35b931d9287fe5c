"""Save what was added to a set and removed from it, not the whole set.

    class Host(SetDeltaMixin, Document):
        tags = SetField(StringField())

    host.tags.add("db")
    host.save()                     # {"$addToSet": {"tags": {"$each": ["db"]}}}

So writers with stale copies do not undo each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mongoengine import Document
from mongoengine.context_managers import set_write_concern
from mongoengine.errors import SaveConditionError

from ._trackedset import TrackedSet
from .setfield import SetField

if TYPE_CHECKING:
    _Delta = tuple[TrackedSet, SetField, set[Any], set[Any]]

    class _Base(Document):  # type: ignore[misc]
        """Its methods come from the document that the mixin is used with."""

else:
    _Base = object

__all__ = ["SetDeltaMixin"]


class SetDeltaMixin(_Base):
    """Before Document in the bases: SetFields changed in place are saved as the change.

    Sent are `$addToSet` and `$pullAll` in the place of `$set`, for the document's own SetFields
    (those of embedded documents are saved whole), nothing for a set that is back at what it was.
    The server takes only one of the two on one field: where elements were both added and
    removed, a second update removes, once the first has added. Each can be repeated without
    harm, but **the pair is not atomic** outside of a transaction that is bound to the context
    (`session.bind()`): others may see the elements of both, and when the second fails, `save()`
    raises and can be called again. What is taken back after a save that failed is taken back on
    the server too, as it may have been written.

    After `save()` the object holds its own view; what others have added appears with `reload()`.
    Written whole, by `$set`, are a set that was assigned, one that was null when loaded, one that
    had a default in place of a missing field, and one with elements stored in another form than
    the field writes today (text for a number, an alias of an EnumField).
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        order = cls.__mro__
        if Document in order and order.index(Document) < order.index(SetDeltaMixin):
            raise TypeError(f"{cls.__name__}: SetDeltaMixin goes before Document in the bases")

    def reload(self, *fields: Any, **options: Any) -> Any:
        super().reload(*fields, **options)
        # mongoengine looks for the names of *fields* among those of the database: it leaves a
        # renamed one marked, and the set just loaded would be written whole.
        for name in fields:
            field = self._fields.get(name)
            if isinstance(field, SetField) and field.db_field in self._changed_fields:
                self._changed_fields.remove(field.db_field)
        return self

    def _set_deltas(self) -> Iterator[_Delta]:
        """The set, its field, what to add and what to remove, of each set changed in place."""
        changed = getattr(self, "_changed_fields", ())
        for field, value in self._tracked_sets():
            if field.db_field in changed and (difference := value._difference()) is not None:
                yield value, field, *difference

    def _tracked_sets(self) -> Iterator[tuple[SetField, TrackedSet]]:
        for name, field in self._fields.items():
            if isinstance(field, SetField):
                value = getattr(self, name)
                if isinstance(value, TrackedSet):
                    yield field, value

    def _get_update_doc(self) -> dict[str, Any]:
        update: dict[str, Any] = super()._get_update_doc()
        for _, field, added, removed in self._set_deltas():
            path = field.db_field
            for whole in ("$set", "$unset"):
                update.get(whole, {}).pop(path, None)
            if added:
                update.setdefault("$addToSet", {})[path] = {"$each": field.to_mongo(added)}
            elif removed:
                update.setdefault("$pullAll", {})[path] = field.to_mongo(removed)
        return {name: paths for name, paths in update.items() if paths}

    def _save_update(self, doc: Any, save_condition: Any, write_concern: Any) -> Any:
        deltas = list(self._set_deltas())
        later = {
            field.db_field: field.to_mongo(removed)
            for _, field, added, removed in deltas
            if added and removed
        }
        try:
            saved = super()._save_update(doc, save_condition, write_concern)
            if later:
                # Not under save_condition: the first update may have made it untrue.
                select = self._integrate_shard_key(doc, {"_id": doc["_id"]})
                with set_write_concern(self._get_collection(), write_concern) as collection:
                    collection.update_one(select, {"$pullAll": later})
        except SaveConditionError:
            deltas = []  # the one failure that tells: nothing was written
            raise
        finally:
            # Even after success something may fail in save(), and the program take a change back.
            for value, _, added, removed in deltas:
                value._was_sent(added, removed)
        return saved

    def _clear_changed_fields(self) -> None:
        # A document without a list of its changes was new, and has been written whole.
        changed = getattr(self, "_changed_fields", None)
        for field, value in self._tracked_sets():
            if changed is None or field.db_field in changed:
                value._known, value._whole = None, False
        super()._clear_changed_fields()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state["_sets"] = {
            field.name: (value._known, value._whole) for field, value in self._tracked_sets()
        }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name, (known, whole) in state.get("_sets", {}).items():
            value = getattr(self, name, None)
            if isinstance(value, TrackedSet):
                value._known, value._whole = known, whole
