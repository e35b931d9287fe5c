"""The configuration: what is taken, and the one line that says what is wrong."""

import inspect
import socket
from pathlib import Path
from typing import Any

import pytest

from lookout.checks import http_url, name_for
from lookout.judge import Rules
from lookout.settings import (
    SHIPPED,
    WEB_DEFAULTS,
    CollectorSettings,
    Configuration,
    Settings,
    ZookeeperSettings,
)
from lookout.targets import Target
from sepelib.core.config import ConfigError, duration
from sepelib.flask.server import AdminOptions, Limits, Server

TARGETS: list[dict[str, Any]] = [{"name": "shop", "url": "https://shop.example/health"}]

BASE = """\
service: {state: /tmp/x}
mongo: {uri: !secret 'mongodb://bob:sesame@h/'}
targets:
- name: shop
  url: http://shop.example/
"""


def read(path: Path, context: dict[str, Any]) -> Settings:
    return Configuration(path, context={"mongo": "mongodb://h/"} | context).load()


def complaint(tmp_path: Path, text: str) -> str:
    """What is said about a configuration, without the path of its folder."""
    path = tmp_path / "lookout.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(path, {})
    return str(caught.value).removeprefix(f"{tmp_path}/")


def test_the_shipped_file_needs_nothing_but_targets() -> None:
    settings = read(SHIPPED, {"targets": TARGETS})

    assert (settings.web["host"], settings.web["port"]) == ("127.0.0.1", 8080)
    assert settings.state == Path("/var/lib/lookout")
    (target,) = settings.targets
    assert target == Target("shop", "https://shop.example/health", 30.0, 5.0, Rules(2, 2))


def test_the_shipped_file_shows_what_the_server_does_without_it() -> None:
    shown = dict(read(SHIPPED, {"targets": TARGETS}).web)
    given = inspect.signature(Server).parameters | inspect.signature(Limits).parameters

    assert shown.pop("port") == WEB_DEFAULTS["port"]
    assert shown.pop("access_log") == WEB_DEFAULTS["access_log"]
    assert tuple(shown.pop("admin")["networks"]) == AdminOptions().networks
    for name, value in shown.items():
        default = given[name].default
        if isinstance(default, float):
            value = duration(value)
        assert (name, value) == (name, list(default) if default == () else default)


def test_values_for_the_template_reach_their_places_whatever_is_in_them() -> None:
    nasty = "/tmp/a b: #c\n- 'd' \"e\" {{ f }} \U0001f600"
    settings = read(SHIPPED, {"targets": TARGETS, "state": nasty, "port": 0, "host": "::1"})

    assert settings.state == Path(nasty)
    assert (settings.web["host"], settings.web["port"]) == ("::1", 0)


def test_a_target_says_for_itself_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "lookout.yml"
    path.write_text(
        "probes: {interval: 10, confirm: 5}\n"
        + BASE
        + "  status: 204\n  max_latency: 0.5\n  timeout: 2\n  confirm: 1\n"
        + "- {name: blog, url: 'http://blog.example/'}\n"
    )
    shop, blog = read(path, {"ignored": 1}).targets

    assert shop == Target("shop", "http://shop.example/", 10.0, 2.0, Rules(1, 2), 204, 0.5)
    assert blog == Target("blog", "http://blog.example/", 10.0, 5.0, Rules(5, 2))


def test_what_lies_on_top_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, overlay = tmp_path / "lookout.yml", tmp_path / "local.yml"
    path.write_text(BASE + "web: {host: '::1', port: 1}\nprobes: {interval: 1m30s, confirm: 5}\n")
    overlay.write_text("probes: {interval: 250ms}\nweb: {port: 2}\n")
    monkeypatch.setenv("LOOKOUT_PROBES__CONFIRM", "7")

    settings = Configuration(path, overlays=[overlay], overrides={"web.port": 3}).load()

    assert (settings.web["host"], settings.web["port"]) == ("::1", 3)
    assert (settings.targets[0].interval, settings.targets[0].rules.confirm) == (0.25, 7)


def test_without_zookeeper_it_is_the_only_replica_and_has_the_name_of_the_host() -> None:
    settings = read(SHIPPED, {"targets": TARGETS})

    assert (settings.zookeeper, settings.replica) == (None, socket.gethostname())


def test_replicas_have_a_name_and_a_zookeeper() -> None:
    values = {"targets": TARGETS, "zookeeper": "a:1,b:2/x", "replica": "r1", "session_timeout": 4}
    settings = read(SHIPPED, values)

    assert settings.zookeeper == ZookeeperSettings("a:1,b:2/x", "/lookout", 4.0)
    assert settings.replica == "r1"
    assert settings.quorum == read(SHIPPED, {"targets": TARGETS}).quorum == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", CollectorSettings(60.0, 600.0)),
        ("interval: 5, idle: 1m", CollectorSettings(5.0, 60.0)),
        ("enabled: false", None),
    ],
)
def test_the_collector_is_on_unless_it_is_switched_off(
    text: str, expected: CollectorSettings | None, tmp_path: Path
) -> None:
    path = tmp_path / "lookout.yml"
    path.write_text(BASE + f"zookeeper: {{hosts: 'a:1', collector: {{{text}}}}}\n")

    settings = read(path, {})
    assert settings.zookeeper == ZookeeperSettings("a:1", collector=expected)


