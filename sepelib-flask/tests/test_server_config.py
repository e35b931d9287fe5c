"""/config/: what a service runs with, masked, and only for admins."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from sepelib.core.config import Config
from sepelib.flask.server import AdminOptions, ConfigSource
from sepelib.flask.testing import RunningServer, SlowClient

pytest_plugins = ["sepelib.flask.pytest_plugin"]

Servers = Callable[..., RunningServer]
LIMIT = 20.0
TEXT = """\
service: {name: demo, tags: [a, b]}
web:
  http: {host: 127.0.0.1, port: 8080}
database:
  url: mongodb://user:hunter2hunter2@db/x
  password: swordfish1
empty: {}
marked: !secret swordfish2
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "cfg.yml").write_text(TEXT)
    return Config().load(tmp_path / "cfg.yml")


def get(url: str, **options: Any) -> requests.Response:
    return requests.get(url, timeout=LIMIT, **options)


def test_a_config_is_a_source(config: Config) -> None:
    source: ConfigSource = config
    assert source.dump(mask=True)


def test_it_is_shown_as_yaml_and_as_json(server: Servers, config: Config) -> None:
    url = server(config=config).url

    assert get(f"{url}/config/").text == config.dump(fmt="yaml")
    assert get(f"{url}/config").text == config.dump(fmt="yaml")
    assert get(f"{url}/config/?fmt=json").json() == config.to_dict()
    by_header = get(f"{url}/config/", headers={"Accept": "application/json"})
    assert by_header.json() == config.to_dict()
    assert get(f"{url}/config/?fmt=toml").status_code == 400


@pytest.mark.parametrize("query", ["", "?fmt=json", "?explain=1", "?explain=1&fmt=json"])
@pytest.mark.parametrize("path", ["", "database", "database/password", "database/url", "marked"])
def test_secrets_are_masked_everywhere(
    server: Servers, config: Config, path: str, query: str
) -> None:
    answer = get(f"{server(config=config).url}/config/{path}{query}")

    assert answer.status_code == 200
    for secret in ("hunter2", "swordfish"):
        assert secret not in answer.text
    assert "***" in answer.text


def test_a_part_is_shown_by_its_path(server: Servers, config: Config) -> None:
    url = server(config=config).url

    assert get(f"{url}/config/web/http/port").text == "8080\n...\n"
    assert get(f"{url}/config/web/http/port?fmt=json").json() == 8080
    assert get(f"{url}/config/web/http/?fmt=json").json() == {"host": "127.0.0.1", "port": 8080}
    assert get(f"{url}/config/service/tags/1?fmt=json").json() == "b"


@pytest.mark.parametrize(
    "path",
    ["nothing", "web/nothing", "web/http/port/deeper", "service/tags/2", "service/tags/-1",
     "service/tags/x", "..%2f..%2fetc%2fpasswd", "%00", "web//http", "service/tags/99999999999"],
)  # fmt: skip
def test_what_is_not_there_is_a_404(server: Servers, config: Config, path: str) -> None:
    answer = get(f"{server(config=config).url}/config/{path}", headers={"Accept": "text/html"})

    assert answer.status_code == 404


def test_the_page_of_a_404_escapes_what_was_asked(server: Servers, config: Config) -> None:
    with SlowClient(server(config=config).address) as client:
        answer = client.get("/config/<script>alert(1)</script>", "Accept: text/html")

    assert answer.status == 404
    assert b"<script>" not in answer.body
    assert b"&lt;script&gt;" in answer.body


def test_explain_says_where_each_value_was_written(server: Servers, config: Config) -> None:
    url = server(config=config).url

    text = get(f"{url}/config/?explain=1").text
    assert "web.http.port: 8080  # " in text
    (line,) = [line for line in text.splitlines() if line.startswith("web.http.port")]
    assert "cfg.yml:3:" in line and line.endswith("(default)")

    found = get(f"{url}/config/web?explain=1&fmt=json").json()
    assert set(found) == {"web.http.host", "web.http.port"}
    assert found["web.http.port"]["value"] == 8080
    assert found["web.http.port"]["layer"] == "default"
    assert ":3:" in found["web.http.port"]["origin"]


def test_a_source_that_can_only_dump_is_enough(server: Servers) -> None:
    class Source:
        def dump(self, *, mask: bool = True, fmt: str = "yaml") -> str:
            assert mask
            return json.dumps({"a": {"b": 1}})

    url = server(config=Source()).url

    assert get(f"{url}/config/a/b?fmt=json").json() == 1
    assert get(f"{url}/config/?explain=1").status_code == 404


def test_what_is_not_loaded_yet_is_a_404_that_says_so(server: Servers) -> None:
    answer = get(f"{server(config=Config()).url}/config/")

    assert answer.status_code == 404
    assert "no configuration is loaded" in answer.json()["detail"]


def test_strangers_do_not_see_it(server: Servers, config: Config) -> None:
    url = server(config=config, admin=AdminOptions(networks=["192.0.2.0/24"])).url

    for path in ("/config/", "/config/web", "/config/nothing"):
        answer = get(f"{url}{path}")
        assert answer.status_code == 403
        assert "8080" not in answer.text
