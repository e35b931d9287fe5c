"""Who may use what: networks, proxies, and a listener for admins."""

import itertools
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.flask.server import AdminOptions, CannotListen
from sepelib.flask.server._peers import Networks, Peers
from sepelib.flask.testing import RunningServer, SlowClient

pytest_plugins = ["sepelib.flask.pytest_plugin"]

Servers = Callable[..., RunningServer]
LIMIT = 20.0


class Source:
    def dump(self, *, mask: bool = True, fmt: str = "yaml") -> str:
        return "{}"


def get(url: str, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.get(url, headers=named, timeout=LIMIT)


@pytest.fixture
def app() -> flask.Flask:
    app = flask.Flask("peers")

    @app.get("/who")
    def who() -> dict[str, Any]:
        request = flask.request
        peer = request.environ.get("sepelib.peer")
        return {"client": request.remote_addr, "scheme": request.scheme, "peer": peer}

    return app


def test_by_default_this_host_is_the_admin(server: Servers) -> None:
    assert get(f"{server(config=Source()).url}/config/").status_code == 200


@pytest.mark.parametrize("header", ["X_Forwarded_For", "Forwarded", "X_Real_IP", "Via"])
def test_a_request_that_a_proxy_sent_on_is_no_admins_unless_the_proxy_is_trusted(
    server: Servers, header: str
) -> None:
    # A proxy on this host would else make an admin of everybody.
    url = server(config=Source()).url

    assert get(f"{url}/config/", **{header: "127.0.0.1"}).status_code == 403


def test_a_spoofed_header_makes_nobody_an_admin(server: Servers) -> None:
    url = server(config=Source(), admin=AdminOptions(networks=["10.0.0.0/8"])).url

    for spoofed in ("10.1.2.3", "10.1.2.3, 10.1.2.3", "127.0.0.1"):
        answer = get(f"{url}/config/", X_Forwarded_For=spoofed, X_Real_IP=spoofed)
        assert answer.status_code == 403


def test_a_header_of_a_peer_that_is_not_trusted_changes_nothing(
    server: Servers, app: flask.Flask
) -> None:
    url = server(app, trusted_proxies=["192.0.2.1"]).url

    seen = get(f"{url}/who", X_Forwarded_For="10.1.2.3", X_Forwarded_Proto="https").json()

    assert seen == {"client": "127.0.0.1", "scheme": "http", "peer": None}


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("6.6.6.6, 198.51.100.7", "198.51.100.7"),  # the first is the client's own invention
        ("6.6.6.6, 198.51.100.7, 127.0.0.9", "198.51.100.7"),  # 127.0.0.9 is one of the proxies
        ("198.51.100.7:1234", "198.51.100.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]:1234", "2001:db8::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("nonsense", "unknown"),
        ("127.0.0.1, <script>", "unknown"),
        ("", "unknown"),
        ("127.0.0.2", "127.0.0.2"),
    ],
)
def test_of_a_trusted_proxy_the_client_is_whom_it_names(
    server: Servers, app: flask.Flask, header: str, client: str
) -> None:
    url = server(app, trusted_proxies=["127.0.0.0/8"]).url

    seen = get(f"{url}/who", X_Forwarded_For=header, X_Forwarded_Proto="https").json()

    assert seen == {"client": client, "scheme": "https", "peer": "127.0.0.1"}


@pytest.mark.parametrize(
    ("header", "status"), [("10.1.2.3", 200), ("11.1.2.3", 403), ("10.1.2.3, 11.1.2.3", 403),
                           ("10.1.2.3, rubbish", 403)],
)  # fmt: skip
def test_behind_a_trusted_proxy_the_client_is_the_admin(
    server: Servers, header: str, status: int
) -> None:
    options = AdminOptions(networks=["10.0.0.0/8"])
    url = server(config=Source(), admin=options, trusted_proxies=["127.0.0.1"]).url

    assert get(f"{url}/config/", X_Forwarded_For=header).status_code == status


