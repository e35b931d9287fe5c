"""The page that /metrics is for people, and what a browser makes of it."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from sepelib.flask.testing import AppProcess, RunningServer
from sepelib.util.testing import missing

pytest_plugins = ["sepelib.flask.pytest_plugin"]

Servers = Callable[..., RunningServer]
LIMIT = 20.0
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HOSTILE = "</span><img src=x onerror=\"document.title='owned'\"><script>alert(1)</script>&amp;"


class Metrics:
    def dump(self, fmt: str) -> tuple[bytes, str]:
        return b"{}", "application/json"


def get(url: str, **options: Any) -> requests.Response:
    return requests.get(url, headers=BROWSER, timeout=LIMIT, **options)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics?fmt=html"])
def test_a_browser_gets_a_page_whose_parts_are_where_it_says(server: Servers, path: str) -> None:
    url = server(metrics=Metrics()).url

    page = get(f"{url}{path}")

    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    parts = re.findall(r'(?:src|href)="([^"?]+)"', page.text)
    assert len(parts) == 3
    for part in parts:
        found = get(requests.compat.urljoin(page.url, part))
        assert found.status_code == 200
        assert found.headers["Content-Type"].startswith(("text/css", "text/java", "image/svg"))
        assert found.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(server: Servers) -> None:
    page = get(f"{server(metrics=Metrics()).url}/metrics")

    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"<script>|<style|\son\w+=|style=|https?:", page.text)
    assert "{base}" not in page.text


def test_the_script_makes_no_markup_of_what_it_is_told(server: Servers) -> None:
    url = server(metrics=Metrics()).url

    script = get(f"{url}/metrics/page.js").text

    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script


@pytest.mark.parametrize(
    "path", ["/metrics/other.js", "/metrics/page.html", "/metrics/../_server.py", "/metrics/%2e%2e",
             "/metrics/_page/page.js", "/metrics/page.js/"]
)  # fmt: skip
def test_nothing_else_is_below_it(server: Servers, path: str) -> None:
    assert get(f"{server(metrics=Metrics()).url}{path}").status_code == 404


def test_the_page_by_head_has_no_body(server: Servers) -> None:
    url = server(metrics=Metrics()).url

    answer = requests.head(f"{url}/metrics", headers=BROWSER, timeout=LIMIT)

    assert answer.text == ""
    assert int(answer.headers["Content-Length"]) == len(get(f"{url}/metrics").content)


# -- In a browser.

SERVICE = """
import gevent, json, time
from sepelib.flask.server import Server
HOSTILE = {hostile!r}

class Exporter:
    asked = 0
    def dump(self, fmt):
        self.asked += 1
        n = self.asked
        if {ending!r} == "fails" and n > 3:
            raise RuntimeError("no more")
        if {ending!r} == "stops" and n > 3:
            gevent.spawn(server.stop)
        window = dict(seconds=60, count=9, mean=0.02, min=0.01, max=0.5, stddev=0.1,
                      quantiles={{"0.5": 0.012, "0.9": 0.05, "0.99": 0.25}})
        metrics = [
            dict(name="requests", kind="counter", help=HOSTILE, unit="", labels=["endpoint"],
                 series=[dict(labels=[HOSTILE], value=n * 30)]),
            dict(name="waits", kind="histogram", help="Waits.", unit="seconds", labels=["queue"],
                 series=[dict(labels=["mail"], count=n * 10, sum=1.5, window=window)]),
            dict(name="memory_bytes", kind="gauge", help="", unit="bytes", labels=[],
                 series=[dict(labels=[], value=64 << 20)]),
            dict(name="jobs", kind="meter", help="", unit="", labels=[],
                 series=[dict(labels=[], count=n, rates={{"1m": 1.5, "5m": 2.5, "15m": 3.5}})]),
            dict(name="odd", kind="gauge", help="", unit="", labels=[],
                 series=[dict(labels=[], value=None)]),
        ]
        answer = dict(time=time.time(), labels={{}}, metrics=metrics)
        return json.dumps(answer).encode(), "application/json"

server = Server(metrics=Exporter(), drain_delay=0)
"""


def looked_at(folder: Path, ending: str = "", fragment: str = "") -> str:
    """What the page is after half a minute in a browser: its text, tags and all."""
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("Chromium", "chromium")
    with AppProcess(SERVICE.format(hostile=HOSTILE, ending=ending)) as app:
        done = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
             f"--user-data-dir={folder}", "--virtual-time-budget=30000",
             f"{app.url}/metrics{fragment}"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def words(dom: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", dom)).replace("\u202f", " ").split())


@pytest.mark.slow
def test_a_browser_draws_what_the_server_tells_and_escapes_it(tmp_path: Path) -> None:
    dom = looked_at(tmp_path)

    text = words(dom)
    assert HOSTILE in html.unescape(dom.replace("<b>", "").replace("</b>", ""))
    assert "<img" not in dom and "<script>" not in dom and "owned" not in dom.partition("<body")[0]
    assert 'data-state="live"' in dom
    assert "5 series" in text
    assert "p50 12 ms p99 250 ms mean 20 ms max 500 ms" in text
    assert "value 64 MiB" in text
    assert "1m 1.5/s 5m 2.5/s 15m 3.5/s" in text
    assert re.search(r"rate [\d.]+/s", text)
    assert len(re.findall(r'<path[^>]* d="M', dom)) >= 4


@pytest.mark.slow
def test_a_browser_filters_by_what_the_address_says(tmp_path: Path) -> None:
    text = words(looked_at(tmp_path, fragment="#waits%20queue%3Dmail"))

    assert "1 of 5 series" in text
    assert "memory_bytes" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "says"), [("fails", "the server says 500"), ("stops", "the server is gone")]
)
def test_a_browser_says_when_there_is_no_answer_and_keeps_what_it_had(
    tmp_path: Path, ending: str, says: str
) -> None:
    dom = looked_at(tmp_path, ending=ending)

    assert 'data-state="gone"' in dom
    assert f"{says}; these values are" in words(dom)
    assert "value 64 MiB" in words(dom)


def test_the_answer_of_the_service_is_json() -> None:
    # What the browser's tests stand on.
    with AppProcess(SERVICE.format(hostile=HOSTILE, ending="")) as app:
        found = json.loads(requests.get(f"{app.url}/metrics?fmt=json", timeout=LIMIT).content)
    assert found["metrics"][0]["name"] == "requests"
