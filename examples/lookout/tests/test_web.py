"""What is answered: the page and the JSON by the application, all else by the server."""

import base64
import hashlib
import json
import logging
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from examples.lookout.tests.daemon import Lookout, until
from examples.lookout.tests.daemon import Target as Upstream
from examples.lookout.tests.test_service import ask
from lookout.cli import main
from lookout.judge import Rules
from lookout.ledger import Ledger
from lookout.logs import JsonLines
from lookout.records import History, Result
from lookout.silences import Silence
from lookout.targets import Target
from lookout.voices import Voices
from lookout.web import make_app
from sepelib.core.config import Config, RedactingFilter
from sepelib.metrics.testing import parse_yasm
from sepelib.util import request_id
from sepelib.util.testing import SmtpServer

PATHS = ["/", "/api/v1/status"]
GOOD = Result(datetime.now(UTC) - timedelta(minutes=9), 0.1, 200)
BAD = Result(datetime.now(UTC) - timedelta(minutes=5), 0.1, None, "connection refused")


class App:
    """The application over a history with one target."""

    def __init__(self) -> None:
        self.history = History()
        self.ledger = Ledger()
        self.silences: list[Silence] = []
        self.uptime = 0.0
        self.history.add("shop", GOOD, Rules())

    @property
    def client(self) -> FlaskClient:
        app = make_app(
            lambda: [Target("shop", "http://shop/")],
            Voices(self.history, "r1", lambda target: ("r1",)),
            lambda: self.ledger,
            self.health,
            lambda: None,
            silences=lambda: self.silences,
            origins=lambda: {"shop": "svn"},
        )
        return app.test_client()

    def fail(self) -> None:
        rules = Rules(confirm=1)
        self.history.add("shop", BAD, rules)
        self.ledger.judge_target("shop", [self.history.record("shop")], rules)

    def health(self) -> dict[str, object]:
        self.uptime += 1
        return {"service": "x", "version": "1", "uptime": self.uptime, "complaints": []}


# The application


@pytest.mark.parametrize("path", PATHS)
def test_what_a_client_has_is_not_sent_again_until_something_has_happened(path: str) -> None:
    app = App()
    first = app.client.get(path)
    assert first.headers["Cache-Control"] == "no-cache"  # kept, but asked for each time

    tag = first.headers["ETag"]
    again = app.client.get(path, headers={"If-None-Match": tag})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
    app.fail()
    news = app.client.get(path, headers={"If-None-Match": tag})
    assert news.status_code == 200
    assert b"connection refused" in news.data


def test_a_silence_is_news_and_what_was_typed_into_it_is_no_part_of_the_page() -> None:
    app = App()
    tags = {path: app.client.get(path).headers["ETag"] for path in PATHS}
    app.silences = [
        Silence(
            "SIL-1",
            *(frozenset({"shop"}), frozenset({"web"}), datetime.now(UTC) + timedelta(hours=1)),
            *("<i>ann</i>", "new <b>disks</b>", datetime.now(UTC)),
        )
    ]
    for path, tag in tags.items():
        assert app.client.get(path, headers={"If-None-Match": tag}).status_code == 200

    page = app.client.get("/").text
    assert page.count("by &lt;i&gt;ann&lt;/i&gt;: new &lt;b&gt;disks&lt;/b&gt;") == 1
    assert "<td>SIL-1</td>" in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_the_clock_alone_is_no_news_while_an_incident_is_open() -> None:
    app = App()
    app.fail()
    first = app.client.get("/api/v1/status")
    until(lambda: app.client.get("/api/v1/status").data != first.data)

    tag = first.headers["ETag"]
    assert tag.startswith("W/")  # two answers with it differ in what the clock has moved
    assert app.client.get("/api/v1/status", headers={"If-None-Match": tag}).status_code == 304


def test_the_one_script_of_the_page_is_the_one_that_may_run() -> None:
    page = App().client.get("/")

    (script,) = re.findall(r"<script[^>]*>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.headers["Content-Security-Policy"]


def test_what_is_not_there_is_a_problem_for_programs_and_a_page_for_people() -> None:
    client = App().client

    for_programs = client.get("/api/v1/nothing")
    assert (for_programs.status_code, for_programs.mimetype) == (404, "application/problem+json")
    assert json.loads(for_programs.data)["code"] == "not_found"
    for_people = client.get("/nothing", headers={"Accept": "text/html"})
    assert (for_people.status_code, for_people.mimetype) == (404, "text/html")


def test_the_only_replica_has_no_cluster() -> None:
    answer = App().client.get("/api/v1/cluster")

    assert (answer.status_code, "no zookeeper is configured" in answer.text) == (404, True)


# The server


def test_metrics_tell_of_probes_incidents_the_process_and_its_hub(
    target: Upstream, serve: Callable[..., Lookout]
) -> None:
    target.status = "500 Oops"
    with serve(target.url) as lookout:
        until(lambda: "INC-1 opened" in lookout.log)
        assert 'href="/metrics"' in lookout.get()
        found = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(lookout.get("metrics?fmt=prometheus"))
            for sample in family.samples
        }
        yasm = parse_yasm(lookout.get("yasm_stats").encode())

    def value(name: str, **labels: str) -> float:
        return found[name, *sorted({"service": "lookout", **labels}.items())]

    probes = value("lookout_probes_total", target="t0", result="failed")
    assert probes >= 2
    assert value("lookout_probe_seconds_count", target="t0") == probes
    assert value("lookout_incidents_total", event="opened") == 1
    assert value("lookout_targets", state="down") == 1
    assert value("lookout_targets", state="up") == 0
    labels = {"session": "probe", "endpoint": "t0", "method": "GET", "status": "5xx"}
    assert value("http_client_requests_total", **labels) == probes
    assert value("gevent_greenlets") >= 1
    assert value("process_resident_memory_bytes") > 1 << 20
    assert any("lookout_probes" in signal.name for signal in yasm)


