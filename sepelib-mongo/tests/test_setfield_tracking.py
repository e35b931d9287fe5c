"""The contract of SetField's tracking: what marks the field, and what leaves it clean."""

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mongoengine import (
    Document,
    IntField,
    StringField,
    ValidationError,
)

from sepelib.mongo import SetField


class SetHost(Document):  # type: ignore[misc]
    tags = SetField(StringField(max_length=10))
    ports = SetField(IntField(), db_field="p")
    plain = SetField()


class SetStrict(Document):  # type: ignore[misc]
    STRICT = True
    tags = SetField(StringField())


class SetSlots(Document):  # type: ignore[misc]
    some = SetField(StringField(), required=True)
    few = SetField(StringField(), max_length=2)
    null = SetField(StringField(), null=True)
    none = SetField(StringField(), default=None)
    ready = SetField(StringField(), default={"a"})
    made = SetField(StringField(), default=lambda: ["b", "b"])
    chosen = SetField(StringField(), choices=["x", "y"])


def stored(document: Any) -> dict[str, Any]:
    found = document._get_collection().find_one({"_id": document.pk})
    assert found is not None
    return dict(found)


def changed(document: Any) -> list[str]:
    return list(document._get_changed_fields())


def invalid(document: Any, field: str) -> str:
    with pytest.raises(ValidationError) as caught:
        document.validate()
    return str(caught.value.errors[field])


CHANGES: dict[str, tuple[Callable[[set[str]], Any], set[str]]] = {
    "add": (lambda s: s.add("c"), {"a", "b", "c"}),
    "discard": (lambda s: s.discard("a"), {"b"}),
    "remove": (lambda s: s.remove("a"), {"b"}),
    "clear": (lambda s: s.clear(), set()),
    "update": (lambda s: s.update("c", ["d"]), {"a", "b", "c", "d"}),
    "difference_update": (lambda s: s.difference_update("a", "x"), {"b"}),
    "intersection_update": (lambda s: s.intersection_update("ax", "ab"), {"a"}),
    "symmetric_difference_update": (lambda s: s.symmetric_difference_update("ac"), {"b", "c"}),
    "|=": (lambda s: s.__ior__({"c"}), {"a", "b", "c"}),
    "&=": (lambda s: s.__iand__({"a"}), {"a"}),
    "-=": (lambda s: s.__isub__({"a"}), {"b"}),
    "^=": (lambda s: s.__ixor__({"a", "c"}), {"b", "c"}),
}
NO_CHANGES: dict[str, Callable[[set[str]], Any]] = {
    "add": lambda s: s.add("a"),
    "discard": lambda s: s.discard("x"),
    "update": lambda s: s.update(["a"], "b", []),
    "difference_update": lambda s: s.difference_update("x"),
    "intersection_update": lambda s: s.intersection_update("abc"),
    "symmetric_difference_update": lambda s: s.symmetric_difference_update([]),
    "|=": lambda s: s.__ior__({"a"}),
    "&=": lambda s: s.__iand__({"a", "b", "c"}),
    "-=": lambda s: s.__isub__({"x"}),
    "^=": lambda s: s.__ixor__(set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_method_that_changes_the_contents_marks_the_field(mongo_db: Any, name: str) -> None:
    change, expected = CHANGES[name]
    host = SetHost(tags=["a", "b"]).save()

    change(host.tags)

    assert host.tags == expected and changed(host) == ["tags"]
    host.save()
    assert changed(host) == [] and SetHost.objects.get().tags == expected


@pytest.mark.parametrize("name", NO_CHANGES)
def test_a_method_that_changes_nothing_marks_nothing(mongo_db: Any, name: str) -> None:
    host = SetHost(tags=["a", "b"]).save()

    NO_CHANGES[name](host.tags)

    assert host.tags == {"a", "b"} and changed(host) == []


def test_pop_marks_the_field_and_an_empty_set_has_nothing_to_pop(mongo_db: Any) -> None:
    host = SetHost(tags=["a"]).save()

    assert host.tags.pop() == "a" and changed(host) == ["tags"]

    host.save()
    host.tags.clear()
    with pytest.raises(KeyError):
        host.tags.pop()
    with pytest.raises(KeyError, match="a"):
        host.tags.remove("a")
    assert changed(host) == []


def test_the_field_is_marked_by_its_name_in_the_database(mongo_db: Any) -> None:
    host = SetHost(ports=[1]).save()

    host.ports.add(2)

    assert changed(host) == ["p"] and stored(host.save())["p"] == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.add([]),
        lambda s: s.update(["b"], 5),
        lambda s: s.update(["b", []]),
        lambda s: s.symmetric_difference_update(["b", []]),
        lambda s: s.difference_update(["a"], 5),
        lambda s: s.intersection_update(["b"], 5),
    ],
)
def test_a_method_that_fails_changes_and_marks_nothing(
    mongo_db: Any, change: Callable[[Any], Any]
) -> None:
    host = SetHost(plain=["a"]).save()

    with pytest.raises(TypeError):
        change(host.plain)

    assert host.plain == {"a"} and changed(host) == []


