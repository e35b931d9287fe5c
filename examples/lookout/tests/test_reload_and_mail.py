"""The whole service as a child process: other settings while it runs, and mail whatever happens."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.lookout.tests.daemon import Lookout, Target, section, until
from lookout.counters import count
from lookout.service import Service
from lookout.settings import Configuration
from sepelib.gevent.testing import no_green_threads_left
from sepelib.metrics import Registry
from sepelib.mongo import MockDatabase
from sepelib.util.testing import SmtpServer

BASE = """\
service: {state: state}
web: {port: 0, drain_delay: 0}
probes: {interval: 50ms, timeout: 2s}
history: {save_every: 100ms}
"""


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


@pytest.fixture
def configure(tmp_path: Path, mongo: MockDatabase) -> Callable[..., Lookout]:
    """`configure("more: yaml", t0=URL)` writes the file; the lookout is to be entered once."""

    def write(more: str = "", **targets: str) -> Lookout:
        rows = "".join(f"- name: {name}\n  url: {url}\n" for name, url in targets.items())
        (tmp_path / "lookout.yml").write_text(f"{BASE}{section(mongo)}targets:\n{rows}{more}")
        return Lookout("serve", "-c", "lookout.yml", cwd=tmp_path)

    return write


def mail(server: SmtpServer, more: str = "") -> str:
    return (
        f"mail:\n  recipients: [ann@example.org]\n  sender: lookout@example.org\n"
        f"  host: 127.0.0.1\n  port: {server.port}\n{more}"
    )


def ids(server: SmtpServer) -> list[str]:
    return [message.message["Message-ID"] for message in server.messages]


# Other settings


def test_a_hangup_takes_on_targets_rules_and_mail_and_loses_no_history(
    target: Target, server: SmtpServer, configure: Callable[..., Lookout]
) -> None:
    with Target() as other, configure(stays=target.url, goes=other.url) as lookout:
        other.status = "500 Oops"
        until(lambda: lookout.target("goes")["state"] == "down")
        until(lambda: lookout.target("stays")["probes"] >= 3)
        assert lookout.status()["mail"] is None

        configure(mail(server) + "log: {level: ERROR}\n", stays=target.url, comes=target.url)
        lookout.signal(signal.SIGHUP)
        until(lambda: [t["name"] for t in lookout.status()["targets"]] == ["stays", "comes"])
        until(lambda: lookout.target("comes")["state"] == "up")
        assert lookout.target("stays")["probes"] >= 3
        (incident,) = lookout.status()["incidents"]
        assert (incident["target"], incident["closed_because"]) == ("goes", "no longer watched")
        server.wait_for(lambda: len(server.messages) == 1)
        assert server.messages[0].message["Subject"] == "goes is no longer down (INC-1)"

        target.status = "500 Oops"
        server.wait_for(lambda: len(server.messages) == 3, timeout=30)
        until(lambda: "3 mails sent" in lookout.get())
        assert lookout.status()["mail"] == {"sent": 3, "waiting": 0, "given_up": 0}
        assert lookout.process.stop() == 0


def test_a_reload_that_is_wrong_is_one_line_and_shown_until_one_is_right(
    target: Target, configure: Callable[..., Lookout]
) -> None:
    with configure(t0=target.url) as lookout:
        until(lambda: lookout.target("t0")["state"] == "up")
        configure("  timeout: soon\n", t0=target.url)
        lookout.signal(signal.SIGHUP)
        until(lambda: lookout.status()["complaints"])

        said = (
            "lookout.yml:9:12: targets.0.timeout must be seconds, "
            "which says: a time such as 5s, 250ms or 1m30s, more than none"
        )
        (complaint,) = lookout.status()["complaints"]
        assert complaint == f"The configuration was not taken, the one of before stays: {said}"
        assert said in lookout.get()
        (line,) = [line for line in lookout.log.splitlines() if " ERROR " in line]
        assert line.endswith(f"configuration not taken, the one of before stays: {said}")
        probes = lookout.target("t0")["probes"]
        until(lambda: lookout.target("t0")["probes"] > probes)

        configure(t0=target.url, t1=target.url)
        lookout.signal(signal.SIGHUP)
        until(lambda: len(lookout.status()["targets"]) == 2)
        assert lookout.status()["complaints"] == []


def test_what_only_a_restart_can_change_is_named_in_one_warning_and_stays(
    target: Target, configure: Callable[..., Lookout], tmp_path: Path
) -> None:
    with configure(t0=target.url) as lookout:
        configure(t0=target.url, t1=target.url)
        path = tmp_path / "lookout.yml"
        path.write_text(
            path.read_text()
            .replace("port: 0", "port: 1, max_connections: 7")
            .replace("state}", "new, name: other, replica: b}")
            .replace("database: ", "database: x")
            + "log: {json: true}\nzookeeper: {hosts: nowhere.invalid}\n"
        )
        lookout.signal(signal.SIGHUP)
        until(lambda: len(lookout.status()["targets"]) == 2)

        (line,) = [line for line in lookout.log.splitlines() if " WARNING " in line]
        kept = "service.name, service.state, service.replica, mongo, zookeeper, web.port, "
        kept += "web.max_connections, log.json"
        assert f"only a restart changes {kept}; kept as before" in line
        assert lookout.status()["service"] == "lookout"
        assert not (tmp_path / "new").exists()


def test_a_reload_that_comes_after_the_end_starts_nothing_anew(
    target: Target, configure: Callable[..., Lookout], tmp_path: Path
) -> None:
    configure(t0=target.url)
    path = tmp_path / "lookout.yml"
    path.write_text(path.read_text().replace("{state: state}", f"{{state: {tmp_path / 'state'}}}"))
    configuration = Configuration(path)
    with no_green_threads_left():
        with Service(
            configuration.load(), configuration, Registry(), announce=lambda incident: None
        ) as service:
            service.reload()
            assert count(service.counters.taken) == 1
        service.reload()

    assert count(service.counters.taken) == 1


# Mail


def test_a_kill_between_the_incident_and_its_mail_loses_no_mail(
    target: Target, server: SmtpServer, configure: Callable[..., Lookout]
) -> None:
    server.stop()
    target.status = "500 Oops"
    with configure(mail(server), t0=target.url) as lookout:
        until(lambda: "INC-1 opened" in lookout.log)
        until(lambda: lookout.status()["complaints"])
        assert lookout.status()["complaints"][0].startswith("Mail cannot be sent, 1 waiting: ")
        lookout.process.kill()

    server.start()
    with configure(mail(server), t0=target.url) as lookout:
        server.wait_for(lambda: server.messages, timeout=30)
        until(lambda: lookout.status()["mail"]["waiting"] == 0)
        assert [m.message["Subject"] for m in server.messages] == ["t0 is down (INC-1)"]


def test_a_kill_between_the_mail_and_its_answer_repeats_the_same_mail(
    target: Target, server: SmtpServer, configure: Callable[..., Lookout]
) -> None:
    server.say("TEXT", b"")  # the mail is taken, the answer never comes
    target.status = "500 Oops"
    with configure(mail(server), t0=target.url) as lookout:
        server.wait_for(lambda: server.messages, timeout=30)
        lookout.process.kill()

    with configure(mail(server), t0=target.url) as lookout:
        until(lambda: lookout.status()["mail"] == {"sent": 1, "waiting": 0, "given_up": 0})
        first, second = ids(server)
        assert first == second


def test_a_mail_server_that_says_nothing_holds_up_neither_the_watch_nor_the_end(
    target: Target, server: SmtpServer, configure: Callable[..., Lookout]
) -> None:
    server.say("CONNECT", b"", times=None)
    target.status = "500 Oops"
    with configure(mail(server), t0=target.url) as lookout:
        server.wait_for(lambda: server.connections.open, timeout=30)
        probes = lookout.target("t0")["probes"]
        until(lambda: lookout.target("t0")["probes"] >= probes + 5)
        assert server.connections.open  # all the while

        asked = time.monotonic()
        lookout.signal(signal.SIGTERM)
        assert lookout.ended() == 0
        assert time.monotonic() - asked < 6  # the mail alone has ten seconds


def test_a_password_is_in_no_log_even_if_the_mail_server_says_it(
    target: Target, configure: Callable[..., Lookout]
) -> None:
    target.status = "500 Oops"
    with SmtpServer(users={"bob": "hunter22"}) as server:
        server.fail("RCPT", 550, "not with hunter22")
        more = "  user: bob\n  password: !secret hunter22\n"
        with configure(mail(server, more), t0=target.url) as lookout:
            until(lambda: "given up" in lookout.log)
            assert "550 not with ***" in lookout.log
            assert "hunter22" not in lookout.log