def test_ping_says_pong_whatever_fails_and_tells_of_it_to_who_asks(
    target: Upstream, serve: Callable[..., Lookout], tmp_path: Path
) -> None:
    target.status = "500 Oops"
    with SmtpServer() as gone:
        port = gone.port
    mail = f"mail: {{recipients: [a@b], sender: x@y, host: 127.0.0.1, port: {port}}}\n"
    with serve(target.url, more=mail) as lookout:

        def wrong() -> dict[str, str]:
            report = json.loads(lookout.get("ping?verbose=1"))
            assert report["status"] == "ok"
            return {name: c["problem"] for name, c in report["checks"].items() if not c["ok"]}

        # In its first moments it is not yet connected to MongoDB, and says so.
        until(lambda: list(wrong()) == ["mail can be sent"])
        (tmp_path / "lookout.yml").write_text("web: {prot: 1}\n")
        lookout.signal(signal.SIGHUP)
        (tmp_path / "state").rename(tmp_path / "elsewhere")
        until(lambda: len(wrong()) == 3)

        said = wrong()
        assert "lookout.yml:1:" in said["configuration taken"]
        assert "No such file or directory" in said["history can be saved"]
        assert "Connection refused" in said["mail can be sent"]
        assert lookout.get("ping") == "pong"
        assert 'result="refused"} 1' in lookout.get("metrics?fmt=prometheus")


def test_the_configuration_is_shown_to_admins_only_and_without_secrets(
    target: Upstream, serve: Callable[..., Lookout]
) -> None:
    with serve(target.url, more="svn: {password: sesame}\n") as lookout:
        shown = lookout.get("config/?explain=1")
        assert "lookout.yml:" in shown
        assert "sesame" not in shown
        assert json.loads(lookout.get("version?fmt=json"))["version"] == "0.1.0"
        # Whoever some proxy on this host has let in is no admin.
        forwarded = urllib.request.Request(lookout.url + "config/", headers={"Via": "1.1 proxy"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(forwarded, timeout=10)


def test_what_the_configuration_says_of_the_server_counts(
    target: Upstream, serve: Callable[..., Lookout]
) -> None:
    web = "header_timeout: 100ms, access_log: json, admin: {networks: [10.0.0.0/8]}"
    with serve(target.url, web=f"{web}, drain_delay: 0") as lookout:
        assert ask(lookout.url + "config/")[0] == 403
        host, port = re.findall(r"//(.*):(\d+)/", lookout.url)[0]
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
            assert slow.recv(65536).startswith(b"HTTP/1.1 408 ")
        lookout.get("api/v1/status?token=t0ken")
        until(lambda: '"target": "/api/v1/status?token=***"' in lookout.log)


# The log


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_log_file_that_was_renamed_is_opened_anew_by_a_signal_and_by_a_request(
    target: Upstream, serve: Callable[..., Lookout], tmp_path: Path
) -> None:
    path, old, older = (tmp_path / f"{name}.log" for name in ("now", "old", "older"))
    configured = f"log: {{file: {path}, json: true}}\n"
    with serve(target.url, more=configured, log_file=path) as lookout:
        path.rename(older)
        lookout.signal(signal.SIGUSR1)
        until(path.exists)
        target.status = "500 Oops"
        until(lambda: "INC-1 opened" in path.read_text())
        path.rename(old)
        request = urllib.request.Request(lookout.url + "reopen_log", method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer) == {"reopened": [str(path)], "failed": {}}
        target.status = "200 OK"
        until(lambda: "INC-1 closed" in path.read_text())
        assert lookout.process.stop() == 0

    lines = [json.loads(line) for file in (older, old, path) for line in lines_of(file)]
    assert lines[0]["level"] == "INFO"
    said = [(x["level"], x["logger"]) for x in lines if x["message"].startswith("INC-1")]
    assert said == [("ERROR", "lookout"), ("INFO", "lookout")]
    assert "INC-1" not in older.read_text()


def test_a_line_of_json_holds_a_traceback_and_the_id_of_the_request_and_no_secret(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.yml").write_text("password: sesame\n")
    redacting = RedactingFilter(Config().load(tmp_path / "x.yml"))
    try:
        raise ValueError("not with\nsesame")
    except ValueError:
        args = "lookout", logging.ERROR, __file__, 1, "%s failed", ("it",), sys.exc_info()
        record = logging.LogRecord(*args)
    with request_id.using("abc"):
        request_id.add_to_record(record)
    redacting.filter(record)

    (line,) = JsonLines().format(record).splitlines()
    said = json.loads(line)
    assert (said["level"], said["message"], said["request_id"]) == ("ERROR", "it failed", "abc")
    assert said["traceback"].endswith("ValueError: not with\n***")


def test_a_log_file_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lookout.yml").write_text(
        "service: {state: state}\nlog: {file: nowhere/x.log}\nmongo: {uri: 'mongodb://h/'}\n"
        "targets: [{name: a, url: 'http://a/'}]\n"
    )

    assert main(["serve", "-c", "lookout.yml"]) == 1

    said = "the log cannot be written to nowhere/x.log: No such file or directory"
    assert capsys.readouterr().err == f"lookout: {said}\n"
    assert not Path("state").exists()
