"""Ids, sets, find_and_modify and a clean database per test, beside mongoengine's own ways.

On the server that mock_database() finds, so the embedded one unless SEPELIB_MONGO_URI or mongod is
there. Server and clients share this machine, so a figure says something only beside the peer of the
same run.

What 50 greenlets do is done by a process of its own, as monkey patching is for ever.

pytest-mongo's way is written down here and not run by it: it wants a mongod. After each test it
drops what the test could have used, and the indexes have to be made again.
"""

import atexit
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import mongoengine
from mongoengine import Document, IntField, ListField, SequenceField, StringField

from benchmarks.runner import Comparison, Goal, Variant
from sepelib.mongo import MockDatabase, Sequence, SetField, find_and_modify, mock_database

GREENLETS = 50
BLOCK = 100
ROUNDS = 10  # of each greenlet, one id a round trip
BLOCK_ROUNDS = 200  # of each greenlet, with blocks
NO_SLOWER = 1.03  # two runs of the same code differ by so much
ELEMENTS = 20  # of a set
MODELS = 5  # of a test that wants a clean database


class Numbered(Document):  # type: ignore[misc]
    number = SequenceField()


class Listed(Document):  # type: ignore[misc]
    tags = ListField(StringField())


class Tagged(Document):  # type: ignore[misc]
    tags = SetField(StringField())


class Counted(Document):  # type: ignore[misc]
    name = StringField()
    hits = IntField(default=0)


def comparisons() -> list[Comparison]:
    database = mock_database()
    return [*ids(database), *sets(), modify(), *isolation()]


def ids(database: MockDatabase) -> list[Comparison]:
    crowd = Crowd(database)
    return [
        Comparison(
            f"mongo: an id for each of {GREENLETS} greenlets, blocks of {BLOCK}",
            crowd.sample("blocks"),
            {"SequenceField": crowd.sample("field"), "blocks of 1": crowd.sample("ones")},
            goals=[Goal("SequenceField", 1 / 40)],
            clocked=False,
        ),
        Comparison(
            f"mongo: an id for each of {GREENLETS} greenlets, blocks of 1",
            crowd.sample("ones"),
            {"SequenceField": crowd.sample("field")},
            goals=[Goal("SequenceField", NO_SLOWER)],
            clocked=False,
        ),
        Comparison(
            "mongo: an id, blocks of 1, one after another",
            Sequence("alone").next,
            {"SequenceField": Numbered.number.generate},
            goals=[Goal("SequenceField", NO_SLOWER)],
        ),
    ]