@pytest.mark.parametrize("method", ["__ior__", "__iand__", "__isub__", "__ixor__"])
def test_the_operators_take_sets_only_as_those_of_a_plain_set(method: str) -> None:
    assert getattr(SetHost(tags=["a"]).tags, method)(["b"]) is NotImplemented


def test_a_set_can_be_combined_with_itself(mongo_db: Any) -> None:
    host = SetHost(tags=["a", "b"]).save()

    host.tags.intersection_update(host.tags)
    host.tags.update(host.tags)
    assert changed(host) == []
    host.tags.symmetric_difference_update(host.tags)

    assert host.tags == set() and changed(host) == ["tags"]


@pytest.mark.parametrize("kind", [set, frozenset, list, tuple])
def test_assigning_an_equal_set_marks_nothing(mongo_db: Any, kind: Callable[[Any], Any]) -> None:
    host = SetHost(tags=["a", "b"]).save()

    host.tags = kind(["b", "a"])

    assert changed(host) == []
    host.tags.add("c")  # and the set is still tracked
    assert stored(host.save())["tags"] == ["a", "b", "c"]


def test_assigning_another_set_marks_the_field(mongo_db: Any) -> None:
    host = SetHost(tags=["a"]).save()

    host.tags = {"b"}

    assert changed(host) == ["tags"] and stored(host.save())["tags"] == ["b"]


def test_an_augmented_assignment_stays_tracked(mongo_db: Any) -> None:
    host = SetHost(tags=["a"]).save()

    host.tags |= {"a"}
    assert changed(host) == []
    host.tags |= {"b"}
    host.save()
    host.tags -= {"a"}

    assert changed(host) == ["tags"] and stored(host.save())["tags"] == ["b"]


def test_a_set_that_was_emptied_is_stored_empty_and_does_not_become_the_default(
    mongo_db: Any,
) -> None:
    slots = SetSlots(some=["x"]).save()

    slots.ready.clear()
    slots.save()

    assert stored(slots)["ready"] == [] and SetSlots.objects.get().ready == set()


def test_the_set_taken_from_another_document_is_a_copy_of_the_own_document(mongo_db: Any) -> None:
    one, two = SetHost(tags=["a"]).save(), SetHost().save()

    two.tags = one.tags
    two.save()
    two.tags.add("b")

    assert one.tags == {"a"} and changed(one) == [] and changed(two) == ["tags"]


def test_a_set_that_the_document_no_longer_holds_marks_nothing(mongo_db: Any) -> None:
    host = SetHost(tags=["a"]).save()
    old = host.tags
    host.tags = {"b"}
    host.save()

    old.add("c")

    assert changed(host) == [] and host.tags == {"b"}


