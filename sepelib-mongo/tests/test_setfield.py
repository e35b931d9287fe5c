"""The contract of SetField in memory and in the database: values, storage, loading, tracking."""

import copy
import enum
import gc
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import bson
import pytest
from bson.binary import Binary
from bson.codec_options import CodecOptions
from bson.dbref import DBRef
from hypothesis import given
from hypothesis import strategies as st
from mongoengine import (
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    EmbeddedDocumentListField,
    IntField,
    InvalidQueryError,
    ListField,
    MapField,
    StringField,
    ValidationError,
)
from mongoengine.fields import DateTimeField, Decimal128Field, DecimalField, UUIDField

from sepelib.mongo import EnumField, SetField


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


class SetBox(EmbeddedDocument):  # type: ignore[misc]
    tags = SetField(StringField())


class SetRoom(Document):  # type: ignore[misc]
    box = EmbeddedDocumentField(SetBox)
    boxes = EmbeddedDocumentListField(SetBox)


class SetDeep(Document):  # type: ignore[misc]
    rows = ListField(SetField(StringField()))
    by_name = MapField(SetField(StringField()))


def stored(document: Any) -> dict[str, Any]:
    found = document._get_collection().find_one({"_id": document.pk})
    assert found is not None
    return dict(found)


def insert(model: Any, **raw: Any) -> Any:
    """The document, loaded from what was written behind mongoengine's back."""
    key = model._get_collection().insert_one(raw).inserted_id
    return model.objects.get(pk=key)


def changed(document: Any) -> list[str]:
    return list(document._get_changed_fields())


def invalid(document: Any, field: str) -> str:
    with pytest.raises(ValidationError) as caught:
        document.validate()
    return str(caught.value.errors[field])


# -- the value ---------------------------------------------------------------------------------


def test_the_default_is_an_own_empty_set_for_each_document() -> None:
    one, two = SetHost(), SetHost()

    one.tags.add("a")

    assert isinstance(one.tags, set) and one.tags == {"a"} and two.tags == set()


def test_a_default_that_is_a_set_is_copied_for_each_document() -> None:
    one, two = SetSlots(), SetSlots()

    one.ready.add("z")

    assert two.ready == {"a"} and SetSlots().ready == {"a"} and two.made == {"b"}


@pytest.mark.parametrize("kind", [set, frozenset, list, tuple])
def test_set_frozenset_list_and_tuple_are_assigned_as_a_set(kind: Callable[[Any], Any]) -> None:
    host = SetHost(tags=kind(["a", "b", "a"]))
    assert isinstance(host.tags, set) and host.tags == {"a", "b"}

    host.tags = kind(["c", "c"])

    assert isinstance(host.tags, set) and host.tags == {"c"}
    host.validate()


@pytest.mark.parametrize("bad", ["abc", b"abc", {"a": 1}, 5, 1.5, object(), (x for x in "ab")])
def test_anything_else_is_kept_and_fails_validation(bad: Any) -> None:
    host = SetHost()

    host.tags = bad

    assert host.tags is bad
    assert f"but {type(bad).__name__}" in invalid(host, "tags")


@pytest.mark.parametrize("bad", ["abc", {"a": 1}, 5, ["a", ["b"]]])
def test_a_constructor_keeps_a_bad_value_as_assignment_does(bad: Any) -> None:
    host, box = SetHost(plain=bad), SetBox(tags=bad)

    assert host.plain == bad and box.tags == bad
    assert invalid(host, "plain")
    assert "tags" in invalid(SetRoom(box=box), "box")


def test_unhashable_elements_are_kept_and_fail_validation() -> None:
    host = SetHost()

    host.plain = ["a", ["b"]]

    assert host.plain == ["a", ["b"]]
    assert "hashable" in invalid(host, "plain")


def test_elements_are_converted_by_the_field() -> None:
    host = SetHost(ports=["80", 443, "443"])
    assert host.ports == {80, 443}

    host.ports = {"22"}
    host.ports.add("23")
    host.ports.update(["23", "24"])
    host.ports.discard("22")

    assert host.ports == {23, 24}


def test_an_element_that_cannot_be_converted_is_kept_and_fails_validation() -> None:
    host = SetHost(ports=["80", "http"])
    host.ports.add("ftp")

    assert host.ports == {80, "http", "ftp"}
    with pytest.raises(ValidationError) as caught:
        host.validate()
    assert set(caught.value.errors["ports"]) == {"'http'", "'ftp'"}


