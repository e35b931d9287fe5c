"""The contract of SetDeltaMixin: what `save()` sends, and what others' changes come to."""

import copy
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mongoengine import (
    DateTimeField,
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    IntField,
    StringField,
)
from pymongo.monitoring import CommandListener, CommandStartedEvent

from sepelib.mongo import EnumField, SetDeltaMixin, SetField, mock_database


class Commands(CommandListener):
    """The updates that were sent, as (filter, update, upsert)."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, Any, bool]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "update":
            for update in event.command["updates"]:
                self.sent.append((update["q"], update["u"], bool(update.get("upsert"))))

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...

    def take(self) -> list[Any]:
        updates, self.sent = [update for _, update, _ in self.sent], []
        return updates


class DeltaBox(EmbeddedDocument):  # type: ignore[misc]
    tags = SetField(StringField())


class DeltaHost(SetDeltaMixin, Document):
    meta = {"db_alias": "deltas"}
    name = StringField()
    tags = SetField(StringField(max_length=10), db_field="t")
    ports = SetField(IntField())
    mixed = SetField()
    times = SetField(DateTimeField())
    ready = SetField(StringField(), default={"d"})
    states = SetField(EnumField(["up", "down"]))
    box = EmbeddedDocumentField(DeltaBox)
    version = IntField()


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[Any, Commands]]:
    commands = Commands()
    options = {"event_listeners": [commands]}
    with mock_database(alias="deltas", client_options=options) as database:
        yield database, commands


@pytest.fixture
def commands(database: tuple[Any, Commands]) -> Iterator[Commands]:
    yield database[1]
    database[0].clean()
    database[1].take()


def made(commands: Commands, model: Any = DeltaHost, **values: Any) -> Any:
    """A document that was loaded."""
    document = model.objects.get(pk=model(**values).save().pk)
    commands.take()
    return document


def inserted(commands: Commands, **raw: Any) -> Any:
    key = DeltaHost._get_collection().insert_one(raw).inserted_id
    return DeltaHost.objects.get(pk=key)


def stored(document: Any) -> dict[str, Any]:
    found = document._get_collection().find_one({"_id": document.pk})
    assert found is not None
    return dict(found)


def test_an_added_element_is_sent_as_add_to_set(commands: Commands) -> None:
    host = made(commands, tags=["a"])

    host.tags.update(["c", "b"])
    host.save()

    assert commands.take() == [{"$addToSet": {"t": {"$each": ["b", "c"]}}}]
    assert stored(host)["t"] == ["a", "b", "c"]


def test_a_removed_element_is_sent_as_pull_all(commands: Commands) -> None:
    host = made(commands, tags=["a", "b", "c"])

    host.tags -= {"c", "a"}
    host.save()

    assert commands.take() == [{"$pullAll": {"t": ["a", "c"]}}]
    assert stored(host)["t"] == ["b"]


def test_removals_follow_additions_in_a_second_update_without_upsert(commands: Commands) -> None:
    host = made(commands, tags=["a", "b"], ports=[1, 2], name="x")
    host.tags ^= {"a", "c"}
    host.ports.discard(1)
    host.name = "y"

    host.save()

    first = {
        "$set": {"name": "y"},
        "$addToSet": {"t": {"$each": ["c"]}},
        "$pullAll": {"ports": [1]},
    }
    second = {"$pullAll": {"t": ["a"]}}
    key = {"_id": host.pk}
    assert commands.sent == [(key, first, True), (key, second, False)]
    raw = stored(host)
    assert raw["t"] == ["b", "c"] and raw["ports"] == [2] and raw["name"] == "y"


def test_several_changes_come_to_their_sum(commands: Commands) -> None:
    host = made(commands, tags=["a", "b"])

    host.tags.add("c")
    host.tags.discard("a")
    host.tags.add("d")
    host.tags.discard("c")
    host.tags.add("a")
    host.save()

    assert commands.take() == [{"$addToSet": {"t": {"$each": ["d"]}}}]


def test_a_change_that_was_taken_back_sends_nothing_for_the_field(commands: Commands) -> None:
    host = made(commands, tags=["a"])
    DeltaHost.objects.update(add_to_set__tags="b")
    commands.take()

    host.tags.add("x")
    host.tags.discard("x")
    host.save()
    assert commands.take() == []
    host.tags.clear()
    host.tags.add("a")
    host.name = "n"
    host.save()

    assert commands.take() == [{"$set": {"name": "n"}}]
    assert stored(host)["t"] == ["a", "b"]


def test_an_assigned_set_replaces(commands: Commands) -> None:
    host = made(commands, tags=["a"])
    DeltaHost.objects.update(add_to_set__tags="other")
    commands.take()

    host.tags = {"a", "b"}
    host.tags.add("c")
    host.save()

    assert commands.take() == [{"$set": {"t": ["a", "b", "c"]}}]
    host.tags.add("d")
    host.save()
    assert commands.take() == [{"$addToSet": {"t": {"$each": ["d"]}}}]


def test_an_assignment_after_a_change_in_place_replaces(commands: Commands) -> None:
    host = made(commands, tags=["a"])

    host.tags.add("b")
    host.tags = {"z"}
    host.save()

    assert commands.take() == [{"$set": {"t": ["z"]}}]


def test_an_equal_set_that_is_assigned_leaves_the_change_a_change(commands: Commands) -> None:
    host = made(commands, tags=["a"])

    host.tags.add("b")
    host.tags = ["b", "a"]
    host.save()

    assert commands.take() == [{"$addToSet": {"t": {"$each": ["b"]}}}]


def test_a_field_marked_by_hand_is_written_whole(commands: Commands) -> None:
    host = made(commands, tags=["a"])
    host.tags.add("b")
    host.save()
    commands.take()

    host._mark_as_changed("tags")
    host.save()

    assert commands.take() == [{"$set": {"t": ["a", "b"]}}]


def test_a_set_loaded_as_null_is_written_whole_once(commands: Commands) -> None:
    host = inserted(commands, t=None)
    host.name = "other field"
    host.save()
    commands.take()

    host.tags.add("a")
    host.save()
    host.tags.add("b")
    host.save()

    assert commands.take() == [{"$set": {"t": ["a"]}}, {"$addToSet": {"t": {"$each": ["b"]}}}]
    assert stored(host)["t"] == ["a", "b"]


def test_a_null_that_appears_with_reload_is_written_whole(commands: Commands) -> None:
    host = made(commands)
    DeltaHost.objects.update(set__tags=None)

    host.reload()
    commands.take()
    host.tags.add("a")
    host.save()

    assert commands.take() == [{"$set": {"t": ["a"]}}]


def test_a_missing_field_takes_the_difference(commands: Commands) -> None:
    one, two = inserted(commands), DeltaHost.objects.get()

    one.tags.add("a")
    two.tags.add("b")
    one.save()
    two.save()

    assert stored(one)["t"] == ["a", "b"]
    assert commands.take() == [{"$addToSet": {"t": {"$each": [e]}}} for e in "ab"]


def test_a_field_that_was_not_loaded_takes_the_difference(commands: Commands) -> None:
    made(commands, tags=["a"])
    host = DeltaHost.objects.only("name").get()

    host.tags.add("b")
    host.save()

    assert stored(host)["t"] == ["a", "b"]


def test_a_default_in_place_of_a_missing_field_is_written_whole(commands: Commands) -> None:
    host = inserted(commands)

    host.ready.discard("d")
    host.save()

    assert commands.take() == [{"$set": {"ready": []}}]
    assert DeltaHost.objects.get().ready == set()


def test_elements_stored_in_another_form_are_written_whole(commands: Commands) -> None:
    host = inserted(commands, ports=["1", 2])
    assert host.ports == {1, 2}

    host.ports.discard(1)  # $pullAll of 1 would leave "1" there
    host.save()
    host.ports.add(3)
    host.save()

    assert commands.take() == [
        {"$set": {"ports": [2]}},
        {"$addToSet": {"ports": {"$each": [3]}}},
    ]


def test_a_bool_stored_for_a_number_is_another_form(commands: Commands) -> None:
    host = inserted(commands, ports=[True, 2], mixed=[1, True])
    assert host.ports == {1, 2} and host.mixed == {1}

    host.ports.discard(1)  # to the server True is not 1
    host.mixed.discard(1)
    host.save()

    assert stored(host)["ports"] == [2] and stored(host)["mixed"] == []


def test_an_element_put_in_the_place_of_one_that_is_stored_alike_stays(commands: Commands) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    host = made(commands, times=[noon, noon + timedelta(1)])

    host.times.discard(noon)
    host.times.add(noon.replace(tzinfo=None))
    host.save()
    host.times.add(noon)
    host.times.discard(noon.replace(tzinfo=None))
    host.times.discard(noon + timedelta(1))
    host.save()

    assert host.times == {noon} == DeltaHost.objects.get().times


def test_elements_are_sent_as_the_field_stores_them(commands: Commands) -> None:
    host = made(commands, ports=[1], states=["up"])

    host.ports.update(["3", "2"])
    host.states.add("down")
    host.save()

    assert commands.take() == [
        {"$addToSet": {"ports": {"$each": [2, 3]}, "states": {"$each": ["down"]}}}
    ]


def test_after_save_it_holds_its_own_view_until_reload(commands: Commands) -> None:
    host = made(commands, tags=["a"])
    DeltaHost.objects.update(add_to_set__tags="others")
    commands.take()

    host.tags.add("b")
    host.save()
    assert host.tags == {"a", "b"}
    host.tags.discard("a")
    host.save()
    assert commands.take()[1] == {"$pullAll": {"t": ["a"]}}

    host.reload()
    assert host.tags == {"b", "others"}
    host.tags.add("c")
    host.save()
    assert commands.take() == [{"$addToSet": {"t": {"$each": ["c"]}}}]


def test_a_change_that_reload_has_met_is_not_sent_again(commands: Commands) -> None:
    host = made(commands, tags=["a"])
    host.tags.add("b")
    DeltaHost.objects.update(add_to_set__tags="b")
    host.reload()
    commands.take()

    host.name = "x"
    host.save()

    assert commands.take() == [{"$set": {"name": "x"}}]


def test_modify_brings_the_others_view_and_the_next_change_is_a_difference(
    commands: Commands,
) -> None:
    host = made(commands, tags=["a"])

    host.modify(add_to_set__tags="b")
    commands.take()
    host.tags.add("c")
    host.save()

    assert commands.take() == [{"$addToSet": {"t": {"$each": ["c"]}}}]


def test_a_new_document_is_inserted_whole_and_saved_by_difference_then(
    commands: Commands,
) -> None:
    for host in (DeltaHost(tags=["a"]), DeltaHost(tags=None)):
        host.tags.add("b")
        host.save()
        assert commands.take() == []  # an insert

        host.tags.add("c")
        host.save()
        assert commands.take() == [{"$addToSet": {"t": {"$each": ["c"]}}}]


def test_a_document_that_was_not_loaded_but_has_an_id_is_written_whole(
    commands: Commands,
) -> None:
    key = made(commands, tags=["a"]).pk
    host = DeltaHost(tags=["b"])
    host.pk = key

    host.tags.add("c")
    host.save()

    assert commands.take()[0]["$set"]["t"] == ["b", "c"]
    host.tags.add("d")
    host.save()
    assert commands.take() == [{"$addToSet": {"t": {"$each": ["d"]}}}]


def test_the_set_of_an_embedded_document_is_saved_whole(commands: Commands) -> None:
    host = made(commands, box=DeltaBox(tags=["a"]))

    host.box.tags.add("b")
    host.save()

    assert commands.take() == [{"$set": {"box.tags": ["a", "b"]}}]


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))]
)
def test_a_copied_or_pickled_document_saves_the_same_difference(
    commands: Commands, duplicate: Callable[[Any], Any]
) -> None:
    host = made(commands, tags=["a", "b"], ports=[1])
    DeltaHost.objects.update(add_to_set__tags="others")
    commands.take()
    host.tags.add("c")
    host.tags.discard("a")
    host.ports = {2}

    twin = duplicate(host)
    twin.save()

    assert commands.take() == [
        {"$addToSet": {"t": {"$each": ["c"]}}, "$set": {"ports": [2]}},
        {"$pullAll": {"t": ["a"]}},
    ]
    assert stored(host)["t"] == ["b", "others", "c"]
    null = inserted(commands, t=None)
    twin = duplicate(null)
    twin.tags.add("x")
    assert stored(twin.save())["t"] == ["x"]


# -- declaration -------------------------------------------------------------------------------


def test_the_mixin_behind_document_is_refused_since_it_would_do_nothing() -> None:
    with pytest.raises(TypeError, match="SetDeltaMixin goes before Document"):

        class DeltaWrong(Document, SetDeltaMixin):  # type: ignore[misc]
            tags = SetField(StringField())


def test_documents_may_inherit_the_mixin(commands: Commands) -> None:
    class DeltaBase(SetDeltaMixin, Document):
        meta = {"abstract": True, "db_alias": "deltas"}
        tags = SetField(StringField())

    class DeltaLeaf(DeltaBase):
        more = SetField(StringField())

    leaf = made(commands, DeltaLeaf, tags=["a"])
    leaf.tags.add("b")
    leaf.more.add("c")
    leaf.save()

    assert commands.take() == [{"$addToSet": {"tags": {"$each": ["b"]}, "more": {"$each": ["c"]}}}]
