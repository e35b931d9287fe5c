"""Silences in a real MongoDB: whom they cover, when they end, and the mails that they hold back."""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from examples.lookout.tests.daemon import Lookout, Target, until
from lookout.database import Database
from lookout.silences import (
    Silence,
    Silences,
    end_silence,
    last_of,
    read_silences,
    set_silence,
)
from lookout.targets import Target as Watched
from sepelib.mongo import MockDatabase
from sepelib.util.testing import SmtpServer

SHOP = Watched("shop", "http://shop/", tags=frozenset({"web", "eu"}))
DISK = Watched("disk", "http://disk/", tags=frozenset({"eu"}))


def silence(
    database: Database,
    *targets: str,
    tags: Collection[str] = (),
    seconds: float = 60.0,
    reason: str = "a move",
) -> Silence:
    return set_silence(
        database, targets=targets, tags=tags, seconds=seconds, by="ann", reason=reason
    )


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def test_a_silence_covers_targets_by_name_and_by_tag(database: Database) -> None:
    silences = Silences(database)
    silence(database, "shop", "other")
    silences.look()
    assert (silences.silenced(SHOP), silences.silenced(DISK)) == (True, False)

    silence(database, tags=["db", "eu"])
    silences.look()
    assert (silences.silenced(SHOP), silences.silenced(DISK)) == (True, True)


def test_nothing_is_known_of_silences_before_they_were_read(database: Database) -> None:
    silences = Silences(database)
    assert not silences.is_known

    silences.look()
    assert silences.is_known
    assert silences.valid() == []


def test_what_is_read_is_what_was_set(database: Database) -> None:
    before = datetime.now(UTC)
    later = silence(database, "shop", tags=["web"], seconds=7200)
    first = silence(database, "disk", seconds=3600, reason="düster 'n' \"<b>\"")
    silences = Silences(database)
    silences.look()

    assert (later.id, first.id) == ("SIL-1", "SIL-2")
    assert [s.id for s in silences.valid()] == ["SIL-2", "SIL-1"]
    found = silences.valid()[1]
    assert (found.targets, found.tags, found.by) == ({"shop"}, {"web"}, "ann")
    assert abs(found.until - before - timedelta(hours=2)) < timedelta(seconds=30)
    assert silences.valid()[0].reason == "düster 'n' \"<b>\""


def test_of_several_the_one_that_ends_last_is_shown(database: Database) -> None:
    silence(database, "shop", seconds=100)
    last = silence(database, tags=["eu"], seconds=300)
    silence(database, "shop", seconds=200)
    found = read_silences(database)

    covering = last_of(found, SHOP)
    assert covering is not None
    assert covering.id == last.id
    assert last_of(found, Watched("none", "")) is None


def test_a_silence_that_was_ended_is_over_and_cannot_be_ended_again(database: Database) -> None:
    silences = Silences(database)
    set_ = silence(database, "shop")
    silences.look()

    assert end_silence(database, set_.id) is not None
    assert end_silence(database, set_.id) is None
    assert end_silence(database, "SIL-77") is None
    silences.look()
    assert silences.valid() == []


