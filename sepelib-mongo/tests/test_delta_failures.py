"""The contract of SetDeltaMixin: conditions, signals, transactions, and saves that fail."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import mongoengine
import pytest
from mongoengine import (
    Document,
    IntField,
    OperationError,
    ReferenceField,
    SaveConditionError,
    StringField,
    ValidationError,
    signals,
)
from pymongo.errors import AutoReconnect
from pymongo.monitoring import CommandListener, CommandStartedEvent

from sepelib.mongo import SetDeltaMixin, SetField, mock_database
from sepelib.util.testing import FlakyProxy


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


class FailHost(SetDeltaMixin, Document):
    meta = {"db_alias": "failures"}
    name = StringField()
    tags = SetField(StringField(max_length=10), db_field="t")
    version = IntField()


class FailSharded(SetDeltaMixin, Document):
    meta = {"db_alias": "failures", "shard_key": ("region",)}
    region = StringField(db_field="r")
    tags = SetField(StringField())


class FailGuarded(SetDeltaMixin, Document):
    """The server refuses to take "a" away as long as the document is not free."""

    meta = {"db_alias": "failures"}
    tags = SetField(StringField())
    free = IntField()


GUARD = {"$or": [{"tags": "a"}, {"free": 1}]}


class FailOwner(Document):  # type: ignore[misc]
    meta = {"db_alias": "failures"}
    host = ReferenceField(FailHost)


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[Any, Commands]]:
    commands = Commands()
    options = {"event_listeners": [commands]}
    with mock_database(alias="failures", client_options=options) as database:
        database.db.create_collection("fail_guarded", validator=GUARD)
        yield database, commands


@pytest.fixture
def commands(database: tuple[Any, Commands]) -> Iterator[Commands]:
    yield database[1]
    database[0].clean()
    database[1].take()


@pytest.fixture
def proxy(database: tuple[Any, Commands]) -> Iterator[FlakyProxy]:
    """What "lossy", another connection to the same database, goes through."""
    with FlakyProxy(*database[0].client.address) as proxy:
        host = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true&retryWrites=false"
        mongoengine.connect(
            database[0].name, alias="lossy", host=host, uuidRepresentation="standard"
        )
        yield proxy
        mongoengine.disconnect("lossy")


def made(commands: Commands, model: Any = FailHost, **values: Any) -> Any:
    """A document that was loaded."""
    document = model.objects.get(pk=model(**values).save().pk)
    commands.take()
    return document


def stored(document: Any) -> dict[str, Any]:
    found = document._get_collection().find_one({"_id": document.pk})
    assert found is not None
    return dict(found)


def test_a_save_condition_guards_the_change_and_not_the_second_update(
    commands: Commands,
) -> None:
    host, stale = made(commands, tags=["a"], version=1), FailHost.objects.get()

    host.tags ^= {"a", "b"}
    host.version = 2
    host.save(save_condition={"version": 1})
    stale.tags ^= {"a", "z"}
    sent = list(commands.sent)
    with pytest.raises(SaveConditionError):
        stale.save(save_condition={"version": 1})

    assert [query for query, _, _ in sent] == [{"_id": host.pk, "version": 1}, {"_id": host.pk}]
    assert [upsert for _, _, upsert in sent] == [False, False]
    assert len(commands.sent) == 3 and stored(host)["t"] == ["b"]


def test_both_updates_carry_the_shard_key(commands: Commands) -> None:
    document = made(commands, FailSharded, region="eu", tags=["a"])

    document.tags ^= {"a", "b"}
    document.save()

    key = {"_id": document.pk, "r": "eu"}
    assert [query for query, _, _ in commands.sent] == [key, key]


def test_validation_comes_before_anything_is_sent(commands: Commands) -> None:
    host = made(commands, tags=["a"])

    host.tags.add("much-too-long")
    with pytest.raises(ValidationError):
        host.save()

    assert commands.take() == []
    host.tags.discard("much-too-long")
    host.tags.add("b")
    host.save()
    assert commands.take() == [{"$addToSet": {"t": {"$each": ["b"]}}}]


def test_signals_are_sent_once_and_after_both_updates(commands: Commands) -> None:
    seen: list[Any] = []

    def after(sender: Any, document: Any, created: bool, **_: Any) -> None:
        seen.append((created, len(commands.sent), stored(document)["t"]))

    host = made(commands, tags=["a"])
    host.tags ^= {"a", "b"}
    signals.post_save.connect(after, sender=FailHost)
    try:
        host.save()
    finally:
        signals.post_save.disconnect(after, sender=FailHost)

    assert seen == [(False, 2, ["b"])]


def test_a_write_concern_goes_with_both_updates(commands: Commands) -> None:
    concerns: list[Any] = []

    class Concerns(Commands):
        def started(self, event: CommandStartedEvent) -> None:
            if event.command_name == "update":
                concerns.append(event.command.get("writeConcern"))

    with mock_database(alias="concerns", client_options={"event_listeners": [Concerns()]}):

        class DeltaWritten(SetDeltaMixin, Document):
            meta = {"db_alias": "concerns"}
            tags = SetField(StringField())

        document = DeltaWritten(tags=["a"]).save()
        document.tags ^= {"a", "b"}
        document.save(write_concern={"w": 1, "j": True})

    assert concerns == [{"w": 1, "j": True}] * 2


# -- saves that fail ---------------------------------------------------------------------------


def half_saved(commands: Commands) -> Any:
    """A document with "a" replaced by "c" of which the server has added and not removed."""
    document = made(commands, FailGuarded, tags=["a", "b"])
    document.tags ^= {"a", "c"}
    with pytest.raises(OperationError):
        document.save()
    assert stored(document)["tags"] == ["a", "b", "c"]
    FailGuarded.objects.update(set__free=1)
    commands.take()
    return document


def test_a_save_whose_second_update_failed_can_be_called_again(commands: Commands) -> None:
    document = half_saved(commands)

    document.save()

    assert commands.take() == [
        {"$addToSet": {"tags": {"$each": ["c"]}}},
        {"$pullAll": {"tags": ["a"]}},
    ]
    assert stored(document)["tags"] == ["b", "c"]


@pytest.mark.parametrize("duplicate", [lambda d: d, lambda d: pickle.loads(pickle.dumps(d))])
def test_a_change_taken_back_after_a_save_that_failed_is_taken_back_on_the_server(
    commands: Commands, duplicate: Callable[[Any], Any]
) -> None:
    document = duplicate(half_saved(commands))

    document.tags ^= {"a", "c"}  # as it was loaded
    document.save()

    # It cannot know which of the two was written.
    assert commands.take() == [
        {"$addToSet": {"tags": {"$each": ["a"]}}},
        {"$pullAll": {"tags": ["c"]}},
    ]
    assert stored(document)["tags"] == ["a", "b"]
    document.tags.add("d")
    document.save()
    assert commands.take() == [{"$addToSet": {"tags": {"$each": ["d"]}}}]


def test_reload_after_a_save_that_failed_starts_from_what_the_server_holds(
    commands: Commands,
) -> None:
    document = half_saved(commands)

    document.reload()
    assert document.tags == {"a", "b", "c"}
    document.tags.discard("b")
    document.save()

    assert commands.take() == [{"$pullAll": {"tags": ["b"]}}]


def test_a_change_taken_back_after_its_answer_was_lost_is_taken_back_on_the_server(
    commands: Commands, proxy: FlakyProxy
) -> None:
    class FailLossy(SetDeltaMixin, Document):
        meta = {"db_alias": "lossy"}
        tags = SetField(StringField())

    host = made(commands, FailLossy, tags=["a"])
    host.tags.add("b")
    with proxy.lose_answer(lambda data: b"$addToSet" in data), pytest.raises(AutoReconnect):
        host.save()
    assert stored(host)["tags"] == ["a", "b"]

    host.tags.discard("b")
    host.save()

    assert stored(host)["tags"] == ["a"]


def test_a_change_taken_back_after_a_failure_behind_its_updates_is_taken_back_on_the_server(
    commands: Commands,
) -> None:
    host = made(commands, tags=["a"])
    host.tags ^= {"a", "b"}

    def refuse(sender: Any, document: Any, **_: Any) -> None:
        raise RuntimeError

    signals.post_save.connect(refuse, sender=FailHost)
    try:
        with pytest.raises(RuntimeError):
            host.save()
    finally:
        signals.post_save.disconnect(refuse, sender=FailHost)
    assert stored(host)["t"] == ["b"]

    host.tags ^= {"a", "b"}
    host.save()

    assert stored(host)["t"] == ["a"]


def test_after_a_failed_condition_a_change_taken_back_leaves_what_others_added(
    commands: Commands,
) -> None:
    host = made(commands, tags=["a"], version=1)
    host.tags.add("b")
    with pytest.raises(SaveConditionError):
        host.save(save_condition={"version": 2})
    FailHost.objects.update(add_to_set__tags="b")
    commands.take()

    host.tags.discard("b")
    host.save()

    assert commands.take() == [] and stored(host)["t"] == ["a", "b"]


def test_reload_of_one_field_leaves_nothing_of_it_to_be_saved(commands: Commands) -> None:
    host = made(commands, tags=["a"])
    host.tags.add("b")
    host.name = "kept"
    FailHost.objects.update(add_to_set__tags="others")

    host.reload("tags")
    FailHost.objects.update(add_to_set__tags="more")
    commands.take()
    host.tags.add("c")
    host.save()

    assert commands.take() == [
        {"$set": {"name": "kept"}, "$addToSet": {"t": {"$each": ["c"]}}},
    ]


def test_a_deleted_document_is_not_made_again_by_the_second_update(commands: Commands) -> None:
    host = made(commands, tags=["a"])
    host.tags ^= {"a", "b"}
    host.delete()

    with pytest.raises(SaveConditionError):
        host.save(save_condition={"name": None})

    assert FailHost.objects.count() == 0


# -- with other documents, and in a transaction ------------------------------------------------


def test_a_cascade_saves_the_difference_of_what_is_referred_to(commands: Commands) -> None:
    owner = made(commands, FailOwner, host=FailHost(tags=["a"]).save())
    owner.host.tags.add("b")

    owner.save(cascade=True)

    assert commands.take() == [{"$addToSet": {"t": {"$each": ["b"]}}}]


def test_in_a_transaction_that_is_bound_the_pair_is_one_step(
    database: tuple[Any, Commands], commands: Commands
) -> None:
    host = made(commands, tags=["a"])
    host.tags ^= {"a", "b"}

    with database[0].client.start_session() as session, session.bind():
        session.start_transaction()
        host.save()
        inside = stored(host)["t"]
        session.abort_transaction()

    assert inside == ["b"] and len(commands.take()) == 2
    assert stored(host)["t"] == ["a"]
