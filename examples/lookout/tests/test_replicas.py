"""Replicas as child processes on one database: who judges, and what a death costs."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.lookout.tests.daemon import Target, until
from lookout.replicas import Replica, Replicas
from lookout.settings import MongoSettings
from lookout.shares import sharers
from sepelib.mongo import MockDatabase
from sepelib.util.secrets import Secret
from sepelib.util.testing import SmtpServer
from sepelib.zookeeper.testing import Zookeeper

METRICS = "metrics?fmt=prometheus"

pytestmark = pytest.mark.slow  # three interpreters a test


@pytest.fixture
def mailbox() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


@pytest.fixture
def three(
    target: Target,
    mailbox: SmtpServer,
    zookeeper: Zookeeper,
    mongo: MockDatabase,
    tmp_path: Path,
) -> Callable[..., Replicas]:
    """`three()`: replicas that probe the target ten times a second, not started."""

    def make(session_timeout: str = "2s", targets: int = 1) -> Replicas:
        values = {
            "zookeeper": zookeeper.hosts,
            "session_timeout": session_timeout,
            "state": str(tmp_path / "state"),
            "save_every": "200ms",
            "drain_delay": 0,
            "mail_port": mailbox.port,
            "recipients": ["ann@example.org"],
            "targets": [
                {"name": f"t{n}", "url": target.url, "interval": 0.1 * targets, "timeout": 2}
                for n in range(targets)
            ],
        }
        return Replicas(3, values, MongoSettings(Secret(mongo.uri), mongo.name))

    return make


def status(replica: Replica) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(replica.get("api/v1/status"))
    return status


def judge_among(replicas: list[Replica]) -> Replica:
    """The one of them that judges, once there is one."""
    found: list[Replica] = []

    def look() -> bool:
        found[:] = [replica for replica in replicas if status(replica)["judge"]["here"]]
        return len(found) == 1

    until(look)
    return found[0]


def standing(replica: Replica) -> str:
    return str(status(replica)["targets"][0]["state"])


def incidents(replica: Replica) -> list[tuple[str, str]]:
    return [(i["id"], i["state"]) for i in status(replica)["incidents"]]


def cluster(replica: Replica) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(replica.get("api/v1/cluster"))
    return found


def probed_by(replica: Replica) -> dict[str, set[str]]:
    """Whose results of each target are listened to there."""
    return {
        target["name"]: {each["name"] for each in target["replicas"] if each["is_fresh"]}
        for target in status(replica)["targets"]
    }


def probes(replica: Replica) -> dict[str, float]:
    """How many of each target it has made."""
    row = re.compile(r'^lookout_probes_total\{.*target="(\w+)".*\} (\S+)', re.MULTILINE)
    found = row.findall(replica.get(METRICS))
    made = dict[str, float]()
    for name, number in found:
        made[name] = made.get(name, 0) + float(number)
    return made


def ids(mailbox: SmtpServer) -> list[str]:
    return [mail.message["Message-ID"] for mail in mailbox.messages]


def test_an_outage_that_three_replicas_see_is_one_incident_and_one_mail(
    target: Target, mailbox: SmtpServer, three: Callable[..., Replicas]
) -> None:
    with three() as replicas:
        judge = judge_among(replicas.all)
        target.status = "500 Oops"
        until(lambda: {standing(replica) for replica in replicas} == {"down"})
        mailbox.wait_for(lambda: mailbox.messages, timeout=30)
        until(lambda: all(incidents(replica) == [("INC-1", "open")] for replica in replicas))

        target.status = "200 OK"
        until(lambda: {standing(replica) for replica in replicas} == {"up"})
        mailbox.wait_for(lambda: len(mailbox.messages) == 2, timeout=30)
        until(lambda: all(incidents(replica) == [("INC-1", "closed")] for replica in replicas))
        until(lambda: status(judge)["mail"] == {"sent": 2, "waiting": 0, "given_up": 0})
        assert replicas.stop() == []

    assert [mail.message["Subject"] for mail in mailbox.messages] == [
        "t0 is down (INC-1)",
        "t0 is no longer down (INC-1)",
    ]


def test_an_outage_that_begins_when_the_judge_is_killed_is_one_incident_and_one_mail(
    target: Target, mailbox: SmtpServer, three: Callable[..., Replicas]
) -> None:
    with three() as replicas:
        judge = judge_among(replicas.all)
        judge.process.kill()
        target.status = "500 Oops"
        rest = [replica for replica in replicas if replica is not judge]
        until(lambda: {standing(replica) for replica in rest} == {"down"})
        judge_among(rest)
        mailbox.wait_for(lambda: mailbox.messages, timeout=30)
        until(lambda: all(incidents(replica) == [("INC-1", "open")] for replica in rest))

        assert judge.start() is None  # it comes back and finds the incident of another
        until(lambda: standing(judge) == "down")
        until(lambda: incidents(judge) == [("INC-1", "open")])
        assert replicas.stop() == []

    assert [mail.message["Subject"] for mail in mailbox.messages] == ["t0 is down (INC-1)"]


@pytest.mark.parametrize(("stage", "mails"), [("CONNECT", 1), ("TEXT", 2)])
def test_a_judge_killed_before_or_after_its_mail_leaves_one_incident_and_one_message_id(
    stage: Any, mails: int, target: Target, mailbox: SmtpServer, three: Callable[..., Replicas]
) -> None:
    mailbox.say(stage, b"")  # no greeting; or the mail is taken and nobody can know that
    with three() as replicas:
        judge = judge_among(replicas.all)
        target.status = "500 Oops"
        mailbox.wait_for(lambda: mailbox.messages or stage == "CONNECT", timeout=30)
        mailbox.wait_for(lambda: mailbox.connections.open, timeout=30)
        judge.process.kill()

        rest = [replica for replica in replicas if replica is not judge]
        mailbox.wait_for(lambda: len(mailbox.messages) == mails, timeout=30)
        heir = judge_among(rest)
        until(lambda: status(heir)["mail"] == {"sent": 1, "waiting": 0, "given_up": 0})
        assert all(incidents(replica) == [("INC-1", "open")] for replica in rest)
        assert replicas.stop() != []  # of the killed one

    assert len(ids(mailbox)) == mails
    assert len(set(ids(mailbox))) == 1


def test_a_judge_that_is_told_to_end_hands_over_long_before_its_session_is_over(
    target: Target, mailbox: SmtpServer, three: Callable[..., Replicas]
) -> None:
    # Nobody could judge within a minute were the lock not given back.
    with three(session_timeout="60s") as replicas:
        judge = judge_among(replicas.all)
        target.status = "500 Oops"
        mailbox.wait_for(lambda: mailbox.messages, timeout=30)

        assert judge.stop() is None
        heir = judge_among([replica for replica in replicas if replica is not judge])
        until(lambda: len(cluster(heir)["replicas"]) == 2)
        assert judge.name not in cluster(heir)["shares"]["t0"]
        target.status = "200 OK"
        mailbox.wait_for(lambda: len(mailbox.messages) == 2, timeout=30)
        assert incidents(heir) == [("INC-1", "closed")]
        assert replicas.stop() == []

    assert len(set(ids(mailbox))) == 2


def test_the_share_of_a_killed_replica_moves_within_its_session_and_comes_back_with_it(
    target: Target, mailbox: SmtpServer, three: Callable[..., Replicas]
) -> None:
    with three(targets=6) as replicas:
        judge = judge_among(replicas.all)
        shares = {f"t{n}": set(sharers(f"t{n}", ["r1", "r2", "r3"], 2)) for n in range(6)}
        until(lambda: all(probed_by(replica) == shares for replica in replicas))
        assert {name: set(of) for name, of in cluster(judge)["shares"].items()} == shares
        assert cluster(judge)["judge"] == judge.name
        assert {each["name"]: each["url"] for each in cluster(judge)["replicas"]} == {
            replica.name: replica.url for replica in replicas
        }
        mine = re.findall(r"^lookout_share_targets\{.*\} (\S+)", judge.get(METRICS), re.MULTILINE)
        assert [float(n) for n in mine] == [sum(judge.name in of for of in shares.values())]
        assert 0 < float(mine[0]) < 6
        before = probes(judge)
        shared = [name for name, of in shares.items() if judge.name in of]
        until(lambda: all(probes(judge)[name] > before.get(name, 0) + 3 for name in shared))
        others = set(shares).difference(shared)
        assert all(probes(judge).get(name, 0) == before.get(name, 0) for name in others)

        rest = [replica for replica in replicas if replica is not judge]
        killed = time.monotonic()
        judge.process.kill()
        both = {replica.name for replica in rest}
        until(lambda: all(all(of == both for of in probed_by(one).values()) for one in rest))
        # Its session, one interval, and as much for a machine that is busy.
        assert time.monotonic() - killed < 2 * (2.0 + 0.6)
        assert cluster(rest[0])["is_current"]

        assert judge.start() is None
        until(lambda: all(probed_by(replica) == shares for replica in replicas))
        target.status = "500 Oops"
        until(lambda: len(incidents(judge)) == 6)
        assert {state for _, state in incidents(judge)} == {"open"}  # none for those that were well
        assert replicas.stop() == []


def test_a_rolling_restart_keeps_an_open_incident(
    target: Target, mailbox: SmtpServer, three: Callable[..., Replicas]
) -> None:
    with three() as replicas:
        judge_among(replicas.all)
        target.status = "500 Oops"
        mailbox.wait_for(lambda: mailbox.messages, timeout=30)
        for replica in replicas:
            assert replica.stop() is None
            assert replica.start() is None
        judge_among(replicas.all)
        assert all(incidents(replica) == [("INC-1", "open")] for replica in replicas)

        target.status = "200 OK"
        until(lambda: all(incidents(replica) == [("INC-1", "closed")] for replica in replicas))
        mailbox.wait_for(lambda: len(mailbox.messages) == 2, timeout=30)
        assert replicas.stop() == []

    assert len(set(ids(mailbox))) == 2