def test_the_value_equals_and_prints_like_a_plain_set() -> None:
    host = SetHost(tags=["a"])

    assert host.tags == {"a"} and {"a"} == host.tags and host.tags <= {"a", "b"}
    assert repr(host.tags) == "{'a'}" and repr(SetHost().tags) == "set()"


# -- storage -----------------------------------------------------------------------------------


def test_it_is_stored_as_an_array_without_duplicates_in_order(mongo_db: Any) -> None:
    host = SetHost(tags=["b", "a", "c", "a"], ports=[10, 9], plain=["x", 2, "a", 1]).save()

    raw = stored(host)

    assert raw["tags"] == ["a", "b", "c"]
    assert raw["p"] == [9, 10]
    assert raw["plain"] == [1, 2, "a", "x"]  # by type, then value
    assert stored(SetHost().save())["tags"] == []


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False).filter(lambda value: value != 0),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.uuids(),
    st.binary(min_size=12, max_size=12).map(bson.ObjectId),
    st.builds(Binary, st.binary(max_size=2), st.sampled_from([0, 5, 128])),
    st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.none() | st.just(UTC)),
)
OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(uuid_representation=4)


@given(st.lists(SCALARS, max_size=12, unique=True), st.randoms())
def test_equal_sets_are_equal_bytes(elements: list[Any], random: Any) -> None:
    shuffled = list(elements)
    random.shuffle(shuffled)

    first = bson.encode({"v": SetHost(plain=elements).to_mongo()["plain"]}, codec_options=OPTIONS)
    other = bson.encode({"v": SetHost(plain=shuffled).to_mongo()["plain"]}, codec_options=OPTIONS)

    assert first == other


def test_what_python_cannot_compare_is_ordered_by_its_bytes() -> None:
    aware = datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=3)))
    values = [aware, datetime(2020, 1, 2), Binary(b"x", 5), Binary(b"x", 6), DBRef("a", 1)]
    one, two = SetHost(plain=values), SetHost(plain=values[::-1])
    assert one.to_mongo()["plain"] == two.to_mongo()["plain"]

    class SetPrices(Document):  # type: ignore[misc]
        values = SetField(Decimal128Field())  # stored as what is neither hashable nor ordered

    numbers = [Decimal("2.5"), Decimal("1"), Decimal("-3")]
    one, two = SetPrices(values=numbers), SetPrices(values=numbers[::-1])
    assert one.to_mongo()["values"] == two.to_mongo()["values"]
    assert SetPrices._from_son(one.to_mongo()).values == set(numbers)


def test_a_number_of_64_bits_that_was_loaded_is_stored_where_the_same_int_is(
    mongo_db: Any,
) -> None:
    host = SetHost(plain={1, 2**40, -(2**41)}).save()
    loaded = SetHost.objects.get()

    assert loaded.to_mongo()["plain"] == host.to_mongo()["plain"] == [-(2**41), 1, 2**40]


def test_different_elements_with_one_stored_form_are_stored_once(mongo_db: Any) -> None:
    class Upper(StringField):  # type: ignore[misc]
        def to_mongo(self, value: str) -> str:
            return value.upper()

    class SetShout(Document):  # type: ignore[misc]
        words = SetField(Upper())

    assert stored(SetShout(words={"a", "A", "b"}).save())["words"] == ["A", "B"]


@pytest.mark.parametrize(
    ("field", "value", "raw"),
    [
        (DecimalField(), Decimal("1.50"), 1.5),
        (UUIDField(), UUID(int=7), UUID(int=7)),
        (DateTimeField(), datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)),
    ],
)
def test_elements_of_other_types_come_back_as_they_were(
    mongo_db: Any, field: Any, value: Any, raw: Any
) -> None:
    class SetThing(Document):  # type: ignore[misc]
        values = SetField(field)

    thing = SetThing(values=[value]).save()

    assert stored(thing)["values"] == [raw]
    assert SetThing.objects.get().values == {value}


class Light(enum.Enum):
    RED = "r"
    GREEN = "g"


def test_elements_may_be_members_of_an_enum(mongo_db: Any) -> None:
    class SetLights(Document):  # type: ignore[misc]
        on = SetField(EnumField(Light))

    lights = SetLights(on=["r"]).save()
    assert lights.on == {Light.RED}
    lights.on.add("g")
    lights.save()

    assert lights.on == {Light.RED, Light.GREEN} and stored(lights)["on"] == ["g", "r"]
    assert SetLights.objects.get(on=Light.RED).on == {Light.RED, Light.GREEN}
    assert SetLights.objects(on={"r", Light.GREEN}).count() == 1
    SetLights.objects.update(pull__on=Light.RED)
    SetLights.objects.update(add_to_set__on=[Light.GREEN])
    assert stored(lights)["on"] == ["g"]
    with pytest.raises(InvalidQueryError):
        SetLights.objects(on={"blue"}).count()
    with pytest.raises(ValidationError):
        SetLights.objects.update(add_to_set__on="blue")
    lights.on.add("blue")
    with pytest.raises(ValidationError):
        lights.save()


