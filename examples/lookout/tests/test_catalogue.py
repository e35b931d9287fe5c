"""The list of targets in a real MongoDB: how it is changed, and what a replica makes of it."""

import json
import logging
import threading
from collections.abc import Callable, ItemsView, Mapping
from pathlib import Path

import pytest

from examples.lookout.tests.daemon import Lookout, Target, until
from lookout.catalogue import (
    Catalogue,
    Changes,
    Conflict,
    Listed,
    Row,
    put,
    read_catalogue,
    written,
)
from lookout.database import Database, Refused
from lookout.judge import Rules
from lookout.settings import MongoSettings
from lookout.targets import Defaults
from sepelib.core.config import ConfigError
from sepelib.mongo import MockDatabase
from sepelib.util.secrets import Secret


def listed(tmp_path: Path, text: str, defaults: Defaults | None = None) -> Listed:
    return written(text, tmp_path / "scratch", "the file", defaults or Defaults())


def some(tmp_path: Path, *names: str, **settings: object) -> Listed:
    rows = [{"name": name, "url": f"http://{name}/", **settings} for name in names]
    return listed(tmp_path, f"targets: {rows}")


def exported(
    database: Database, tmp_path: Path, changes: Mapping[str, str] | None = None
) -> Listed:
    """What is there, as a file, in which some text was replaced by another."""
    text = read_catalogue(database).to_yaml()
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    return listed(tmp_path, text)


# What a file says


