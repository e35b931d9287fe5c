"""The contract of SetField: its value, validation, declaration, and other fields around it."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from mongoengine import (
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    EmbeddedDocumentListField,
    IntField,
    ListField,
    MapField,
    StringField,
    ValidationError,
)

from sepelib.mongo import SetField


class SetHost(Document):  # type: ignore[misc]
    tags = SetField(StringField(max_length=10))
    ports = SetField(IntField(), db_field="p")
    plain = SetField()


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


@pytest.mark.parametrize("bad", ["abc", 5, ["a", ["b"]]])
def test_a_constructor_keeps_a_bad_value_inside_of_others(bad: Any) -> None:
    deep = SetDeep(rows=[["a"], bad], by_name={"x": bad})
    room = SetRoom(box={"tags": bad}, boxes=[{"tags": bad}])

    assert deep.rows == [{"a"}, bad] and deep.by_name == {"x": bad}
    assert invalid(deep, "rows") and invalid(deep, "by_name")
    assert room.box.tags == room.boxes[0].tags == bad
    assert "tags" in invalid(room, "box") and "tags" in invalid(room, "boxes")


def test_a_field_of_ones_own_keeps_and_refuses_alike(mongo_db: Any) -> None:
    class OwnSetField(SetField):
        def to_python(self, value: Any) -> Any:
            return super().to_python(value)

    class SetOwn(Document):  # type: ignore[misc]
        tags = OwnSetField(StringField())

    assert SetOwn(tags="abc").tags == "abc"
    SetOwn._get_collection().insert_one({"tags": "abc"})
    with pytest.raises(ValidationError, match=r"^SetOwn\.tags: the stored value "):
        SetOwn.objects.get()


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
