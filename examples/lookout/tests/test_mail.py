"""Mails of incidents: each is sent, by servers that fail in every way, and when it has to be again,
it is the same mail. Real greenlets, a real server; no process.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import gevent
import pytest

from lookout import models
from lookout.counters import Counters, count
from lookout.database import Database
from lookout.judge import Rules
from lookout.ledger import MAX_OUTBOX, Epoch, LedgerStore
from lookout.mail import Postman
from lookout.records import History, Incident, Mail, Result
from lookout.settings import MailSettings
from lookout.store import Keeper
from sepelib.metrics import Registry
from sepelib.mongo import MockDatabase
from sepelib.util.retry import Backoff
from sepelib.util.secrets import Secret
from sepelib.util.testing import SmtpServer

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ANN, BOB = "ann@example.org", "bob@example.org"


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


class Office:
    """A term with its ledger, and a postman who does not wait long between two tries."""

    def __init__(self, database: Database, server: SmtpServer, *recipients: str) -> None:
        self.settings = MailSettings(
            "lookout@example.org", recipients or (ANN,), "127.0.0.1", server.port
        )
        self.history = History()
        self.store = LedgerStore(database)
        self.writer = self.store.claim("r1", Epoch(1, 1))
        self.ledger = self.writer.ledger
        self.keeper = Keeper(self.writer.write, every=3600)
        self.counters = Counters(Registry())
        self.asked = 0
        self.judges = True
        self.silences: dict[str, bool | None] = {}
        self.postman = Postman(
            self.ledger,
            self.keeper,
            self.settings,
            self.counters,
            saved=self.writer.saved,
            silenced=lambda target: self.silences.get(target, False),
            allowed=self.ask,
            backoff=Backoff(base=0.01, cap=0.05),
        )

    def ask(self) -> bool:
        self.asked += 1
        return self.judges

    def saved(self) -> list[str]:
        """The Message-IDs of the outbox in the database."""
        return [mail.id for mail in models.Outgoing.objects.order_by("queued_at")]

    def fail(self, target: str = "shop") -> None:
        self.probed(target, Result(NOON, 0.1, None, "connection refused"))

    def recover(self, target: str = "shop") -> None:
        self.probed(target, Result(NOON + timedelta(minutes=4), 0.1, 200))

    def probed(self, target: str, result: Result) -> None:
        rules = Rules(1, 1)
        self.history.add(target, result, rules)
        self.ledger.judge_target(target, [self.history.record(target)], rules)
        self.postman.wake()

    @contextmanager
    def open(self) -> Iterator[None]:
        self.postman.start()
        try:
            yield
        finally:
            self.postman.stop()
            assert self.keeper.close()

    def until(self, condition: Callable[[], object]) -> None:
        with gevent.Timeout(20, AssertionError("it did not come true")):
            while not condition():
                gevent.sleep(0.005)

    def until_idle(self) -> None:
        self.until(lambda: not self.ledger.outbox and not self.saved())


def ids(server: SmtpServer) -> list[str]:
    return [mail.message["Message-ID"].strip("<>").split("@")[0] for mail in server.messages]


OPENED, CLOSED = "INC-1.opened.20261123T120000.000000", "INC-1.closed.20261123T120000.000000"


def test_an_incident_is_a_mail_when_it_opens_and_one_when_it_closes(
    server: SmtpServer, database: Database
) -> None:
    office = Office(database, server, ANN, f"Bob <{BOB}>")
    with office.open():
        office.fail()
        office.recover()
        office.until_idle()

    assert ids(server) == [OPENED, CLOSED]
    opened, closed = server.messages
    assert opened.recipients == (ANN, BOB)
    assert opened.message["Subject"] == "shop is down (INC-1)"
    assert "INC-1 opened: shop: connection refused" in opened.message.get_content()
    assert closed.message["Subject"] == "shop is no longer down (INC-1)"
    assert "recovered after 4 min" in closed.message.get_content()
    assert count(office.counters.sent) == 2
    assert office.postman.complaints == []


def test_a_mail_comes_into_the_outbox_with_its_incident_and_leaves_it_when_taken(
    server: SmtpServer, database: Database
) -> None:
    office = Office(database, server)
    server.fail("TEXT", 451, times=None)
    office.fail()
    office.keeper.flush()
    assert (models.Incident.objects.count(), len(office.saved())) == (1, 1)

    with office.open():
        office.until(lambda: office.postman.error)
        assert len(office.saved()) == 1
        server.heal()
        office.until_idle()

    assert ids(server) == [OPENED]


@pytest.mark.parametrize("stage", ["CONNECT", "MAIL", "RCPT", "DATA", "TEXT"])
def test_a_server_that_says_later_is_asked_later_and_gets_the_mail_once(
    stage: str, server: SmtpServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lookout")
    office = Office(database, server)
    server.fail(stage, 451, times=3)  # type: ignore[arg-type]
    with office.open():
        office.fail()
        office.until_idle()

    assert ids(server) == [OPENED]
    assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]  # once for three times


def test_a_lost_answer_means_the_same_mail_twice_and_never_another(
    server: SmtpServer, database: Database
) -> None:
    server.drop("TEXT")
    office = Office(database, server)
    with office.open():
        office.fail()
        office.until_idle()

    assert ids(server) == [OPENED, OPENED]


def test_an_outage_of_the_server_is_one_error_and_the_mails_come_after_it_in_order(
    server: SmtpServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lookout")
    office = Office(database, server)
    server.stop()
    with office.open():
        office.fail()
        office.until(lambda: office.postman.error)
        office.recover()
        gevent.sleep(0.2)  # some tries
        (complaint,) = office.postman.complaints
        assert complaint.startswith("Mail cannot be sent, 2 waiting: 127.0.0.1:")
        server.start()
        office.until_idle()

    assert ids(server) == [OPENED, CLOSED]
    assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "TEXT"])
def test_a_mail_that_is_refused_for_good_is_given_up_and_the_next_one_goes_out(
    stage: str, server: SmtpServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    office = Office(database, server)
    server.fail(stage, 550, "not here")  # type: ignore[arg-type]
    with office.open():
        office.fail()
        office.recover()
        office.until_idle()

    assert ids(server) == [CLOSED]
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("mail given up: INC-1 opened: ")
    (complaint,) = office.postman.complaints
    assert complaint.startswith("Mails given up: 1, the last one: INC-1 opened: ")
    assert "550 not here" in complaint


def test_a_wrong_password_costs_no_mail(database: Database) -> None:
    with SmtpServer(users={"lookout": "sesame"}) as server:
        office = Office(database, server)
        right = replace(office.settings, user="lookout", password=Secret("sesame"))
        office.postman.use(replace(right, password=Secret("guessed")))
        with office.open():
            office.fail()
            office.until(lambda: office.postman.error)
            assert "535" in str(office.postman.error)
            assert "guessed" not in str(office.postman.error)
            office.postman.use(right)
            office.until_idle()

        assert ids(server) == [OPENED]


def test_of_several_each_gets_it_once_or_is_named_as_refused(
    server: SmtpServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    office = Office(database, server, ANN, BOB, "eve@example.org")
    server.fail("RCPT", 450, "later", address=BOB, times=2)
    server.fail("RCPT", 550, "no such user", address="eve@example.org")
    with office.open():
        office.fail()
        office.until_idle()

    assert [mail.recipients for mail in server.messages] == [(ANN,), (BOB,)]
    assert ids(server) == [OPENED, OPENED]
    refusals = [r.getMessage() for r in caplog.records if "given up" in r.getMessage()]
    assert refusals == ["mail given up: INC-1 opened: eve@example.org: 550 no such user"]


def test_a_mail_that_cannot_be_made_stops_no_other(
    server: SmtpServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    office = Office(database, server)
    with office.open():
        office.fail("half\nway")  # no subject of a mail
        office.fail("shop")
        office.until(lambda: count(office.counters.sent))

    assert [m.message["Subject"] for m in server.messages] == ["shop is down (INC-2)"]
    assert count(office.counters.given_up) == 1


def test_what_waits_when_mail_is_switched_off_is_dropped_with_a_warning(
    server: SmtpServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    office = Office(database, server)
    server.stop()
    with office.open():
        office.fail()
        office.until(lambda: office.postman.error)
        office.postman.use(None)
        office.recover()
        server.start()
        gevent.sleep(0.1)  # some tries, were there any

    assert server.messages == ()
    assert office.saved() == []
    assert caplog.messages[-1] == "mail is off: 1 that waited are dropped"


def test_after_the_loss_of_a_database_another_first_incident_is_another_mail() -> None:
    first = Mail(Incident(1, "shop", NOON, "no"))
    again = Mail(Incident(1, "shop", NOON + timedelta(seconds=9), "no"))

    assert first.message_id != again.message_id


def test_who_does_not_judge_sends_nothing_and_goes_on_once_he_judges_again(
    server: SmtpServer, database: Database
) -> None:
    office = Office(database, server)
    office.judges = False
    with office.open():
        office.fail()
        office.until(lambda: office.asked)
        office.postman.wake()
        gevent.sleep(0.1)  # some tries, were there any
        assert ids(server) == []
        assert office.saved() == [f"<{OPENED}@lookout.invalid>"]

        office.judges = True  # the lease was renewed late, say
        office.until_idle()

    assert ids(server) == [OPENED]


def test_the_outbox_is_bounded_and_says_so(server: SmtpServer, database: Database) -> None:
    office = Office(database, server)
    for _ in range(MAX_OUTBOX):
        office.fail()
        office.recover()

    assert len(office.ledger.outbox) == MAX_OUTBOX
    assert office.postman.complaints[-1].startswith(f"Only the last {MAX_OUTBOX} mails are kept")
    assert office.keeper.close()


# Silences


def test_a_silenced_outage_is_told_when_the_silence_ends_and_it_does_not(
    server: SmtpServer, database: Database
) -> None:
    office = Office(database, server)
    office.silences["shop"] = True
    with office.open():
        office.fail()
        office.fail("blog")
        office.until(lambda: server.messages)
        gevent.sleep(0.1)  # some tries, were there any
        assert [m.message["Subject"] for m in server.messages] == ["blog is down (INC-2)"]

        office.silences.clear()
        office.postman.wake()
        office.until_idle()

    assert [m.message["Subject"] for m in server.messages][1:] == ["shop is down (INC-1)"]


def test_an_outage_that_is_over_before_the_silence_is_told_to_nobody(
    server: SmtpServer, database: Database
) -> None:
    office = Office(database, server)
    office.silences["shop"] = True
    with office.open():
        office.fail()
        office.recover()
        office.until(lambda: not office.ledger.outbox)
        office.silences.clear()
        office.fail("blog")
        office.until_idle()

    assert [m.message["Subject"] for m in server.messages] == ["blog is down (INC-2)"]


def test_while_nobody_knows_of_silences_no_mail_goes_out_and_none_is_dropped(
    server: SmtpServer, database: Database
) -> None:
    office = Office(database, server)
    office.silences["shop"] = None
    with office.open():
        office.fail()
        office.recover()
        gevent.sleep(0.1)  # some tries, were there any
        assert (server.messages, len(office.ledger.outbox)) == ((), 2)
        office.silences.clear()
        office.postman.wake()
        office.until_idle()

    assert ids(server) == [OPENED, CLOSED]


# The database


def test_no_mail_goes_out_before_it_is_saved(
    server: SmtpServer, database: Database, mongo: MockDatabase
) -> None:
    office = Office(database, server)
    mongo.db.create_collection("outbox", validator={"to": "nobody"})
    with office.open():
        office.fail()
        office.until(lambda: office.keeper.error)
        gevent.sleep(0.1)  # some tries, were there any
        assert server.messages == ()
        mongo.db.command("collMod", "outbox", validator={})
        office.postman.wake()
        office.until_idle()

    assert ids(server) == [OPENED]