def test_what_is_exported_can_be_imported_and_says_the_same(
    database: Database, tmp_path: Path
) -> None:
    nasty = {
        "targets": [
            {
                "name": "calls",
                "xmlrpc": "http://bob:sesame@a:1/RPC2",
                "expect": {"a.b": "{{ 7 * 7 }}", "$x": 5_000_000_000, "": -0.5, "no": False},
            },
            {"name": "disk", "exec": "check", "args": ["{% raw %}", "0644", "1e5", "ü\u2028"]},
            {"name": "shop", "url": "http://shop/", "tags": ["web", "eu"], "interval": "1m30s"},
        ]
    }
    wanted = listed(tmp_path, json.dumps(nasty), Defaults(exec_dir=tmp_path))
    put(database, wanted, by="ann")

    stored = read_catalogue(database)
    again = listed(tmp_path, stored.to_yaml(), Defaults(exec_dir=tmp_path))

    assert {name: row.content for name, row in again.rows.items()} == {
        name: row.content for name, row in wanted.rows.items()
    }
    assert {(row.version, row.by) for row in stored.rows.values()} == {(1, "ann")}
    assert put(database, again, by="bob") == Changes([], [], [], ["calls", "disk", "shop"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("targets: [{name: a, url: 'http://x/', version: 0}]", "the file:1:48: targets.0.version"),
        ("targets: [{name: a, url: 'http://x/', versoin: 1}]", "the file:1:48: targets.0.versoin"),
        ("targets: [{name: a, xmlrpc: 'http://x/', expect: NO}]", "the file:1:50: NO is read as"),
        ("targets: [{name: a, url: 'gopher://x/'}]", "the file:1:26: targets.0.url must be"),
        ("targets: [{name: a, exec: x}]", "the file:1:27: targets.0.exec must be program_name"),
        ("targets: [{name: a, url: 'http://x/', tags: [a b]}]", "the file:1:45: targets.0.tags"),
        ("targets: []\nweb: {}", "the file: has the key 'targets' and 'revision' and no other"),
        ("revision: 1", "the file:1:1: no 'targets'"),
        ("targets: {a: b}", "the file:1:10: targets must be list"),
        ("targets: []\nrevision: -1", "the file:2:11: revision must be"),
        (
            "targets: [{name: a, xmlrpc: 'http://x/', expect: 99999999999999999999}]",
            "the file: targets.0 has what MongoDB cannot keep",
        ),
        (
            'targets: [{name: a, xmlrpc: "http://x/", expect: {"a\\0b": sesame}}]',
            "the file: targets.0 has what MongoDB cannot keep",
        ),
    ],
)
def test_a_file_is_checked_as_a_whole_and_its_places_are_cited(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        listed(tmp_path, text)

    assert str(caught.value).startswith(sentence)
    assert "sesame" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# What an import changes


def test_an_import_makes_and_changes_what_it_names_and_leaves_the_rest(
    database: Database, tmp_path: Path
) -> None:
    assert put(database, some(tmp_path, "a", "b", "c"), by="ann").made == ["a", "b", "c"]
    wanted = exported(database, tmp_path, {"http://b/": "http://b/b"})
    del wanted.rows["c"]
    wanted.rows.update(some(tmp_path, "d").rows)

    assert put(database, wanted, by="bob") == Changes(["d"], ["b"], [], ["a"])

    stored = read_catalogue(database)
    assert stored.revision == 2
    assert {name: (row.version, row.by) for name, row in stored.rows.items()} == {
        **{"a": (1, "ann"), "b": (2, "bob")},
        **{"c": (1, "ann"), "d": (2, "bob")},
    }
    assert stored.rows["b"].settings == {"url": "http://b/b"}


def test_a_dry_run_says_the_same_and_writes_nothing(database: Database, tmp_path: Path) -> None:
    put(database, some(tmp_path, "a"), by="ann")
    before = read_catalogue(database)

    assert put(database, some(tmp_path, "b"), by="bob", dry=True).made == ["b"]
    assert read_catalogue(database) == before


def test_who_has_not_seen_the_last_change_changes_nothing_at_all(
    database: Database, tmp_path: Path
) -> None:
    put(database, some(tmp_path, "a", "b"), by="ann")
    mine = exported(database, tmp_path, {"http://a/": "http://a/mine"})
    mine.rows.update(some(tmp_path, "c").rows)
    put(database, exported(database, tmp_path, {"http://a/": "http://a/theirs"}), by="bob")

    with pytest.raises(Conflict) as caught:
        put(database, mine, by="ann")

    assert str(caught.value) == "a has version 2 by bob, the file 1"
    stored = read_catalogue(database)
    assert list(stored.rows) == ["a", "b"]
    assert stored.rows["a"].settings == {"url": "http://a/theirs"}


def test_a_new_target_does_not_replace_one_that_is_there(
    database: Database, tmp_path: Path
) -> None:
    put(database, some(tmp_path, "a"), by="ann")

    with pytest.raises(Conflict, match=r"^a has version 1 by ann, the file none$"):
        put(database, some(tmp_path, "a", interval=5), by="bob")


def test_a_target_that_was_removed_meanwhile_does_not_come_back_by_an_old_file(
    database: Database, tmp_path: Path
) -> None:
    put(database, some(tmp_path, "a", "b"), by="ann")
    old = exported(database, tmp_path, {"http://a/": "http://a/mine"})
    left = exported(database, tmp_path)
    del left.rows["a"]
    assert put(database, left, by="bob", prune=True).removed == ["a"]

    with pytest.raises(Conflict, match=r"^a has been removed$"):
        put(database, old, by="ann")
    # Nor has a new one of its name the version of the old one.
    put(database, some(tmp_path, "a"), by="bob")
    with pytest.raises(Conflict, match=r"^a has version 3 by bob, the file 1$"):
        put(database, old, by="ann")


def test_a_prune_removes_only_what_its_file_may_have_known(
    database: Database, tmp_path: Path
) -> None:
    put(database, some(tmp_path, "a", "b"), by="ann")
    seen = exported(database, tmp_path)
    put(database, some(tmp_path, "c"), by="bob")

    with pytest.raises(Conflict, match=r"^the list has revision 2 by now, the file 1$"):
        put(database, seen, by="ann", prune=True)
    with pytest.raises(Conflict, match=r"^the list has revision 2 by now, the file none$"):
        put(database, some(tmp_path, "a"), by="ann", prune=True)

    nothing = listed(tmp_path, "{revision: 2, targets: []}")
    assert put(database, nothing, by="ann", prune=True).removed == ["a", "b", "c"]
    assert read_catalogue(database) == Listed(3, {})


def test_an_import_that_was_done_may_be_repeated(database: Database, tmp_path: Path) -> None:
    put(database, some(tmp_path, "a", "b", "c"), by="ann")
    wanted = exported(database, tmp_path, {"http://a/": "http://a/new"})
    del wanted.rows["c"]
    assert put(database, wanted, by="ann", prune=True) == Changes([], ["a"], ["c"], ["b"])
    before = read_catalogue(database)

    assert put(database, wanted, by="ann", prune=True) == Changes([], [], [], ["a", "b"])
    assert read_catalogue(database) == before


class Meanwhile(dict[str, Row]):
    """Rows; something happens when they are compared with what was read for the first time."""

    def __init__(self, rows: Mapping[str, Row], happens: Callable[[], object]) -> None:
        super().__init__(rows)
        self.happens: list[Callable[[], object]] = [happens]

    def items(self) -> ItemsView[str, Row]:
        while self.happens:
            self.happens.pop()()
        return super().items()


def test_a_change_between_the_look_and_the_write_is_a_conflict(
    database: Database, tmp_path: Path
) -> None:
    put(database, some(tmp_path, "a"), by="ann")
    mine = exported(database, tmp_path, {"http://a/": "http://a/mine"})
    theirs = exported(database, tmp_path, {"http://a/": "http://a/theirs"})
    rows = Meanwhile(mine.rows, lambda: put(database, theirs, by="bob"))

    with pytest.raises(Conflict, match=r"^a has version 2 by bob, the file 1$"):
        put(database, Listed(mine.revision, rows), by="ann")

    assert read_catalogue(database).rows["a"].settings == {"url": "http://a/theirs"}


def test_an_import_of_which_the_database_refuses_a_part_changes_nothing(
    database: Database, tmp_path: Path, mongo: MockDatabase
) -> None:
    mongo.db.create_collection("targets", validator={"_id": {"$ne": "b"}})

    with pytest.raises(Refused):
        put(database, some(tmp_path, "a", "b", "c"), by="ann")

    assert read_catalogue(database) == Listed(0, {})


def test_of_two_who_import_at_once_one_has_a_conflict(database: Database, tmp_path: Path) -> None:
    put(database, some(tmp_path, "a"), by="ann")
    files = [
        exported(database, tmp_path, {"http://a/": f"http://a/{n}"}) for n in range(4)
    ]  # the same version in all
    done = list[str]()

    def run(number: int) -> None:
        try:
            put(database, files[number], by=f"{number}")
            done.append("changed")
        except Conflict:
            done.append("conflict")

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(done) == ["changed", "conflict", "conflict", "conflict"]
    stored = read_catalogue(database)
    assert (stored.revision, stored.rows["a"].version) == (2, 2)


# What a replica makes of it


class Replica:
    """A catalogue that looks when it is told to."""

    def __init__(self, database: Database, state: Path, defaults: Defaults | None = None) -> None:
        self.changes = 0
        self.catalogue = Catalogue(database, state, changed=self.changed)
        self.catalogue.use(defaults or Defaults())

    def changed(self) -> None:
        self.changes += 1

    def sees(self) -> list[str]:
        self.catalogue.look()
        return self.names

    @property
    def names(self) -> list[str]:
        return [target.name for target in self.catalogue.targets]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


def test_a_replica_sees_what_was_imported_and_is_told_of_changes_only(
    database: Database, tmp_path: Path
) -> None:
    replica = Replica(database, tmp_path)
    assert not replica.catalogue.is_known
    assert replica.sees() == []
    assert (replica.catalogue.is_known, replica.changes) == (True, 1)
    put(database, some(tmp_path, "b", "a", tags=["web"]), by="ann")

    assert replica.sees() == replica.sees() == ["a", "b"]
    assert [target.tags for target in replica.catalogue.targets] == [{"web"}, {"web"}]
    assert (replica.changes, replica.catalogue.complaints) == (2, [])


def test_a_list_without_a_new_revision_is_not_read_again(
    database: Database, tmp_path: Path, mongo: MockDatabase
) -> None:
    put(database, some(tmp_path, "a"), by="ann")
    replica = Replica(database, tmp_path)
    assert replica.sees() == ["a"]

    mongo.db["targets"].delete_many({})

    assert replica.sees() == ["a"]


def test_a_list_that_was_emptied_leaves_nothing_for_a_restart(
    database: Database, tmp_path: Path
) -> None:
    put(database, some(tmp_path, "a"), by="ann")
    replica = Replica(database, tmp_path)
    assert replica.sees() == ["a"]

    put(database, listed(tmp_path, "{revision: 1, targets: []}"), by="ann", prune=True)

    assert (replica.sees(), replica.changes) == ([], 2)
    assert list(tmp_path.iterdir()) == []


def test_a_start_without_mongo_goes_on_with_the_last_list(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(database, some(tmp_path, "a"), by="ann")
    assert Replica(database, tmp_path).sees() == ["a"]
    assert (tmp_path / "mongodb-targets.yml").stat().st_mode & 0o777 == 0o600
    database.close()
    away = Database(MongoSettings(Secret("mongodb://127.0.0.1:1/")))

    replica = Replica(away, tmp_path, Defaults(rules=Rules(confirm=7)))

    assert replica.catalogue.is_known
    assert replica.sees() == ["a"]
    assert [target.rules.confirm for target in replica.catalogue.targets] == [7]
    assert replica.catalogue.complaints == []  # there is one already, that MongoDB is away
    assert [said[:16] for said in errors(caplog)] == ["MongoDB is away,"]


def test_a_list_that_this_replica_cannot_take_changes_nothing_until_it_can(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    put(database, some(tmp_path, "a"), by="ann")
    replica = Replica(database, state)
    assert replica.sees() == ["a"]
    able = Defaults(exec_dir=tmp_path)
    put(database, listed(tmp_path, "targets: [{name: b, exec: x}]", able), by="ann")

    assert replica.sees() == replica.sees() == ["a"]
    (complaint,) = replica.catalogue.complaints
    assert complaint.startswith(
        "The list of targets in MongoDB was not taken, the last one stays: "
        "MongoDB@2:5:9: targets.1.exec must be program_name"
    )
    assert len(errors(caplog)) == 1

    replica.catalogue.use(Defaults(rules=Rules(confirm=7)))
    assert replica.sees() == ["a"]
    replica.catalogue.use(able)
    assert replica.sees() == ["a", "b"]
    assert replica.catalogue.complaints == []


def test_what_somebody_else_has_put_there_changes_nothing_and_is_told_once(
    database: Database, tmp_path: Path, mongo: MockDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    put(database, some(tmp_path, "a"), by="ann")
    replica = Replica(database, tmp_path)
    assert replica.sees() == ["a"]
    mongo.db["targets"].insert_one({"_id": "b", "url": "http://b/"})
    mongo.db["catalogue"].update_one({}, {"$inc": {"revision": 1}})

    assert replica.sees() == replica.sees() == ["a"]
    assert replica.catalogue.complaints == [
        "The targets in MongoDB cannot be read, the last ones stay: "
        "a target is not as lookout has written it: no 'settings'"
    ]
    assert len(errors(caplog)) == 1
    mongo.db["targets"].delete_one({"_id": "b"})
    assert (replica.sees(), replica.catalogue.complaints) == (["a"], [])


def test_every_replica_watches_what_was_imported_a_moment_ago(
    target: Target, serve: Callable[..., Lookout], database: Database, tmp_path: Path
) -> None:
    with serve(target.url) as lookout:
        rows = [
            {"name": "new", "url": target.url, "interval": 0.05, "tags": ["web"]},
            {"name": "t0", "url": "http://elsewhere/"},
        ]
        put(database, listed(tmp_path, str({"targets": rows})), by="ann")
        until(lambda: len(lookout.status()["targets"]) == 2, limit=10)
        until(lambda: lookout.target("new")["state"] == "up")

        assert [(t["name"], t["origin"], t["tags"]) for t in lookout.status()["targets"]] == [
            ("t0", "configuration", []),
            ("new", "database", ["web"]),
        ]
        assert lookout.target("t0")["url"] == target.url  # the configuration wins
        assert "t0" in " ".join(lookout.status()["complaints"])
        assert lookout.get().count("· from the database<") == 1
        lookout.process.kill()
    with serve(target.url) as lookout:
        assert [t["name"] for t in lookout.status()["targets"]] == ["t0", "new"]


def test_a_start_with_a_fresh_state_directory_closes_no_incident_of_the_database(
    target: Target, serve: Callable[..., Lookout], database: Database, tmp_path: Path
) -> None:
    with Target() as other:
        other.status = "500 Oops"
        rows = [{"name": "there", "url": other.url, "interval": 0.05}]
        put(database, listed(tmp_path, str({"targets": rows})), by="ann")
        with serve(target.url) as lookout:
            until(lambda: "INC-1 opened: there" in lookout.log)
            lookout.process.kill()
        (tmp_path / "state").rename(tmp_path / "lost")

        with serve(target.url) as lookout:
            until(lambda: len(lookout.status()["targets"]) == 2)
            until(lambda: lookout.target("there")["state"] == "down")
            until(lambda: lookout.status()["incidents"])
            incidents = lookout.status()["incidents"]

    assert [(i["id"], i["state"], i["closed_because"]) for i in incidents] == [
        ("INC-1", "open", None)
    ]