def test_mongo_is_secret_and_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "lookout.yml"
    path.write_text(BASE)
    configuration = Configuration(path)

    settings = configuration.load()
    assert settings.mongo.uri.reveal() == "mongodb://bob:sesame@h/"
    assert settings.mongo.database == "lookout"
    assert "sesame" not in repr(settings)
    assert read(SHIPPED, {"targets": TARGETS, "database": "x"}).mongo.database == "x"


def test_without_mongo_it_says_where_to_put_it() -> None:
    with pytest.raises(ConfigError, match=r"^no mongo\.uri: incidents are kept in MongoDB; "):
        Configuration(SHIPPED, context={"targets": TARGETS}).load()


def test_mongo_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKOUT_MONGO__URI", "mongodb://a,b,c/?replicaSet=rs0")

    settings = Configuration(SHIPPED, context={"targets": TARGETS}).load()
    assert settings.mongo.uri.reveal() == "mongodb://a,b,c/?replicaSet=rs0"


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "h:1",
            "http://h/",
            "mongodb://",
            "mongodb://bob:sesame/x@h/",
            "mongodb://bob:se%same@h/",
        ),
        *("mongodb://h:port/", "mongodb+srv://", "7", "mongodb://a/?x"),
    ],
)
def test_what_is_no_uri_of_mongo_is_refused_and_not_repeated(uri: str, tmp_path: Path) -> None:
    path = tmp_path / "lookout.yml"
    path.write_text(BASE.replace("mongodb://bob:sesame@h/", uri))
    with pytest.raises(
        ConfigError, match=r"lookout\.yml:2:14: mongo.uri: must be a URI such"
    ) as caught:
        read(path, {})

    assert "sesame" not in str(caught.value)


def test_nobody_to_tell_means_no_mail(tmp_path: Path) -> None:
    path = tmp_path / "lookout.yml"
    for mail in ("", "mail: {host: x}\n", "mail: {enabled: false, recipients: [a@b]}\n"):
        path.write_text(BASE + mail)
        assert read(path, {}).mail is None


def test_a_password_of_mail_comes_from_a_file_and_is_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "lookout.yml"
    (tmp_path / "mail").write_text("sesame\n")
    path.write_text(
        BASE + "mail:\n  recipients: [ann@example.org]\n  sender: lookout@example.org\n"
        "  user: bob\n  password: !secret {{ read_file('mail')|yaml }}\n"
    )

    settings = read(path, {})

    assert settings.mail is not None and settings.mail.password is not None
    assert settings.mail.password.reveal() == "sesame"
    assert "sesame" not in repr(settings)