def test_a_set_outlives_its_document() -> None:
    host = SetHost(tags=["a"])
    tags = host.tags
    del host
    gc.collect()

    tags.add("b")

    assert tags == {"a", "b"}


@pytest.mark.parametrize(
    "duplicate",
    [
        lambda s: s.copy(),
        copy.copy,
        copy.deepcopy,
        lambda s: pickle.loads(pickle.dumps(s)),
        lambda s: s | {"a"},
        lambda s: {"a"} | s,
        lambda s: s & {"a", "b"},
        lambda s: s - {"x"},
        lambda s: s ^ set(),
        lambda s: s.union([]),
        lambda s: s.intersection("ab"),
        lambda s: s.difference([]),
        lambda s: s.symmetric_difference([]),
    ],
)
def test_copies_are_plain_detached_sets(mongo_db: Any, duplicate: Callable[[Any], Any]) -> None:
    host = SetHost(tags=["a", "b"]).save()

    twin = duplicate(host.tags)
    assert type(twin) is set and twin == {"a", "b"}
    twin.add("c")

    assert host.tags == {"a", "b"} and changed(host) == []


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))]
)
def test_the_sets_of_a_pickled_or_copied_document_are_tracked_again(
    mongo_db: Any, duplicate: Callable[[Any], Any]
) -> None:
    host = SetHost(tags=["a"]).save()
    twin = duplicate(host)
    gc.collect()

    twin.tags.add("b")

    assert changed(twin) == ["tags"] and host.tags == {"a"}
    twin.save()
    assert SetHost.objects.get().tags == {"a", "b"}


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
@pytest.mark.parametrize("bad", ["abc", 5, ["a", ["b"]]])
def test_a_document_with_a_bad_value_can_be_copied_and_pickled(
    duplicate: Callable[[Any], Any], bad: Any
) -> None:
    twin = duplicate(SetHost(plain=bad))

    assert twin.plain == bad
    assert invalid(twin, "plain")


def test_sets_of_a_strict_document_are_tracked(mongo_db: Any) -> None:
    one = SetStrict(tags=["a"]).save()
    one.tags.add("b")
    assert stored(one.save())["tags"] == ["a", "b"]

    loaded = SetStrict.objects.get()
    loaded.tags.discard("a")
    assert stored(loaded.save())["tags"] == ["b"]
    SetStrict._get_collection().update_one({}, {"$unset": {"tags": 1}})
    assert SetStrict.objects.get().tags == set()


def test_reload_brings_the_stored_set_and_it_is_tracked(mongo_db: Any) -> None:
    host = SetHost(tags=["a"]).save()
    SetHost.objects.update(add_to_set__tags="b")

    host.reload()

    assert host.tags == {"a", "b"} and changed(host) == []
    host.tags.add("c")
    assert stored(host.save())["tags"] == ["a", "b", "c"]


def test_deleting_the_attribute_brings_the_default() -> None:
    host = SetHost(tags=["a"])

    del host.tags

    assert host.tags == set()


@given(
    st.sets(st.integers(0, 5)),
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "update",
                    "difference_update",
                    "intersection_update",
                    "symmetric_difference_update",
                    "add",
                    "discard",
                    "clear",
                ]
            ),
            st.sets(st.integers(0, 5), min_size=1),
        ),
        max_size=6,
    ),
)
def test_it_does_what_a_plain_set_does_and_is_dirty_if_a_step_changed_it(
    start: set[int], steps: list[tuple[str, set[int]]]
) -> None:
    document = SetHost._from_son({"_id": bson.ObjectId(), "p": list(start)})
    model, dirty = set(start), False

    for name, argument in steps:
        before = set(model)
        arguments = [] if name == "clear" else [argument]
        if name in ("add", "discard"):
            arguments = [min(argument)]  # type: ignore[list-item]
        getattr(model, name)(*arguments)
        getattr(document.ports, name)(*arguments)
        dirty = dirty or model != before

    assert document.ports == model and changed(document) == (["p"] if dirty else [])
