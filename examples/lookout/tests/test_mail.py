"""Mails of incidents: each is sent, by servers that fail in every way, and when it has to be again,
it is the same mail. Real greenlets, a real server; no process.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import gevent
import pytest

from lookout.counters import Counters, count
from lookout.judge import Rules
from lookout.ledger import MAX_OUTBOX, Ledger, LedgerFile, encode
from lookout.mail import Postman
from lookout.records import History, Incident, Mail, Result
from lookout.settings import MailSettings
from lookout.store import Keeper
from sepelib.metrics import Registry
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
    """A ledger on disk and a postman who does not wait long between two tries."""

    def __init__(self, folder: Path, server: SmtpServer, *recipients: str) -> None:
        self.file = LedgerFile(folder)
        self.settings = MailSettings(
            "lookout@example.org", recipients or (ANN,), "127.0.0.1", server.port
        )
        self.history = History()
        self.ledger = self.on_disk()
        self.keeper = Keeper(
            lambda: encode(self.ledger),
            lambda text: self.file.write(text, self.ledger.epoch),
            every=3600,
        )
        self.counters = Counters(Registry())
        self.asked = 0
        self.allowed = 1 << 30  # so many times
        self.postman = Postman(
            self.ledger,
            self.keeper,
            self.settings,
            self.counters,
            allowed=self.ask,
            backoff=Backoff(base=0.01, cap=0.05),
        )

    def ask(self) -> bool:
        self.asked += 1
        return self.asked <= self.allowed

    def on_disk(self) -> Ledger:
        return self.file.read()

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
        self.until(lambda: not self.on_disk().outbox and not self.ledger.outbox)


def ids(server: SmtpServer) -> list[str]:
    return [mail.message["Message-ID"].strip("<>").split("@")[0] for mail in server.messages]


OPENED, CLOSED = "INC-1.opened.20261123T120000.000000", "INC-1.closed.20261123T120000.000000"


def test_an_incident_is_a_mail_when_it_opens_and_one_when_it_closes(
    server: SmtpServer, tmp_path: Path
) -> None:
    office = Office(tmp_path, server, ANN, f"Bob <{BOB}>")
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
    server: SmtpServer, tmp_path: Path
) -> None:
    office = Office(tmp_path, server)
    server.fail("TEXT", 451, times=None)
    office.fail()
    office.keeper.flush()
    saved = json.loads(office.file.path.read_bytes())
    assert (len(saved["incidents"]), len(saved["outbox"])) == (1, 1)

    with office.open():
        office.until(lambda: office.postman.error)
        assert len(office.on_disk().outbox) == 1
        server.heal()
        office.until_idle()

    assert ids(server) == [OPENED]


@pytest.mark.parametrize("stage", ["CONNECT", "MAIL", "RCPT", "DATA", "TEXT"])
def test_a_server_that_says_later_is_asked_later_and_gets_the_mail_once(
    stage: str, server: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lookout")
    office = Office(tmp_path, server)
    server.fail(stage, 451, times=3)  # type: ignore[arg-type]
    with office.open():
        office.fail()
        office.until_idle()

    assert ids(server) == [OPENED]
    assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]  # once for three times


def test_a_lost_answer_means_the_same_mail_twice_and_never_another(
    server: SmtpServer, tmp_path: Path
) -> None:
    server.drop("TEXT")
    office = Office(tmp_path, server)
    with office.open():
        office.fail()
        office.until_idle()

    assert ids(server) == [OPENED, OPENED]


def test_an_outage_of_the_server_is_one_error_and_the_mails_come_after_it_in_order(
    server: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lookout")
    office = Office(tmp_path, server)
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
    stage: str, server: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    office = Office(tmp_path, server)
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


def test_a_wrong_password_costs_no_mail(tmp_path: Path) -> None:
    with SmtpServer(users={"lookout": "sesame"}) as server:
        office = Office(tmp_path, server)
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
    server: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    office = Office(tmp_path, server, ANN, BOB, "eve@example.org")
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
    server: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    office = Office(tmp_path, server)
    with office.open():
        office.fail("half \ud800")  # not in UTF-8, so in no mail
        office.fail("shop")
        office.until(lambda: count(office.counters.sent))
        office.ledger.incidents.clear()  # nor in JSON that is to be a file

    assert [m.message["Subject"] for m in server.messages] == ["shop is down (INC-2)"]
    assert count(office.counters.given_up) == 1


def test_what_waits_when_mail_is_switched_off_is_dropped_with_a_warning(
    server: SmtpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    office = Office(tmp_path, server)
    server.stop()
    with office.open():
        office.fail()
        office.until(lambda: office.postman.error)
        office.postman.use(None)
        office.recover()
        server.start()
        gevent.sleep(0.1)  # some tries, were there any

    assert server.messages == ()
    assert office.on_disk().outbox == []
    assert caplog.messages[-1] == "mail is off: 1 that waited are dropped"


def test_after_the_loss_of_a_ledger_another_first_incident_is_another_mail() -> None:
    first = Mail(Incident(1, "shop", NOON, "no"))
    again = Mail(Incident(1, "shop", NOON + timedelta(seconds=9), "no"))

    assert first.message_id != again.message_id


@pytest.mark.parametrize("mails", [0, 1])
def test_who_no_longer_judges_leaves_the_mail_to_the_next_judge(
    mails: int, server: SmtpServer, tmp_path: Path
) -> None:
    office = Office(tmp_path, server)
    office.allowed = mails  # before the mail is sent; after that it is not removed
    with office.open():
        office.fail()
        office.until(lambda: office.asked > mails)
        office.postman.wake()
        gevent.sleep(0.1)  # some tries, were there any

    assert office.asked == mails + 1
    assert ids(server) == [OPENED] * mails
    assert [mail.message_id for mail in office.on_disk().outbox] == [f"<{OPENED}@lookout.invalid>"]


def test_the_outbox_is_bounded_and_says_so(server: SmtpServer, tmp_path: Path) -> None:
    office = Office(tmp_path, server)
    for _ in range(MAX_OUTBOX):
        office.fail()
        office.recover()

    assert len(office.ledger.outbox) == MAX_OUTBOX
    assert office.postman.complaints[-1].startswith(f"Only the last {MAX_OUTBOX} mails are kept")
    assert office.keeper.close()