def test_the_access_log_has_the_client(
    server: Servers, app: flask.Flask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sepelib.flask.access")
    running = server(app, trusted_proxies=["127.0.0.1"])
    get(f"{running.url}/who", X_Forwarded_For="198.51.100.7")
    running.close()

    (line,) = [r.getMessage() for r in caplog.records if r.name == "sepelib.flask.access"]
    assert line.startswith("198.51.100.7 - ")


def test_a_second_listener_has_all_handlers_and_the_first_keeps_two(
    server: Servers, app: flask.Flask
) -> None:
    running = server(app, config=Source(), admin=AdminOptions(port=0))
    main, admin = running.url, running.admin_url
    assert main != admin

    assert get(f"{main}/who").status_code == 200
    for path in ("/ping", "/version"):
        assert get(f"{main}{path}").status_code == get(f"{admin}{path}").status_code == 200
    for path in ("/config/", "/metrics", "/yasm_stats", "/unistat"):
        assert "The requested URL was not found" in get(f"{main}{path}").text  # Flask's words
    assert requests.post(f"{main}/reopen_log", timeout=LIMIT).status_code == 404
    assert get(f"{admin}/config/").status_code == 200
    assert "exports no metrics" in get(f"{admin}/metrics").text
    assert requests.post(f"{admin}/reopen_log", timeout=LIMIT).status_code == 200
    assert get(f"{admin}/who").status_code == 404


def test_networks_hold_for_the_second_listener_too(server: Servers) -> None:
    options = AdminOptions(port=0, networks=["192.0.2.0/24"])
    running = server(config=Source(), admin=options)

    assert get(f"{running.admin_url}/config/").status_code == 403
    assert get(f"{running.admin_url}/ping").status_code == 200


def test_an_admin_listener_at_a_file_is_for_who_may_open_it(
    server: Servers, tmp_path: Path
) -> None:
    path = tmp_path / "admin.sock"
    running = server(config=Source(), admin=AdminOptions(unix=str(path)))

    assert path.stat().st_mode & 0o777 == 0o600
    with SlowClient(str(path)) as client:
        assert client.get("/config/").status == 200
    running.close()
    assert not path.exists()


def test_a_main_listener_at_a_file_makes_no_admins_unless_told(
    server: Servers, tmp_path: Path
) -> None:
    # What a proxy lets in comes through that file as well.
    for number, (networks, status) in enumerate([(["127.0.0.0/8"], 403), (["unix"], 200)]):
        path = str(tmp_path / f"{number}.sock")
        server(config=Source(), unix=path, admin=AdminOptions(networks=networks))
        with SlowClient(path) as client:
            assert client.get("/config/").status == status


def test_networks_that_are_none_are_refused() -> None:
    for wrong in (["10.0.0.0/33"], ["host.example"], "10.0.0.0/8"):
        with pytest.raises(ValueError):  # noqa: PT011 - ipaddress words it
            Networks(wrong)


def test_ipv6_and_mapped_addresses_are_known() -> None:
    networks = Networks(["127.0.0.0/8", "::1", "2001:db8::/32"])
    for inside in ("127.0.0.1", "::ffff:127.0.0.1", "::1", "2001:db8::5"):
        assert inside in networks
    for outside in ("128.0.0.1", "::ffff:128.0.0.1", "::2", "unix", "", "unknown", "127.0.0.1\n"):
        assert outside not in networks


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.one_of(st.ip_addresses().map(str), st.text(max_size=20)), max_size=5))
def test_no_header_makes_an_admin_of_a_stranger(hops: list[str]) -> None:
    # The stranger writes what stands before; the trusted proxy adds the address it sees.
    admins, proxies = ["10.0.0.0/8"], ["192.0.2.1"]
    peers = Peers(Networks(admins), Networks(proxies))
    header = ", ".join(itertools.chain(hops, ["203.0.113.5"]))
    environ = {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": header}

    peers.resolve(environ)

    assert environ["REMOTE_ADDR"] == "203.0.113.5"
    assert not peers.is_admin(environ)


def test_ipv6_is_served_where_there_is_one(server: Servers) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        with pytest.raises(CannotListen, match=r"\[::1\]:0"):
            server(host="::1")
    else:
        running = server(host="::1", config=Source())
        assert running.url.startswith("http://[::1]:")
        assert get(f"{running.url}/config/").status_code == 200
