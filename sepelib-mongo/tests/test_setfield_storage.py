"""The contract of SetField in the database: what is stored, and what is loaded."""

import enum
import os
import subprocess
import sys
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
    with pytest.raises(ValidationError, match=r"^SetHost\.plain: the stored value ") as caught:
        SetHost.objects.get()
    assert caught.value.field_name == "plain"

    SetRoom._get_collection().insert_one({"box": {"tags": raw}})
    with pytest.raises(ValidationError, match=r"^SetBox\.tags: the stored value "):
        SetRoom.objects.get()
    SetDeep._get_collection().insert_one({"rows": [["a"], raw]})
    with pytest.raises(ValidationError, match=r"^SetDeep\.rows: the stored value "):
        SetDeep.objects.get()


def test_a_stored_none_loads_and_the_document_cannot_be_saved_with_it(mongo_db: Any) -> None:
    host = insert(SetHost, p=[1, None])

    assert host.ports == {1, None}
    assert "None cannot be an element" in invalid(host, "ports")
    host.ports.discard(None)
    assert stored(host.save())["p"] == [1]