# -- loading -----------------------------------------------------------------------------------


def test_any_order_loads_and_duplicates_collapse_and_nothing_is_dirty(mongo_db: Any) -> None:
    host = insert(SetHost, tags=["c", "a", "c", "b"], p=[3, "3", 1])

    assert host.tags == {"a", "b", "c"} and host.ports == {1, 3}
    assert changed(host) == []
    host.save()
    assert stored(host)["tags"] == ["c", "a", "c", "b"]


@pytest.mark.parametrize("raw", [{}, {"null": None, "none": None, "ready": None, "few": None}])
def test_null_and_missing_load_as_none_or_the_default(mongo_db: Any, raw: Any) -> None:
    slots = insert(SetSlots, some=["x"], **raw)

    assert slots.null is None and slots.none is None
    assert slots.ready == {"a"} and slots.few == set()
    assert changed(slots) == []
    slots.few.add("b")
    assert changed(slots) == ["few"] and stored(slots.save())["few"] == ["b"]


@pytest.mark.parametrize("raw", ["abc", 5, {"a": 1}, True, ["a", ["b"]], [{"a": 1}]])
def test_what_is_no_array_of_hashable_elements_is_a_validation_error_on_load(
    mongo_db: Any, raw: Any
) -> None:
    SetHost._get_collection().insert_one({"plain": raw})
    with pytest.raises(ValidationError, match=r"^plain: the stored value ") as caught:
        SetHost.objects.get()
    assert caught.value.field_name == "plain"

    SetRoom._get_collection().insert_one({"box": {"tags": raw}})
    with pytest.raises(ValidationError, match=r"^tags: the stored value "):
        SetRoom.objects.get()


def test_a_stored_none_loads_and_the_document_cannot_be_saved_with_it(mongo_db: Any) -> None:
    host = insert(SetHost, p=[1, None])

    assert host.ports == {1, None}
    assert "None cannot be an element" in invalid(host, "ports")
    host.ports.discard(None)
    assert stored(host.save())["p"] == [1]


# -- tracking ----------------------------------------------------------------------------------

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


# -- validation --------------------------------------------------------------------------------


def test_a_bad_element_fails_validation_and_is_named() -> None:
    message = invalid(SetHost(tags=["good", "much-too-long", 5]), "tags")

    assert "much-too-long" in message and "5" in message and "good" not in message


def test_more_elements_than_max_length_fail_validation() -> None:
    assert "3 elements, 2 allowed" in invalid(SetSlots(some=["x"], few=["a", "b", "c"]), "few")
    SetSlots(some=["x"], few=["a", "b", "b"]).validate()


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (None, "None"),
        (float("nan"), "NaN"),
        (Decimal("NaN"), "NaN"),
        (("a", "b"), "hashable when loaded"),
        (re.compile("a"), "hashable when loaded"),
    ],
)
def test_elements_that_a_set_would_not_find_again_fail_validation(
    element: Any, reason: str
) -> None:
    assert reason in invalid(SetHost(plain=["a", element]), "plain")


def test_none_is_no_element_whatever_the_field_makes_of_it() -> None:
    assert "None" in invalid(SetHost(ports=[1, None]), "ports")


def test_required_means_not_empty() -> None:
    assert "empty" in invalid(SetSlots(), "some")
    assert "required" in invalid(SetSlots(some=None), "some")
    SetSlots(some=["x"]).validate()


def test_choices_are_those_of_the_elements() -> None:
    assert "one of" in invalid(SetSlots(some=["x"], chosen=["x", "z"]), "chosen")
    SetSlots(some=["x"], chosen=["x", "y"]).validate()


def test_a_validation_function_is_given_the_set() -> None:
    def even(value: Any) -> None:
        if len(value) % 2:
            raise ValidationError("odd")

    class SetPairs(Document):  # type: ignore[misc]
        items = SetField(IntField(), validation=even)

    SetPairs(items=[1, 2]).validate()
    assert "odd" in invalid(SetPairs(items=[1]), "items")


# -- declaration -------------------------------------------------------------------------------


