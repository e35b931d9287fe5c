"""The contract of SetField in queries and updates, on the server."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from mongoengine import (
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    IntField,
    InvalidQueryError,
    ObjectIdField,
    OperationError,
    Q,
    StringField,
    ValidationError,
)

from sepelib.mongo import SetField


class SetQueriedBox(EmbeddedDocument):  # type: ignore[misc]
    tags = SetField(StringField())


class SetQueried(Document):  # type: ignore[misc]
    name = StringField()
    tags = SetField(StringField(max_length=10), db_field="t")
    ports = SetField(IntField(), max_length=3)
    plain = SetField()
    box = EmbeddedDocumentField(SetQueriedBox)


class SetQueriedMust(Document):  # type: ignore[misc]
    tags = SetField(StringField(), required=True, choices=["a", "b"])


@pytest.fixture
def hosts(mongo_db: Any) -> None:
    """Named by what they hold; a server may have it in any order."""
    for name, tags in {
        "none": [],
        "a": ["a"],
        "ab": ["b", "a"],
        "abc": ["c", "a", "b"],
        "c": ["c"],
    }.items():
        raw = {"name": name, "t": tags, "ports": [ord(t) for t in tags], "box": {"tags": tags}}
        SetQueried._get_collection().insert_one(raw)
    SetQueried._get_collection().insert_one({"name": "null", "t": None, "box": {"tags": None}})
    SetQueried._get_collection().insert_one({"name": "missing"})


def names(*conditions: Any, **query: Any) -> set[str]:
    found = [host.name for host in SetQueried.objects(*conditions, **query).only("name")]
    assert len(found) == len(set(found))
    return set(found)


def raw_of(name: str = "") -> dict[str, Any]:
    found = SetQueried._get_collection().find_one({"name": name} if name else {})
    assert found is not None
    return dict(found)


EVERYBODY = {"none", "a", "ab", "abc", "c", "null", "missing"}

# -- queries -----------------------------------------------------------------------------------


def test_one_element_asks_for_those_that_contain_it(hosts: None) -> None:
    assert names(tags="a") == {"a", "ab", "abc"}
    assert names(ports="97") == {"a", "ab", "abc"}  # converted by the field
    assert names(box__tags="a") == {"a", "ab", "abc"}


def test_in_nin_all_size_and_exists(hosts: None) -> None:
    assert names(tags__in=["a", "c"]) == {"a", "ab", "abc", "c"}
    assert names(tags__in={"b", "x"}) == {"ab", "abc"}
    assert names(tags__nin=["a"]) == EVERYBODY - {"a", "ab", "abc"}
    assert names(tags__all=["b", "a"]) == {"ab", "abc"}
    assert names(ports__all={"97", 98}) == {"ab", "abc"}
    assert names(tags__size=2) == {"ab"}
    assert names(tags__exists=False) == {"missing"}
    assert names(tags__not__in=["a"]) == EVERYBODY - {"a", "ab", "abc"}


@pytest.mark.parametrize(
    "kind",
    [set, frozenset, list, tuple, lambda v: dict.fromkeys(v).keys(), lambda v: (x for x in v)],
    ids=["set", "frozenset", "list", "tuple", "keys", "generator"],
)
def test_any_iterable_asks_for_the_equal_set_in_any_order(
    hosts: None, kind: Callable[[Any], Any]
) -> None:
    assert names(tags=kind(["b", "a"])) == {"ab"}
    assert names(tags=kind(["b", "a", "b"])) == {"ab"}
    assert names(tags=kind(["a"])) == {"a"}
    assert names(ports=kind(["98", 97])) == {"ab"}
    assert names(tags=kind(["a", "x"])) == set()


def test_an_iterator_that_is_used_up_is_refused_and_not_taken_for_the_empty_set(
    hosts: None,
) -> None:
    queryset = SetQueried.objects(tags=iter("a"))
    assert queryset.first().name == "a"  # by a clone

    with pytest.raises(InvalidQueryError, match="used up"):
        queryset.count()


def test_the_set_of_another_document_can_be_asked_for(hosts: None) -> None:
    assert names(tags=SetQueried.objects.get(name="ab").tags) == {"ab"}


def test_the_equal_set_is_asked_for_by_all_and_size(hosts: None) -> None:
    query = SetQueried.objects(tags={"b", "a"})._query

    assert query == {"t": {"$all": ["a", "b"], "$size": 2}}


def test_the_empty_set_finds_empty_null_and_missing(hosts: None) -> None:
    assert names(tags=set()) == names(tags=[]) == {"none", "null", "missing"}
    assert names(box__tags=set()) == {"none", "null", "missing"}
    assert SetQueried.objects(tags=set())._query == {"t": {"$in": [[], None]}}


def test_none_finds_null_and_missing(hosts: None) -> None:
    assert names(tags=None) == {"null", "missing"}


def test_it_works_in_an_embedded_document(hosts: None) -> None:
    assert names(box__tags={"b", "a"}) == {"ab"}
    assert names(box__tags__all=["a", "c"]) == {"abc"}


def test_an_equality_and_another_condition_hold_both(hosts: None) -> None:
    # mongoengine merges the dicts of two conditions on one field; one $all would win.
    assert names(tags={"a", "b"}, tags__all=["c"]) == set()
    assert names(tags={"a", "b"}, tags__all=["a"]) == {"ab"}
    assert names(Q(tags={"a", "b"}) & Q(tags__size=3)) == set()
    chained = SetQueried.objects(tags={"a", "b"}).filter(tags__all=["b"]).filter(tags__ne="c")
    assert {host.name for host in chained} == {"ab"}
    assert names(tags=set(), tags__in=["a"]) == set()
    assert names(Q(tags={"a"}) | Q(tags={"c"})) == {"a", "c"}


def test_ne_with_one_element_is_does_not_contain(hosts: None) -> None:
    assert names(tags__ne="a") == EVERYBODY - {"a", "ab", "abc"}


def test_not_turns_an_equality_or_a_membership_round(hosts: None) -> None:
    assert names(tags__not={"b", "a"}) == EVERYBODY - {"ab"}
    assert names(tags__not="a") == EVERYBODY - {"a", "ab", "abc"}
    assert names(tags__not=set()) == {"a", "ab", "abc", "c"}
    assert names(plain__not=re.compile("x")) == EVERYBODY


@pytest.mark.parametrize("operator", ["ne", "gt", "gte", "lt", "lte", "startswith", "exact"])
@pytest.mark.parametrize("value", [{"a", "b"}, ["a"], ("a",), frozenset(), iter("ab")])
def test_other_operators_refuse_an_iterable(mongo_db: Any, operator: str, value: Any) -> None:
    with pytest.raises(InvalidQueryError, match=f"tags: {operator} takes one element"):
        SetQueried.objects(**{f"tags__{operator}": value}).first()


def test_sets_are_no_elements_of_in(mongo_db: Any) -> None:
    with pytest.raises(InvalidQueryError, match="in takes one element, not set"):
        SetQueried.objects(tags__in=[{"a"}, {"b"}]).first()


def test_a_mapping_is_refused(mongo_db: Any) -> None:
    with pytest.raises(InvalidQueryError, match="__raw__"):
        SetQueried.objects(tags={"$size": 1}).first()


def test_comparisons_and_string_operators_ask_about_some_element(hosts: None) -> None:
    assert names(ports__gt="98") == {"abc", "c"}
    assert names(tags__startswith="B") == set()
    assert names(tags__istartswith="B") == {"ab", "abc"}
    assert names(ports__elemMatch={"$gt": 97, "$lt": 99}) == {"ab", "abc"}


def test_string_operators_work_without_a_field_for_the_elements(mongo_db: Any) -> None:
    SetQueried(name="x", plain=["alpha", 1]).save()

    assert names(plain__startswith="al") == {"x"}
    assert names(plain__startswith="lp") == set()


def test_object_ids_are_found_by_their_text(mongo_db: Any) -> None:
    class SetQueriedFriends(Document):  # type: ignore[misc]
        ids = SetField(ObjectIdField())

    other = SetQueriedFriends().save()
    one = SetQueriedFriends(ids=[str(other.pk)]).save()

    assert one.ids == {other.pk}
    assert SetQueriedFriends.objects.get(ids=str(other.pk)) == one
    assert SetQueriedFriends.objects.get(ids={str(other.pk)}) == one


# -- updates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [set, list, tuple, frozenset, iter])
def test_set_stores_sorted_and_unique(mongo_db: Any, kind: Callable[[Any], Any]) -> None:
    SetQueried().save()

    SetQueried.objects.update(set__tags=kind(["b", "a", "b"]), set__box__tags=kind(["z", "y"]))

    assert raw_of()["t"] == ["a", "b"] and raw_of()["box"] == {"tags": ["y", "z"]}
    SetQueried.objects.update(tags=kind([]))
    assert raw_of()["t"] == []


def test_set_converts_and_validates_as_save_does(mongo_db: Any) -> None:
    SetQueried(ports=[1]).save()

    SetQueried.objects.update(set__ports=["8", 7, "7"])

    assert raw_of()["ports"] == [7, 8]
    for bad in (["x"], [1, None], "abc", {"a": 1}, [1, 2, 3, 4], [[1]]):
        with pytest.raises(ValidationError):
            SetQueried.objects.update(set__ports=bad)
    assert raw_of()["ports"] == [7, 8]


def test_set_to_none_and_unset(mongo_db: Any) -> None:
    SetQueried(tags=["a"]).save()

    SetQueried.objects.update(set__tags=None)
    assert raw_of()["t"] is None
    SetQueried.objects.update(unset__tags=True)
    assert "t" not in raw_of()
    assert SetQueried.objects.get().tags == set()


def test_add_to_set_takes_one_or_many(mongo_db: Any) -> None:
    SetQueried(tags=["c"]).save()

    SetQueried.objects.update(add_to_set__tags="a")
    SetQueried.objects.update(add_to_set__tags={"b"})
    SetQueried.objects.update(add_to_set__tags=["d", "a"])
    SetQueried.objects.update(add_to_set__tags=("e",))
    SetQueried.objects.update(add_to_set__tags=frozenset(["f"]))
    SetQueried.objects.update(add_to_set__tags=iter(["g", "g"]))
    SetQueried.objects.update(add_to_set__tags=[])

    assert raw_of()["t"] == ["c", "a", "b", "d", "e", "f", "g"]
    assert SetQueried.objects.get().tags == set("abcdefg")


def test_add_to_set_sends_many_as_each(mongo_db: Any) -> None:
    from mongoengine.queryset import transform

    for many in (["b"], {"b"}, frozenset("b"), iter("b")):
        update = transform.update(SetQueried, add_to_set__tags=many)
        assert update == {"$addToSet": {"t": {"$each": ["b"]}}}
    assert transform.update(SetQueried, add_to_set__tags="b") == {"$addToSet": {"t": "b"}}


def test_add_to_set_converts_and_validates(mongo_db: Any) -> None:
    SetQueried().save()

    SetQueried.objects.update(add_to_set__ports="8", add_to_set__box__tags=["x"])
    SetQueried.objects.update(add_to_set__ports=["8", "9"])

    assert raw_of()["ports"] == [8, 9] and raw_of()["box"] == {"tags": ["x"]}
    for bad in ("x", ["x"], [None], [float("nan")], {"a": 1}, [[1]], [{1}], frozenset("x")):
        with pytest.raises(ValidationError):
            SetQueried.objects.update(add_to_set__ports=bad)
    SetQueriedMust(tags=["a"]).save()
    SetQueriedMust.objects.update(add_to_set__tags="b")
    with pytest.raises(ValidationError, match="one of"):
        SetQueriedMust.objects.update(add_to_set__tags="c")
    assert SetQueriedMust.objects.get().tags == {"a", "b"} and raw_of()["ports"] == [8, 9]


@pytest.mark.parametrize("operator", ["pull", "pull_all"])
@pytest.mark.parametrize("kind", [set, frozenset, list, tuple, iter])
def test_pull_and_pull_all_take_any_iterable(
    mongo_db: Any, operator: str, kind: Callable[[Any], Any]
) -> None:
    SetQueried(tags=list("abcd"), ports=[1, 2, 3]).save()

    SetQueried.objects.update(**{f"{operator}__tags": kind(["a", "c", "x"])})
    SetQueried.objects.update(**{f"{operator}__ports": kind(["1", 2])})

    assert raw_of()["t"] == ["b", "d"] and raw_of()["ports"] == [3]
    SetQueried.objects.update(**{f"{operator}__tags": kind([])})
    assert raw_of()["t"] == ["b", "d"]


def test_pull_takes_one_element_and_conditions(mongo_db: Any) -> None:
    SetQueried(tags=list("abcd"), ports=[1, 2, 3]).save()

    SetQueried.objects.update(pull__tags="b", pull__ports="2")
    assert raw_of()["t"] == ["a", "c", "d"] and raw_of()["ports"] == [1, 3]
    SetQueried.objects.update(pull__tags__in=["a", "c"], pull__ports__gt=2)
    assert raw_of()["t"] == ["d"] and raw_of()["ports"] == [1]


def test_a_none_that_got_in_can_be_pulled(mongo_db: Any) -> None:
    SetQueried._get_collection().insert_one({"ports": [None, 1, None]})

    SetQueried.objects.update(pull_all__ports=[None])

    assert raw_of()["ports"] == [1]


@pytest.mark.parametrize(
    "update",
    [
        {"push__tags": "a"},
        {"push__tags": ["a"]},
        {"push_all__tags": ["a"]},
        {"push__tags__0": ["a"]},
        {"push__box__tags": "a"},
        {"inc__tags": 1},
    ],
    ids=str,
)
def test_push_is_refused(mongo_db: Any, update: dict[str, Any]) -> None:
    host = SetQueried(tags=["a"], box=SetQueriedBox()).save()
    before = raw_of()

    with pytest.raises(InvalidQueryError, match="add_to_set"):
        host.update(**update)

    assert raw_of() == before


def test_one_place_of_the_array_cannot_be_set(mongo_db: Any) -> None:
    SetQueried(tags=["a", "b"]).save()

    with pytest.raises(ValidationError):
        SetQueried.objects.update(set__tags__0="b")

    assert raw_of()["t"] == ["a", "b"]


def test_an_upsert_stores_a_set(mongo_db: Any) -> None:
    SetQueried.objects(name="x").update_one(upsert=True, set_on_insert__tags=frozenset("ba"))
    assert raw_of("x")["t"] == ["a", "b"]

    SetQueried.objects(name="y").update_one(upsert=True, set_on_insert__ports={"1"})
    assert raw_of("y")["ports"] == [1]
    with pytest.raises(ValidationError):
        SetQueried.objects(name="z").update_one(upsert=True, set_on_insert__ports=["x"])


def test_modify_returns_a_set(mongo_db: Any) -> None:
    SetQueried(tags=["a"]).save()

    host = SetQueried.objects.modify(add_to_set__tags=["b"], new=True)

    assert host.tags == {"a", "b"}
    assert host.modify(pull__tags="a") and host.tags == {"b"} and not host._get_changed_fields()


def test_mongoengine_cannot_pull_from_a_set_in_an_embedded_document(mongo_db: Any) -> None:
    # Its update() looks for ListField itself on the way; the docstring names the way round.
    SetQueried(box=SetQueriedBox(tags=["a", "b"])).save()

    with pytest.raises(OperationError):
        SetQueried.objects.update(pull__box__tags="a")
    SetQueried.objects.update(__raw__={"$pull": {"box.tags": "a"}})

    assert raw_of()["box"]["tags"] == ["b"]