def test_a_silence_ends_in_its_time_although_mongo_is_away(
    database: Database, mongo: MockDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    silences = Silences(database, clock=clock)
    silence(database, "shop", seconds=60)
    silences.look()
    assert mongo.server is not None
    mongo.server.pause()
    silences.look()
    assert silences.silenced(SHOP)
    assert silences.complaints == []  # there is one already, that MongoDB is away
    said = [r.getMessage()[:16] for r in caplog.records if r.levelno >= logging.ERROR]
    assert said == ["MongoDB is away,"]

    clock.ahead = timedelta(seconds=61)
    assert not silences.silenced(SHOP)

    clock.ahead = timedelta()
    mongo.server.resume()
    until(lambda: silences.look() is None and database.error is None)  # connections come back
    assert silences.silenced(SHOP)


def test_silences_that_cannot_be_read_leave_those_that_are_known(
    database: Database, mongo: MockDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    silences = Silences(database)
    silence(database, "shop")
    silences.look()
    mongo.db["silences"].insert_one(
        {"_id": "x", "until": datetime.now(UTC) + timedelta(days=1), "tags": 5}
    )

    silences.look()
    silences.look()
    assert silences.silenced(SHOP)
    (complaint,) = silences.complaints
    assert complaint.startswith("Silences cannot be read, those known stay: ")
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1

    mongo.db["silences"].delete_one({"_id": "x"})
    silences.look()
    assert silences.complaints == []


def test_silences_are_gone_a_week_after_their_end(database: Database, mongo: MockDatabase) -> None:
    silence(database, "shop")

    indexes = mongo.db["silences"].index_information().values()
    assert [i["expireAfterSeconds"] for i in indexes if "expireAfterSeconds" in i] == [7 * 86400]


# The service


@pytest.fixture
def mailbox() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


def mail(mailbox: SmtpServer) -> str:
    return (
        f"mail: {{recipients: [a@b.example], sender: x@y.example, host: 127.0.0.1, "
        f"port: {mailbox.port}}}\n"
    )


def subjects(mailbox: SmtpServer) -> list[str]:
    return [str(mail.message["Subject"]) for mail in mailbox.messages]


def test_no_mail_goes_out_about_a_silenced_target_and_the_page_says_why(
    target: Target, serve: Callable[..., Lookout], database: Database, mailbox: SmtpServer
) -> None:
    set_ = silence(database, "t0", reason="new <b>disks</b>")
    target.status = "500 Oops"
    with Target() as loud, serve(target.url, loud.url, more=mail(mailbox)) as lookout:
        until(lambda: lookout.status()["open_incidents"])
        until(lambda: lookout.target("t0")["silenced"])
        shown = lookout.target("t0")["silenced"]
        assert (shown["id"], shown["by"], shown["reason"]) == ("SIL-1", "ann", "new <b>disks</b>")
        assert lookout.target("t1")["silenced"] is None
        assert lookout.status()["silences"] == [shown]
        assert datetime.fromisoformat(shown["until"]) == set_.until.replace(
            microsecond=set_.until.microsecond // 1000 * 1000
        )
        page = lookout.get()
        assert "by ann: new &lt;b&gt;disks&lt;/b&gt;" in page
        assert ", silenced" in page

        loud.status = "500 Oops"  # its mail comes after that of t0 would have
        until(lambda: subjects(mailbox))
        assert subjects(mailbox) == ["t1 is down (INC-2)"]
        target.status = "200 OK"
        until(lambda: not lookout.target("t0")["incident"])
        loud.status = "200 OK"
        until(lambda: len(mailbox.messages) == 2)
        assert subjects(mailbox)[1] == "t1 is no longer down (INC-2)"
        assert lookout.process.stop() == 0


def test_a_mail_that_is_due_goes_out_when_the_silence_ends(
    target: Target, serve: Callable[..., Lookout], database: Database, mailbox: SmtpServer
) -> None:
    silence(database, "t0")
    target.status = "500 Oops"
    with serve(target.url, more=mail(mailbox)) as lookout:
        until(lambda: lookout.status()["open_incidents"])
        until(lambda: lookout.target("t0")["silenced"])
        assert lookout.status()["mail"]["waiting"] == 1

        assert end_silence(database, "SIL-1") is not None
        until(lambda: subjects(mailbox))
        assert subjects(mailbox) == ["t0 is down (INC-1)"]
        assert lookout.status()["silences"] == []
        assert lookout.process.stop() == 0


def test_who_has_the_page_is_told_of_a_silence_that_was_set_or_has_ended(
    target: Target, serve: Callable[..., Lookout], database: Database
) -> None:
    with serve(target.url) as lookout:
        until(lambda: lookout.target("t0")["state"] == "up")
        silence(database, "t0", seconds=2.5)
        until(lambda: "silenced until" in lookout.get())
        started = time.monotonic()
        until(lambda: "silenced until" not in lookout.get())
        assert time.monotonic() - started < 10
