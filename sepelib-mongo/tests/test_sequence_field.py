import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import mongoengine
import pymongo
import pytest
from bson.json_util import DEFAULT_JSON_OPTIONS
from mongoengine import Document, EmbeddedDocument, IntField, StringField, ValidationError
from mongoengine.errors import NotUniqueError

from sepelib.mongo import GaplessSequence, MockDatabase, Sequence, SequentialIdField

LIMIT = 60.0  # seconds, for what should take far less


class Ticket(Document):
    number = SequentialIdField(unique=True)
    title = StringField(max_length=5)
    meta = {"collection": "tickets"}


class Order(Document):
    number = SequentialIdField(primary_key=True)
    title = StringField()
    meta = {"collection": "orders"}


class Coded(Document):
    code = SequentialIdField("codes", format="T-{:04d}".format, primary_key=True)


class Vehicle(Document):
    number = SequentialIdField()
    meta = {"collection": "vehicles", "allow_inheritance": True}


class Car(Vehicle):
    doors = IntField()


class Numbered(Document):
    number = SequentialIdField()
    meta = {"abstract": True}


class Cat(Numbered):
    meta = {"collection": "cats"}


class Dog(Numbered):
    meta = {"collection": "dogs"}


class Mixin:
    number = SequentialIdField()


class Tree(Mixin, Document):
    meta = {"collection": "trees"}


class Bush(Mixin, Document):
    meta = {"collection": "bushes"}


class Elsewhere(Document):
    number = SequentialIdField()
    meta = {"collection": "elsewhere", "db_alias": "elsewhere"}


def counters(mongo_db: MockDatabase) -> dict[str, int]:
    return {c["_id"]: c["next"] for c in mongo_db.db["sepelib.sequences"].find()}


