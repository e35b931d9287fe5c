"""A server made of a section of the configuration."""

from pathlib import Path
from typing import Any

import gevent
import pytest
import trustme

from sepelib.core.config import Config, ConfigError
from sepelib.flask.server import AccessLog, AdminOptions, Limits, Server
from sepelib.flask.server._from_config import options_from

LIMIT = 20.0


def config(tmp_path: Path, text: str) -> Config:
    (tmp_path / "cfg.yml").write_text(text)
    return Config().load(tmp_path / "cfg.yml")


def options(tmp_path: Path, section: str) -> dict[str, Any]:
    return options_from(config(tmp_path, f"web:\n  http: {section}\n"), "web.http")


def refused(tmp_path: Path, section: str) -> str:
    with pytest.raises(ConfigError) as caught:
        options(tmp_path, section)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_values_have_units(tmp_path: Path) -> None:
    section = (
        "{host: 0.0.0.0, port: 8080, max_connections: 10, drain_delay: 500ms, stop_timeout: 1m, "
        "request_timeout: null, idle_timeout: 15s, max_body_bytes: 1MiB, min_rate: 0.5, "
        "access_log: json, trusted_proxies: [10.0.0.0/8], unix_mode: '0600', "
        "admin: {networks: [127.0.0.1], port: 0}}"
    )

    found = options(tmp_path, section)

    assert isinstance(found.pop("access_log"), AccessLog)
    assert found == {
        "host": "0.0.0.0",
        "port": 8080,
        "drain_delay": 0.5,
        "stop_timeout": 60.0,
        "request_timeout": None,
        "trusted_proxies": ["10.0.0.0/8"],
        "unix_mode": 0o600,
        "limits": Limits(
            max_connections=10, idle_timeout=15.0, max_body_bytes=1 << 20, min_rate=0.5
        ),
        "admin": AdminOptions(networks=["127.0.0.1"], port=0),
    }


def test_every_limit_can_be_set(tmp_path: Path) -> None:
    from dataclasses import fields

    section = ", ".join(f"{field.name}: 7" for field in fields(Limits))

    limits = options(tmp_path, f"{{{section}}}")["limits"]

    assert {getattr(limits, field.name) for field in fields(Limits)} == {7}


def test_an_unknown_name_is_told_with_its_place_and_a_guess(tmp_path: Path) -> None:
    text = refused(tmp_path, "{host: 127.0.0.1, max_conections: 5}")

    assert "cfg.yml:2:" in text
    assert "web.http.max_conections is not known; did you mean 'max_connections'?" in text


def test_a_name_like_no_other_is_told_which_there_are(tmp_path: Path) -> None:
    assert "there is networks, host, port, unix, unix_mode" in refused(
        tmp_path, "{admin: {zzzzz: 1}}"
    )


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{port: '80'}", "web.http.port does not fit: must be a whole number"),
        ("{port: 70000}", "web.http.port does not fit: a port is 0 to 65535"),
        ("{port: true}", "web.http.port does not fit: must be a whole number"),
        ("{host: 5}", "web.http.host does not fit: must be a text"),
        ("{drain_delay: soon}", "web.http.drain_delay does not fit: not a duration: 'soon'"),
        ("{idle_timeout: -1}", "web.http.idle_timeout does not fit"),
        ("{max_body_bytes: 5MB5}", "web.http.max_body_bytes does not fit: not a size"),
        ("{host: ''}", "web.http.host does not fit: must not be empty; 0.0.0.0 is all"),
        ("{request_timeout: 0}", "web.http.request_timeout does not fit: must be more than 0"),
        ("{max_connections: 0}", "web.http.max_connections does not fit: max_connections is fin"),
        ("{min_rate: .nan}", "web.http.min_rate does not fit: min_rate is finite"),
        ("{min_rate: .inf}", "web.http.min_rate does not fit: min_rate is finite"),
        ("{admin: {port: 1, unix: x}}", "web.http.admin does not fit: admins have a port or a"),
        ("{max_headers: null}", "web.http.max_headers does not fit"),
        ("{access_log: apache}", "web.http.access_log does not fit"),
        ("{trusted_proxies: 10.0.0.0/8}", "must be a list of networks"),
        ("{trusted_proxies: [10.0.0.0/99]}", "web.http.trusted_proxies does not fit"),
        ("{unix_mode: '999'}", "web.http.unix_mode does not fit"),
        ("{admin: 5}", "web.http.admin must be a mapping"),
        ("{admin: {port: x}}", "web.http.admin.port does not fit"),
        ("{tls: {key: k.pem}}", "web.http.tls needs a certificate"),
        ("{tls: {certificate: /nonexistent.pem}}", "web.http.tls cannot be used"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_with_its_place(
    tmp_path: Path, section: str, words: str
) -> None:
    text = refused(tmp_path, section)
    assert words in text
    assert "cfg.yml:2:" in text


def test_a_limit_that_does_not_fit_is_cited_with_its_own_line(tmp_path: Path) -> None:
    text = refused(tmp_path, "\n    port: 0\n    max_headers: 0\n")
    assert "cfg.yml:4:" in text and "web.http.max_headers" in text


def test_a_section_that_is_not_there_or_no_mapping_is_an_error(tmp_path: Path) -> None:
    for text in ("other: {}\n", "web: {http: 5}\n"):
        with pytest.raises(ConfigError, match=r"web\.http|'http'|'web"):
            Server.from_config(config(tmp_path, text))


def test_the_server_shows_the_config_it_was_made_of(tmp_path: Path) -> None:
    made = Server.from_config(
        config(tmp_path, "web: {http: {port: 1, drain_delay: 0, access_log: false}}\n"), port=0
    )

    def life() -> bytes:

        with made:
            assert made.port not in (0, 1)  # what is written in the program wins
            assert made.port is not None
            with gevent_client("127.0.0.1", made.port) as client:
                client.sendall(b"GET /config/web/http/port HTTP/1.0\r\n\r\n")
                received: bytes = client.recv(65536)
                return received

    def gevent_client(host: str, port: int) -> Any:
        import gevent.socket

        return gevent.socket.create_connection((host, port), LIMIT)

    assert gevent.spawn(life).get(timeout=LIMIT).endswith(b"1\n...\n")


def test_tls_is_of_the_files_that_are_named(tmp_path: Path) -> None:
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))

    made = Server.from_config(
        config(tmp_path, f"web: {{http: {{tls: {{certificate: {pem}}}, drain_delay: 0}}}}\n")
    )

    def life() -> str:
        with made:
            return made.url

    assert gevent.spawn(life).get(timeout=LIMIT).startswith("https://")