def test_a_reload_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lookout.yml"
    path.write_text(BASE + "web: {port: 1}\n")
    configuration = Configuration(path)
    configuration.load()

    for wrong in ("web: {port: many}\n", "web: {\n", "web: {port: {{ prot }}}\n"):
        path.write_text(BASE + wrong)
        with pytest.raises(ConfigError, match=r"lookout\.yml:[67]"):
            configuration.reload()
        assert configuration.config.get_value("web.port") == 1

    path.write_text(BASE + "web: {port: 2}\n")
    assert configuration.reload().web["port"] == configuration.config.get_value("web.port") == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            BASE + "probes:\n  timeout: fast\n",
            "lookout.yml:7:12: probes.timeout must be seconds, which says: a time such as 5s",
        ),
        (
            BASE + "probes: {quorum: 0}\n",
            "lookout.yml:6:18: probes.quorum must be count, which says: a whole number from 1",
        ),
        (
            BASE + "zookeeper: {collector: {idl: 3}}\n",
            "lookout.yml:6:30: zookeeper.collector.idl must be known, "
            "which says: there are only enabled, idle, interval",
        ),
        (
            BASE + "probes: {intervall: 3}\n",
            "lookout.yml:6:21: probes.intervall must be known, "
            "which says: there are only confirm, exec_dir, interval, quorum, recover, timeout",
        ),
        (
            BASE + "mails: {}\n",
            "lookout.yml:6:8: mails must be known, "
            "which says: there are only "
            "history, log, mail, mongo, probes, service, svn, targets, web",
        ),
        (
            BASE + "  confirm: 0\n",
            "lookout.yml:6:12: targets.0.confirm must be count, which says: a whole number from 1",
        ),
        (
            BASE + "- name: shop\n  url: http://b/\n",
            "lookout.yml:6:9: targets.1.name must be new_name, "
            "which says: another target has this name",
        ),
        (
            BASE + "- {name: a, url: 'ftp://user:sesame@b/'}\n",
            "lookout.yml:6:18: targets.1.url must be http_url, "
            "which says: a URL that starts with http:// or https:// and names a host",
        ),
        (
            "service: {state: /tmp/x}\nmongo: {uri: 'mongodb://h/'}\ntargets: []\n",
            "lookout.yml:3:10: targets must be watchable, "
            "which says: a list with at least one target in it, else there is nothing to watch",
        ),
        (BASE + "web: 80\n", "lookout.yml:6:6: web must be dict, not int"),
        (BASE + "web: {port: 80.0}\n", "lookout.yml:6:13: web.port does not fit: must be"),
        (BASE + "log: {level: LOUD}\n", "lookout.yml:6:14: log.level must be level, which says:"),
        (
            BASE + "mail: {recipients: [ann]}\n",
            "lookout.yml:6:7: no 'mail.sender' in 'mail'",
        ),
        (
            BASE + "mail: {recipients: [a@b, 'c d'], sender: x@y}\n",
            "lookout.yml:6:26: mail.recipients.1 must be address, which says: one address, such as",
        ),
        (
            BASE + "mail: {recipients: [a@b], sender: x@y, user: bob, password: sesame,\n"
            "  host: far.example, tls: none}\n",
            "lookout.yml:6:7: mail: tls='none' would send the password to far.example in clear",
        ),
        (
            BASE + "mail: {recipients: [a@b], sender: x@y, tls: ssl}\n",
            "lookout.yml:6:45: mail.tls must be tls, which says: none, starttls or tls",
        ),
        (BASE + "  timeout: 0s\n", "lookout.yml:6:12: targets.0.timeout must be seconds, which"),
        (BASE + "  confirm: 010\n", "lookout.yml:6:12: "),
        (BASE + "- just text\n", "lookout.yml:6:3: targets.1 must be dict, not str"),
        (BASE + "targets: []\n", "lookout.yml:6:1: duplicate key 'targets'"),
        (BASE + "web: {port: {{ port }}}\n", "lookout.yml:6"),
        ("web: [\n", "lookout.yml:2"),
        (
            BASE + "web: {max_connection: 5}\n",
            "lookout.yml:6:23: web.max_connection is not known; did you mean 'max_connections'?",
        ),
        (BASE + "web: {drain_delay: soon}\n", "lookout.yml:6:20: web.drain_delay does not fit"),
        (
            BASE + "web: {request_timeout: 0}\n",
            "lookout.yml:6:24: web.request_timeout does not fit: must be more than 0 seconds",
        ),
        (
            BASE + "web: {admin: {networks: [10.0.0.0/33]}}\n",
            "lookout.yml:6:25: web.admin.networks does not fit: '10.0.0.0/33' does not appear",
        ),
        (BASE + "web: {access_log: loud}\n", "lookout.yml:6:19: web.access_log does not fit"),
        (BASE + "log: {file: 3}\n", "lookout.yml:6:13: log.file must be str, not int"),
        (BASE + "log: {json: 3}\n", "lookout.yml:6:13: log.json must be bool, not int"),
        ("targets:\n- name: a\n  url: http://a/\n", "lookout.yml:1:1: no 'service.state'"),
    ],
)
def test_each_mistake_is_one_line_with_its_place(text: str, expected: str, tmp_path: Path) -> None:
    said = complaint(tmp_path, text)

    assert said.startswith(expected)
    assert "\n" not in said
    assert "sesame" not in said


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yml: no such file"):
        read(tmp_path / "nowhere.yml", {})


@pytest.mark.parametrize(
    "url",
    [
        *("", "shop.example", "//shop.example/", "ftp://a/", "http://", "http:///x", "http://:80/"),
        *("http://a:x/", "http://a:99999/", "http://[::1/", "http://a b/", "http://a/\r\nX: 1", 7),
    ],
)
def test_what_cannot_be_probed_is_no_url(url: object) -> None:
    with pytest.raises(ValueError, match=r"^a URL that starts with"):
        http_url(url)


@pytest.mark.parametrize("url", ["http://a", "https://user:pw@a:8443/x?y=1", "http://[::1]:80/"])
def test_what_can_be_probed_is_taken_as_it_is(url: str) -> None:
    assert http_url(url) == url


def test_targets_of_one_host_get_different_names() -> None:
    first = name_for("https://shop.example/", [])
    second = name_for("https://shop.example/cart", [first])

    assert (first, second) == ("shop.example", "shop.example-2")
    assert name_for("http://[::1]:80/", []) == "1"


def test_a_target_is_shown_without_its_password() -> None:
    assert Target("a", "https://bob:sesame@a/").shown_url == "https://bob:***@a/"
