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

from ._trackedset import TrackedSet
from .setfield import SetField

if TYPE_CHECKING:

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
    harm, but **the pair is not atomic**: others may see the elements of both, and when the second
    fails, `save()` raises and can be called again.

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

    def _set_deltas(self) -> Iterator[tuple[str, list[Any], list[Any]]]:
        """The database's name, what was added and what removed, of each set changed in place."""
        changed = getattr(self, "_changed_fields", ())
        for field, value in self._tracked_sets():
            if value._before is not None and field.db_field in changed:
                added, removed = set(value) - value._before, value._before - value
                yield field.db_field, field.to_mongo(added), field.to_mongo(removed)

    def _tracked_sets(self) -> Iterator[tuple[SetField, TrackedSet]]:
        for name, field in self._fields.items():
            if isinstance(field, SetField):
                value = getattr(self, name)
                if isinstance(value, TrackedSet):
                    yield field, value

    def _get_update_doc(self) -> dict[str, Any]:
        update: dict[str, Any] = super()._get_update_doc()
        for path, added, removed in self._set_deltas():
            for whole in ("$set", "$unset"):
                update.get(whole, {}).pop(path, None)
            if added:
                update.setdefault("$addToSet", {})[path] = {"$each": added}
            elif removed:
                update.setdefault("$pullAll", {})[path] = removed
        return {name: paths for name, paths in update.items() if paths}

    def _save_update(self, doc: Any, save_condition: Any, write_concern: Any) -> Any:
        later = {path: removed for path, added, removed in self._set_deltas() if added and removed}
        saved = super()._save_update(doc, save_condition, write_concern)
        if later:
            # Not under save_condition: the first update may have made it untrue.
            select = self._integrate_shard_key(doc, {"_id": doc["_id"]})
            with set_write_concern(self._get_collection(), write_concern) as collection:
                collection.update_one(select, {"$pullAll": later})
        return saved

    def _clear_changed_fields(self) -> None:
        # A document without a list of its changes was new, and has been written whole.
        changed = getattr(self, "_changed_fields", None)
        for field, value in self._tracked_sets():
            if changed is None or field.db_field in changed:
                value._before, value._whole = None, False
        super()._clear_changed_fields()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state["_sets"] = {
            field.name: (value._before, value._whole) for field, value in self._tracked_sets()
        }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name, (before, whole) in state.get("_sets", {}).items():
            value = getattr(self, name, None)
            if isinstance(value, TrackedSet):
                value._before, value._whole = before, whole