def test_fields_whose_values_are_not_hashable_are_refused_at_declaration() -> None:
    import mongoengine as me

    refused = [
        me.EmbeddedDocumentField(SetBox),
        me.GenericEmbeddedDocumentField(),
        me.ListField(me.StringField()),
        me.SortedListField(me.StringField()),
        me.EmbeddedDocumentListField(SetBox),
        me.DictField(),
        me.MapField(me.StringField()),
        SetField(me.StringField()),
        me.ReferenceField(SetHost),
        me.LazyReferenceField(SetHost),
        me.CachedReferenceField(SetHost),
        me.GenericReferenceField(),
        me.GenericLazyReferenceField(),
        me.FileField(),
        me.GeoPointField(),
        me.PointField(),
        me.PolygonField(),
        me.MultiPointField(),
    ]
    for field in refused:
        with pytest.raises(TypeError, match="use ListField / EmbeddedDocumentListField / SetField"):
            SetField(field)


@pytest.mark.parametrize("field", [StringField, "string", 5, str])
def test_what_is_no_field_instance_is_refused_at_declaration(field: Any) -> None:
    with pytest.raises(TypeError, match=r"use ListField .* SetField\(ObjectIdField\(\)\)"):
        SetField(field)


# -- embedded ----------------------------------------------------------------------------------


def test_it_works_in_an_embedded_document_and_is_saved_there_as_the_whole_array(
    mongo_db: Any,
) -> None:
    room = SetRoom(box=SetBox(tags=["b"]), boxes=[SetBox(tags=["x"]), SetBox()]).save()
    loaded = SetRoom.objects.get()
    assert changed(loaded) == []

    loaded.box.tags.add("a")
    loaded.boxes[1].tags.add("y")

    assert changed(loaded) == ["box.tags", "boxes.1.tags"]
    loaded.save()
    raw = stored(room)
    assert raw["box"]["tags"] == ["a", "b"]
    assert [box["tags"] for box in raw["boxes"]] == [["x"], ["y"]]
    loaded.box.tags.clear()
    assert stored(loaded.save())["box"]["tags"] == []


def test_in_a_list_or_map_the_value_is_frozen_as_nobody_could_see_changes(mongo_db: Any) -> None:
    deep = SetDeep(rows=[["b", "a", "b"]], by_name={"x": ["c"]}).save()

    assert stored(deep)["rows"] == [["a", "b"]]
    loaded = SetDeep.objects.get()
    assert loaded.rows == [{"a", "b"}] and loaded.by_name == {"x": {"c"}}
    assert isinstance(loaded.rows[0], frozenset)
    loaded.rows[0] = {"z", "y"}
    loaded.by_name["n"] = ["q", "q"]
    raw = stored(loaded.save())
    assert raw["rows"] == [["y", "z"]] and raw["by_name"]["n"] == ["q"]
    loaded.rows[0] = [["unhashable"]]
    assert "hashable" in invalid(loaded, "rows")


# -- and for mongoengine -----------------------------------------------------------------------


def test_for_mongoengine_it_is_a_list_field(mongo_db: Any) -> None:
    SetHost(ports=[1, 2]).save()
    SetHost(ports=[2, 3]).save()

    assert sorted(SetHost.objects.distinct("ports")) == [1, 2, 3]
    assert SetHost.objects.no_dereference().first().ports == {1, 2}
    assert SetHost.objects.only("tags").first().ports == set()
    assert SetHost.objects.as_pymongo().first()["p"] == [1, 2]
    assert SetHost.objects.scalar("ports").first() == {1, 2}


def test_a_unique_index_holds_each_element_once(mongo_db: Any) -> None:
    from mongoengine import NotUniqueError

    class SetOwner(Document):  # type: ignore[misc]
        keys = SetField(StringField(), unique=True)

    SetOwner(keys=["a", "b"]).save()
    with pytest.raises(NotUniqueError):
        SetOwner(keys=["b", "c"]).save()


def test_the_order_of_storage_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "from mongoengine import Document, StringField\n"
        "from sepelib.mongo import EnumField, SetField\n"
        "class H(Document):\n    v = SetField()\n"
        "print(H(v=['b', 'a', 3, 1, 2.5, b'x']).to_mongo()['v'])\n"
    )
    orders = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }

    assert orders == {"[b'x', 2.5, 1, 3, 'a', 'b']\n"}


def test_uuids_are_stored_in_the_order_of_their_value() -> None:
    values = [uuid4() for _ in range(5)]

    assert SetHost(plain=values).to_mongo()["plain"] == sorted(values)
