"""MongoDB stands still, dies, comes late: the watch goes on, and nothing is lost or told twice."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pymongo.errors import AutoReconnect

from examples.lookout.tests.daemon import Lookout, Target, section, until
from lookout.database import Away, Database, Refused
from lookout.settings import MongoSettings
from sepelib.mongo import MockDatabase, mock_database
from sepelib.util.secrets import Secret
from sepelib.util.testing import FlakyProxy, SmtpServer

SAID = "MongoDB is away: probing goes on, incidents and mails wait until they can be saved: "


@pytest.fixture
def mailbox() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


@pytest.fixture
def watch(target: Target, mailbox: SmtpServer, tmp_path: Path) -> Callable[[str], Lookout]:
    """`watch("mongo: ...")`: a lookout that watches the target twenty times a second."""

    def make(mongo: str) -> Lookout:
        (tmp_path / "lookout.yml").write_text(
            "service: {state: state}\nweb: {port: 0, drain_delay: 0}\n"
            f"{mongo}history: {{save_every: 0.2}}\n"
            f"mail: {{recipients: [a@b], sender: x@y, host: 127.0.0.1, port: {mailbox.port}}}\n"
            f"targets: [{{name: t0, url: '{target.url}', interval: 0.05, timeout: 2}}]\n"
        )
        return Lookout("serve", "-c", "lookout.yml", cwd=tmp_path)

    return make


def incidents(lookout: Lookout) -> list[tuple[str, str]]:
    return [(i["id"], i["state"]) for i in lookout.status()["incidents"]]


def subjects(mailbox: SmtpServer) -> list[str]:
    return [mail.message["Subject"] for mail in mailbox.messages]


def errors(lookout: Lookout) -> list[str]:
    return [line for line in lookout.log.splitlines() if " ERROR " in line and "INC-" not in line]


def away(lookout: Lookout) -> bool:
    return any(said.startswith(SAID) for said in lookout.status()["complaints"])


def test_it_starts_and_watches_without_mongo_and_judges_once_it_comes(
    target: Target,
    mailbox: SmtpServer,
    mongo: MockDatabase,
    proxy: FlakyProxy,
    watch: Callable[[str], Lookout],
) -> None:
    proxy.refuse()
    target.status = "500 Oops"
    uri = f"mongodb://bob:sesame@127.0.0.1:{proxy.port}/?directConnection=true&authSource=x"
    plain = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
    text = f"mongo: {{uri: {json.dumps(plain)}, database: {mongo.name}}}\n"
    with watch(text.replace(plain, uri)) as lookout:
        until(lambda: away(lookout))
        for path in ("", "api/v1/status", "config/", "ping?verbose=1", "config/?explain=1"):
            assert "sesame" not in lookout.get(path)
        assert "sesame" not in lookout.log
    with watch(text) as lookout:
        until(lambda: lookout.target("t0")["state"] == "down")
        until(lambda: away(lookout))
        probes = lookout.target("t0")["probes"]
        until(lambda: lookout.target("t0")["probes"] >= probes + 20)
        assert incidents(lookout) == []
        assert lookout.get("ping") == "pong"
        report = json.loads(lookout.get("ping?verbose=1"))
        assert (report["status"], report["checks"]["mongo"]["ok"]) == ("ok", False)
        assert re.search(r"^lookout_degraded\{.*\} 1$", lookout.get("metrics"), re.MULTILINE)
        assert len(errors(lookout)) == 1
        assert "MongoDB is away, trying on: " in errors(lookout)[0]

        proxy.accept()
        until(lambda: incidents(lookout) == [("INC-1", "open")])
        mailbox.wait_for(lambda: mailbox.messages, timeout=30)
        until(lambda: not lookout.status()["complaints"])
        assert "MongoDB is back" in lookout.log
        assert lookout.process.stop() == 0
    assert subjects(mailbox) == ["t0 is down (INC-1)"]


def test_who_hears_last_of_an_outage_that_is_over_does_not_begin_another(
    mongo: MockDatabase, proxy: FlakyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
    with closing(Database(MongoSettings(Secret(uri), mongo.name))) as database:
        with database.use():
            proxy.refuse()
            proxy.cut()
        late = database.use()
        late.__enter__()
        with pytest.raises(Away), database.use(1.0) as client:
            client.admin.command("ping")
        assert database.error is not None
        proxy.accept()
        with database.use() as client:
            client.admin.command("ping")
        error = AutoReconnect("late")
        with pytest.raises(Away, match="late"):
            late.__exit__(AutoReconnect, error, None)

        assert database.error is None
        errors = [record for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 1
        with pytest.raises(Away, match="another"), database.use():
            raise AutoReconnect("another")
        assert database.error == "another"


def test_a_server_that_says_no_is_there(
    mongo: MockDatabase, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Away), database.use():
        raise AutoReconnect("away")
    with pytest.raises(Refused, match="no such command"), database.use() as client:
        client.admin.command("lookout")

    assert database.error is None


def test_what_happens_while_mongo_stands_still_is_shown_at_once_and_told_afterwards(
    target: Target, mailbox: SmtpServer, mongo: MockDatabase, watch: Callable[[str], Lookout]
) -> None:
    assert mongo.server is not None
    with watch(section(mongo)) as lookout:
        until(lambda: lookout.status()["judged_by"])
        until(lambda: lookout.target("t0")["state"] == "up")
        mongo.server.pause()
        target.status = "500 Oops"
        until(lambda: incidents(lookout) == [("INC-?", "open")])
        until(lambda: away(lookout))
        asked = time.monotonic()
        for _ in range(20):
            lookout.get()
        assert time.monotonic() - asked < 5  # no page waits for it
        target.status = "200 OK"
        until(lambda: incidents(lookout) == [("INC-?", "closed")])
        target.status = "500 Oops"
        until(lambda: len(incidents(lookout)) == 2)
        assert mailbox.messages == ()
        assert len(errors(lookout)) == 1

        mongo.server.resume()
        until(lambda: sorted(incidents(lookout)) == [("INC-1", "closed"), ("INC-2", "open")])
        mailbox.wait_for(lambda: len(mailbox.messages) == 3, timeout=30)
        until(lambda: not lookout.status()["complaints"])
        assert lookout.process.stop() == 0
    one, two = "t0 is down (INC-1)", "t0 is no longer down (INC-1)"
    assert subjects(mailbox) == [one, two, "t0 is down (INC-2)"]
    assert len({mail.message["Message-ID"] for mail in mailbox.messages}) == 3


def test_a_server_that_is_killed_and_started_again_has_all_that_was_told(
    target: Target, mailbox: SmtpServer, watch: Callable[[str], Lookout]
) -> None:
    with mock_database(alias="durable", durable=True) as mongo:
        assert mongo.server is not None
        with watch(section(mongo)) as lookout:
            until(lambda: lookout.status()["judged_by"])
            target.status = "500 Oops"
            mailbox.wait_for(lambda: mailbox.messages, timeout=30)
            mongo.server.kill()
            target.status = "200 OK"
            until(lambda: incidents(lookout) == [("INC-1", "closed")])
            until(lambda: away(lookout))
            mongo.server.start()
            mailbox.wait_for(lambda: len(mailbox.messages) == 2, timeout=30)
            until(lambda: not mongo.db.outbox.count_documents({}))
            lookout.process.kill()
        with watch(section(mongo)) as lookout:
            until(lambda: incidents(lookout) == [("INC-1", "closed")])
    assert subjects(mailbox) == ["t0 is down (INC-1)", "t0 is no longer down (INC-1)"]


def test_a_kill_while_mongo_is_away_costs_no_incident_and_no_mail(
    target: Target, mailbox: SmtpServer, mongo: MockDatabase, watch: Callable[[str], Lookout]
) -> None:
    assert mongo.server is not None
    with watch(section(mongo)) as lookout:
        until(lambda: lookout.status()["judged_by"])
        mongo.server.pause()
        target.status = "500 Oops"
        until(lambda: incidents(lookout) == [("INC-?", "open")])
        lookout.process.kill()
    mongo.server.resume()
    with watch(section(mongo)) as lookout:
        until(lambda: [state for _, state in incidents(lookout)] == ["open"])
        mailbox.wait_for(lambda: mailbox.messages, timeout=30)
        assert lookout.process.stop() == 0
    assert len(mailbox.messages) == 1


@pytest.mark.parametrize("unsaved", [False, True])
def test_it_ends_in_time_without_mongo_and_says_what_is_not_saved(
    unsaved: bool,
    target: Target,
    mongo: MockDatabase,
    watch: Callable[[str], Lookout],
) -> None:
    assert mongo.server is not None
    with watch(section(mongo)) as lookout:
        until(lambda: lookout.status()["judged_by"])
        mongo.server.pause()
        if unsaved:
            target.status = "500 Oops"
            until(lambda: incidents(lookout) == [("INC-?", "open")])
        asked = time.monotonic()
        lookout.signal(signal.SIGTERM)
        assert lookout.ended() == int(unsaved)
        assert time.monotonic() - asked < 20
        assert ("lookout: the last incidents are not saved: " in lookout.log) is unsaved
