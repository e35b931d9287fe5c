"""sepelib.flask.server shows what sepelib.metrics counts: the two know each other by shape only."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from sepelib.flask.server import Exporter
from sepelib.flask.testing import AppProcess
from sepelib.metrics import Registry
from sepelib.util.testing import missing

LIMIT = 20.0
REQUESTS = 7

SERVICE = """
import flask
from sepelib import metrics
from sepelib.flask.server import Server
from sepelib.util import instrument

instrument.install(metrics.default_registry)
app = flask.Flask("service")
jobs = metrics.meter("jobs", "Jobs done.", labels=("queue",))

@app.get("/users/<name>")
def user(name):
    jobs.labels(name).mark()
    return name

server = Server(app, metrics=metrics.default_registry, drain_delay=0)
"""


@pytest.fixture(scope="module")
def app() -> Iterator[AppProcess]:
    with AppProcess(SERVICE) as app:
        for _ in range(REQUESTS):
            assert requests.get(f"{app.url}/users/ann", timeout=LIMIT).text == "ann"
        yield app


def dump(app: AppProcess, fmt: str) -> requests.Response:
    answer = requests.get(f"{app.url}/metrics?fmt={fmt}", timeout=LIMIT)
    assert answer.status_code == 200
    return answer


def test_a_registry_is_an_exporter() -> None:
    exporter: Exporter = Registry()
    for fmt in ("prometheus", "openmetrics", "json", "yaml", "yasm"):
        body, content_type = exporter.dump(fmt)
        assert isinstance(body, bytes) and "/" in content_type


@pytest.mark.parametrize("fmt", ["prometheus", "openmetrics"])
def test_the_reference_parser_finds_the_requests_by_rule(app: AppProcess, fmt: str) -> None:
    parse = {"prometheus": prometheus, "openmetrics": openmetrics}[fmt]
    samples = [sample for family in parse(dump(app, fmt).text) for sample in family.samples]

    wanted = {"endpoint": "/users/<name>", "method": "GET", "status": "200"}
    (found,) = [s for s in samples if s.name == "http_server_requests_total" and s.labels == wanted]
    assert found.value == REQUESTS
    (count,) = [
        s
        for s in samples
        if s.name == "http_server_seconds_count" and s.labels == {"endpoint": "/users/<name>"}
    ]
    assert count.value == REQUESTS
    (in_flight,) = [s for s in samples if s.name == "http_server_in_flight"]
    assert in_flight.value == 0


def test_a_scraper_gets_by_its_header_what_it_says(app: AppProcess) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = requests.get(f"{app.url}/metrics", headers={"Accept": accept}, timeout=LIMIT)

    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_yasm_stats_are_pairs_of_names_and_values(app: AppProcess) -> None:
    stats = requests.get(f"{app.url}/yasm_stats", timeout=LIMIT).json()

    names = [name for name, _ in stats]
    assert any("http_server_requests" in name for name in names)


def test_the_json_has_what_the_page_reads(app: AppProcess) -> None:
    found = {metric["name"]: metric for metric in dump(app, "json").json()["metrics"]}

    seconds = found["http_server_seconds"]
    assert (seconds["kind"], seconds["unit"], seconds["labels"]) == (
        "histogram",
        "seconds",
        ["endpoint"],
    )
    (series,) = [s for s in seconds["series"] if s["labels"] == ["/users/<name>"]]
    assert series["count"] == REQUESTS
    assert {"0.5", "0.99"} <= set(series["window"]["quantiles"])
    assert {"mean", "max"} <= set(series["window"])
    (jobs,) = found["jobs"]["series"]
    assert jobs["count"] == REQUESTS and set(jobs["rates"]) == {"1m", "5m", "15m"}
    assert found["http_server_in_flight"]["series"] == [{"labels": [], "value": 0}]


@pytest.mark.slow
def test_a_browser_shows_them(app: AppProcess, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("Chromium", "chromium")
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", f"{app.url}/metrics"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    text = " ".join(re.sub(r"<[^>]*>", " ", done.stdout.replace("<wbr>", "")).split())
    assert "http_server_seconds histogram, seconds" in text
    assert re.search(r"endpoint= /users/&lt;name&gt;", text)
    assert re.search(r"p50 [\d.]+\s(µs|ms) p99 [\d.]+\s(µs|ms)", text)
    assert 'data-state="live"' in done.stdout