def crowd(*calls: Callable[[], Any]) -> list[Any]:
    """What each returns; all begin at once, in threads or greenlets."""
    results: list[Any] = [None] * len(calls)
    gate = threading.Event()

    def run(number: int, call: Callable[[], Any]) -> None:
        gate.wait(LIMIT)
        results[number] = call()

    threads = [
        threading.Thread(target=run, args=(n, call), daemon=True) for n, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    return results


def test_the_first_save_takes_an_id_and_the_second_none(mongo_db: MockDatabase) -> None:
    first, second = Ticket(title="a").save(), Ticket(title="b").save()

    assert (first.number, second.number) == (1, 2)
    first.title = "c"
    first.save()
    assert [t.number for t in Ticket.objects.order_by("number")] == [1, 2]
    assert Ticket.objects.get(number=1).title == "c"
    assert counters(mongo_db) == {"tickets.number": 2}


@pytest.mark.parametrize("model", [Ticket, Order])
def test_what_only_reads_takes_no_id(mongo_db: MockDatabase, model: Any) -> None:
    document = model(title="a")

    assert document.number is None
    document.validate()
    (
        document.to_json(json_options=DEFAULT_JSON_OPTIONS),
        document.to_mongo(),
        repr(document),
        document == model(),
    )
    document.number = None
    pickle.dumps(document), copy.copy(document), document._delta()
    assert "number" in list(document) and document["number"] is None

    assert document.number is None
    assert counters(mongo_db) == {}


def test_an_id_can_be_the_primary_key(mongo_db: MockDatabase) -> None:
    first, second = Order(title="a").save(), Order(title="b").save(force_insert=True)

    assert (first.pk, first.number, second.pk) == (1, 1, 2)
    assert [o["_id"] for o in mongo_db.db["orders"].find()] == [1, 2]
    first.title = "c"
    first.save()
    assert Order.objects.get(pk=1).title == "c"
    assert Order.objects.count() == 2


def test_a_value_of_ones_own_is_kept(mongo_db: MockDatabase) -> None:
    ticket, order = Ticket(number=77).save(), Order(number=78).save()

    assert (ticket.number, order.pk) == (77, 78)
    assert Ticket.objects.get().number == 77
    assert counters(mongo_db) == {}


def test_the_counter_can_be_raised_above_values_of_ones_own(mongo_db: MockDatabase) -> None:
    Ticket(number=77).save()

    Ticket.number.sequence_of(Ticket).advance_to(77)

    assert Ticket().save().number == 78


def test_a_document_that_is_invalid_takes_no_id(mongo_db: MockDatabase) -> None:
    with pytest.raises(ValidationError, match="title"):
        Ticket(title="too long").save()
    assert counters(mongo_db) == {}

    assert Ticket(title="too long").save(validate=False).number == 1


def test_a_save_that_fails_keeps_its_id_for_the_next_try(mongo_db: MockDatabase) -> None:
    Ticket(number=1).save()
    ticket = Ticket(title="a")

    with pytest.raises(NotUniqueError):
        ticket.save()
    assert ticket.number == 1
    ticket.number = None
    assert ticket.save().number == 2


def test_an_id_is_formatted_before_it_is_stored(mongo_db: MockDatabase) -> None:
    assert [Coded().save().code for _ in range(2)] == ["T-0001", "T-0002"]
    assert mongo_db.db["coded"].find_one()["_id"] == "T-0001"
    assert Coded.objects.get(code="T-0002").pk == "T-0002"
    assert Coded(code="X").save().code == "X"
    assert counters(mongo_db) == {"codes": 2}


def test_a_sequence_can_be_given(mongo_db: MockDatabase) -> None:
    class Parcel(Document):
        number = SequentialIdField(Sequence("parcels", start=500, block_size=10))

    assert [Parcel().save().number for _ in range(3)] == [500, 501, 502]
    assert counters(mongo_db) == {"parcels": 509}


def test_subclasses_count_together_as_they_share_a_collection(mongo_db: MockDatabase) -> None:
    assert [Vehicle().save().number, Car().save().number, Vehicle().save().number] == [1, 2, 3]
    assert counters(mongo_db) == {"vehicles.number": 3}


@pytest.mark.parametrize("models", [(Cat, Dog), (Tree, Bush)])
def test_documents_of_a_common_base_without_a_collection_count_for_themselves(
    mongo_db: MockDatabase, models: tuple[Any, Any]
) -> None:
    first, second = models

    assert [m().save().number for m in (first, second, first, second)] == [1, 1, 2, 2]
    assert len(counters(mongo_db)) == 2


def test_the_counter_is_beside_the_documents(
    mongo_db: MockDatabase, mongo_server: MockDatabase
) -> None:
    with mongo_server.sibling(alias="elsewhere") as elsewhere:
        assert Elsewhere().save().number == 1
        assert counters(elsewhere) == {"elsewhere.number": 1}
    assert counters(mongo_db) == {}


def test_fifty_saves_at_once_get_an_id_each(mongo_db: MockDatabase) -> None:
    Ticket.ensure_indexes()

    numbers = crowd(*[lambda: Ticket().save().number] * 50)

    assert sorted(numbers) == list(range(1, 51))
    assert sorted(t.number for t in Ticket.objects) == list(range(1, 51))


def test_a_list_that_is_inserted_takes_its_ids_by_one_round_trip(mongo_db: MockDatabase) -> None:
    orders = [Order(title="a"), Order(number=77), *(Order() for _ in range(8))]
    Order().save()

    loaded = Order.objects.insert(orders)

    assert [order.pk for order in orders] == [2, 77, *range(3, 11)]
    assert [order.pk for order in loaded] == [order.pk for order in orders]
    assert Order.objects.insert(Order()).pk == 11
    assert {type(o["_id"]) for o in mongo_db.db["orders"].find()} == {int}


def test_documents_of_several_classes_are_inserted_with_ids(mongo_db: MockDatabase) -> None:
    Vehicle.objects.insert([Car(), Vehicle(), Car()])

    assert sorted(v.number for v in Vehicle.objects) == [1, 2, 3]


def test_a_document_that_was_loaded_without_the_field_keeps_its_id(mongo_db: MockDatabase) -> None:
    Ticket(title="a").save()
    partial = Ticket.objects.only("title").get()
    assert partial.number is None

    partial.title = "b"
    partial.save()

    assert Ticket.objects.get().number == 1
    assert counters(mongo_db) == {"tickets.number": 1}


def test_a_document_that_has_no_id_in_the_database_is_left_alone(mongo_db: MockDatabase) -> None:
    mongo_db.db["tickets"].insert_one({"title": "old"})

    ticket = Ticket.objects.get()
    assert ticket.number is None
    ticket.title = "new"
    ticket.save()

    assert "number" not in mongo_db.db["tickets"].find_one()
    assert counters(mongo_db) == {}


def test_documents_that_do_not_dereference_share_the_sequence(mongo_db: MockDatabase) -> None:
    Ticket().save()

    loaded = Ticket.objects.no_dereference().get()
    loaded.title = "b"
    loaded.save()

    assert (loaded.number, Ticket().save().number) == (1, 2)


def test_an_aborted_transaction_around_a_save_gives_no_id_back(mongo_db: MockDatabase) -> None:
    Ticket.ensure_indexes()
    with (
        mongo_db.client.start_session() as session,
        session.bind(end_session=False),
        session.start_transaction(),
    ):
        assert Ticket().save().number == 1
        session.abort_transaction()

    assert Ticket.objects.count() == 0
    assert Ticket().save().number == 2


def test_an_upsert_takes_its_id_from_the_sequence_by_hand(mongo_db: MockDatabase) -> None:
    ids = Ticket.number.sequence_of(Ticket)

    Ticket.objects(title="a").update_one(upsert=True, set_on_insert__number=ids.next())

    assert Ticket.objects.get().number == 1
    assert Ticket().save().number == 2


def test_ids_are_looked_for_by_number_or_by_its_text(mongo_db: MockDatabase) -> None:
    for _ in range(3):
        Ticket().save()

    assert Ticket.objects.get(number="2").number == 2
    assert Ticket.objects(number__gt=1).count() == 2
    assert Ticket.objects(number__in=[1, "3"]).count() == 2
    assert Ticket.objects(number=None).count() == 0
    assert Ticket.objects(number__exists=True).count() == 3
    with pytest.raises(ValidationError):
        Ticket.objects(number="two").count()


@pytest.mark.parametrize("value", ["x", 1.5, True, [1], float("inf")])
def test_an_id_without_a_format_is_an_integer(mongo_db: MockDatabase, value: object) -> None:
    with pytest.raises(ValidationError, match="integer"):
        Ticket(number=value).save()
    with pytest.raises(ValidationError, match="integer"):
        Ticket.objects(number=value).count()


def test_ids_come_back_as_plain_integers_also_beyond_32_bits(mongo_db: MockDatabase) -> None:
    Order(number=2**40).save()

    assert type(Order.objects.get().number) is int
    assert Order.objects.get(pk=2**40).number == 2**40


@pytest.mark.parametrize(
    "arguments",
    [{"sequence": 5}, {"sequence": GaplessSequence("invoices")}, {"format": "T-{:04d}"}],
)
def test_what_is_no_sequence_or_format_is_refused_at_the_declaration(
    arguments: dict[str, Any],
) -> None:
    with pytest.raises(TypeError):
        SequentialIdField(**arguments)


def test_a_field_in_an_embedded_document_is_refused_at_the_declaration() -> None:
    with pytest.raises(TypeError, match="Lost"):
        type("Lost", (EmbeddedDocument,), {"number": SequentialIdField()})


def test_the_hooks_of_the_user_run_before_and_after(mongo_db: MockDatabase) -> None:
    seen: list[tuple[str, object]] = []

    def before(sender: type, document: Any, **_: object) -> None:
        seen.append(("pre_save", document.number))

    def after(sender: type, document: Any, **_: object) -> None:
        seen.append(("post_save", document.number))

    with (
        mongoengine.signals.pre_save.connected_to(before, sender=Ticket),
        mongoengine.signals.post_save.connected_to(after, sender=Ticket),
    ):
        Ticket().save()

    assert seen == [("pre_save", None), ("post_save", 1)]


def test_a_save_asks_for_its_id_once(mongo_db: MockDatabase) -> None:
    sent: list[str] = []

    class Listener(pymongo.monitoring.CommandListener):
        def started(self, event: Any) -> None:
            sent.append(event.command_name)

        def succeeded(self, event: Any) -> None: ...

        def failed(self, event: Any) -> None: ...

    client: Any = mongoengine.connect(
        mongo_db.name,
        alias="elsewhere",
        host=mongo_db.uri,
        uuidRepresentation="standard",
        event_listeners=[Listener()],
    )
    try:
        Elsewhere().save()
        del sent[:]
        Elsewhere().save()
        assert sent == ["findAndModify", "insert"]
        del sent[:]
        Elsewhere.objects.insert([Elsewhere() for _ in range(5)], load_bulk=False)
        assert sent == ["findAndModify", "insert"]
    finally:
        mongoengine.disconnect("elsewhere")
        client.close()