class Crowd:
    """Many greenlets that take ids, in a process that is patched from its first line on."""

    def __init__(self, database: MockDatabase) -> None:
        self._database = database
        self._process: subprocess.Popen[str] | None = None

    def sample(self, name: str) -> Variant:
        return lambda: self._ask(name)

    def _ask(self, name: str) -> float:
        """Seconds for an id, over all greenlets."""
        if self._process is None:
            patched = [sys.executable, "-m", "gevent.monkey", "--module", __name__]
            self._process = subprocess.Popen(
                [*patched, self._database.uri, self._database.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            atexit.register(self._process.communicate)  # ends with its input
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def serve_a_crowd(uri: str, name: str) -> None:
    import gevent

    mongoengine.connect(name, host=uri, maxPoolSize=GREENLETS, uuidRepresentation="standard")
    samples: dict[str, tuple[Callable[[], int], int]] = {
        "blocks": (Sequence("blocks", block_size=BLOCK).next, BLOCK_ROUNDS),
        "ones": (Sequence("ones").next, ROUNDS),
        "field": (Numbered.number.generate, ROUNDS),
    }

    def take(next_id: Callable[[], int], rounds: int) -> list[int]:
        return [next_id() for _ in range(rounds)]

    for next_id, _ in samples.values():
        next_id()  # the embedded server can fail a SequenceField that many use for the first time
    for line in sys.stdin:
        next_id, rounds = samples[line.strip()]
        began = time.perf_counter()
        greenlets = [gevent.spawn(take, next_id, rounds) for _ in range(GREENLETS)]
        gevent.joinall(greenlets, raise_error=True)
        seconds = time.perf_counter() - began
        taken = {number for greenlet in greenlets for number in greenlet.value or ()}
        assert len(taken) == GREENLETS * rounds
        print(seconds / len(taken), flush=True)


def sets() -> list[Comparison]:
    goals = [Goal("ListField", 1.2)]
    return [
        Comparison(
            f"mongo: load a document with {ELEMENTS} elements",
            load(Tagged),
            {"ListField": load(Listed)},
            goals=goals,
        ),
        Comparison(
            f"mongo: save a new document with {ELEMENTS} elements",
            save(Tagged),
            {"ListField": save(Listed)},
            goals=goals,
        ),
        Comparison(
            f"mongo: add one to {ELEMENTS} elements and save, then take it away and save",
            change(Tagged, "add"),
            {"ListField": change(Listed, "append")},
            goals=goals,
        ),
    ]


def elements() -> list[str]:
    return [f"element {n:02}" for n in range(ELEMENTS)]


def load(model: Any) -> Variant:
    key = model(tags=elements()).save().pk

    def one() -> None:
        assert len(model.objects.get(pk=key).tags) == ELEMENTS

    return one


def save(model: Any) -> Variant:
    return lambda: model(tags=elements()).save()


def change(model: Any, add: str) -> Variant:
    document = model(tags=elements()).save()

    def both() -> None:
        getattr(document.tags, add)("one more")
        document.save()
        document.tags.remove("one more")
        document.save()

    return both


def modify() -> Comparison:
    Counted(name="ours").save()
    Counted(name="theirs").save()
    return Comparison(
        "mongo: find a document and modify it",
        lambda: find_and_modify(Counted, {"name": "ours"}, {"inc__hits": 1}, new=True),
        {"QuerySet.modify": lambda: Counted.objects(name="theirs").modify(inc__hits=1, new=True)},
        goals=[Goal("QuerySet.modify", 1.1)],
    )


def isolation() -> list[Comparison]:
    server = mock_database(alias="isolation_server")
    kept = server.sibling(alias="kept")
    in_kept, in_new = Body("kept"), Body("new")

    def new_database() -> None:
        with server.sibling(alias="new"):
            in_new.run()

    def clean() -> None:
        in_kept.run()
        kept.clean()

    # Databases of others stay, on a server that a URI names.
    def drop_collections() -> None:
        in_kept.run()
        for name in kept.client.list_database_names():
            if name == kept.name:
                for collection in kept.db.list_collection_names():
                    kept.db.drop_collection(collection)
        in_kept.forget_indexes()

    def drop_databases() -> None:
        in_kept.run()
        for name in kept.client.list_database_names():
            if name == kept.name:
                kept.client.drop_database(name)
        in_kept.forget_indexes()

    ways = {"drop all collections": drop_collections, "drop all databases": drop_databases}
    return [
        Comparison(
            f"mongo: a test with {MODELS} models that leaves no document: clean()",
            clean,
            ways,
            goals=[Goal("drop all collections", 1.0)],
        ),
        Comparison(
            f"mongo: a test with {MODELS} models in a database of its own", new_database, ways
        ),
    ]


class Body:
    """Documents with four indexes each, of which one is saved."""

    def __init__(self, alias: str) -> None:
        self._models = [self._model(f"{alias.title()}{number}", alias) for number in range(MODELS)]

    def _model(self, name: str, alias: str) -> Any:
        fields = {field: StringField() for field in "abcd"}
        meta = {"indexes": list(fields), "db_alias": alias}
        return type(name, (Document,), {**fields, "meta": meta})

    def run(self) -> None:
        for model in self._models:
            model(a="a", b="b", c="c", d="d").save()
            if model.objects.count() != 1:
                raise RuntimeError("a document of another test")

    def forget_indexes(self) -> None:
        for model in self._models:
            model._disconnect()


if __name__ == "__main__":
    serve_a_crowd(*sys.argv[1:])
