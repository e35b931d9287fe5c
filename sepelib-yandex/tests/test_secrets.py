"""No credential is seen, whatever a client does and whatever goes wrong.

Every method of every client is called with marked secrets against a live server, under DEBUG: once
as it should be, and then with each fault from each of its requests on. What could be seen of that
(log records, those of urllib3 too, errors with their tracebacks, pickles, reprs, metrics) has no
mark. A method without a call in the table below fails the test.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import pytest

from sepelib.util.testing import Clock, MemoryRecorder
from sepelib.yandex.alemate import TaskGroup
from sepelib.yandex.auth import (
    Auth,
    BasicAuth,
    CombinedAuth,
    OAuthToken,
    SessionCookie,
    TokenSource,
    TvmTicket,
    UserTicket,
)
from sepelib.yandex.base import ApiClient, Stream
from sepelib.yandex.blackbox import BlackboxClient, Check
from sepelib.yandex.cms import CmsClient
from sepelib.yandex.errors import YandexError
from sepelib.yandex.oauth import DeviceCodes
from sepelib.yandex.otrs import Attachment
from sepelib.yandex.paging import Pager
from sepelib.yandex.sandbox import token_from_env
from sepelib.yandex.startrek import StartrekClient
from sepelib.yandex.testing import FakeRequest, FakeService, Reply
from sepelib.yandex.testing._fakes import TABLE
from sepelib.yandex.testing._live import LiveServer
from sepelib.yandex.testing._oauth import Device
from sepelib.yandex.testing._service import Delivery

MARK = "S3CR3T"


def marked(name: str) -> str:
    """A secret so long that whatever is cut off somewhere may be cut in the middle of it."""
    return f"{MARK}{name}" * 100


TOKEN, SECRET, PASSWORD, COOKIE = map(marked, ("token", "secret", "password", "cookie"))
TICKET, CODE, VERIFIER, REFRESH = map(marked, ("ticket", "code", "verifier", "refresh"))
USER_IP = "198.51.100.77"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NEW_TICKET = {
    "Title": "Disk is full",
    "Queue": "Raw",
    "State": "new",
    "Priority": "3 normal",
    "CustomerUser": "ann",
}
ATTACHMENT = "/v2/issues/T-1/attachments/1/a.txt"
BULK = "000000000000000000000001"
ARTICLE = {"Subject": "Disk", "Body": "no space left", "ContentType": "text/plain"}
FILE = Attachment(filename="df.txt", content=b"100%", content_type="text/plain")


# What is called, and in which state of the service.


def _alemate(fake: Any) -> None:
    fake.add("groups", {"id": "g", "status": "new", "tasks": [], "comment": None, "author": None})
    for group, status in (("r", "running"), ("p", "paused"), ("d", "done")):
        tasks = [{"id": "t1", "type": "stop", "status": "failed", "message": ""}]
        fake.add("groups", {"id": group, "status": status, "tasks": tasks})


def _center_robot(fake: Any) -> None:
    fake.add_robot("web")
    fake.add_build("web", "b1")
    fake.add("commands", {"id": "7", "command": "stop", "status": "done"})


def _cms(fake: Any) -> None:
    fake.add_host("h1")
    fake.add_instance("web", "h1", 80)
    CmsClient(fake.url, session=fake.session()).maintenance.create(["h1"], "reboot", id="t")
    fake.calls.clear()


def _nanny(fake: Any) -> None:
    fake.add_service("web", {"replicas": 1}, instances=(("h1", 80),))


def _oauth(fake: Any) -> None:
    fake.accounts.add_app("fake-client", SECRET)
    fake.accounts.add_user("ann", uid=1, password=PASSWORD)
    fake.state.codes[CODE] = fake.state.codes.pop(fake.add_code(uid=1, challenge=VERIFIER))
    fake.state.devices[CODE] = Device("u", "fake-client", (), 600.0, None, "approved", "1")
    fake.accounts.add_token(
        TOKEN, uid=1, client_id="fake-client", refresh_token=REFRESH, device_id="device-1"
    )


def _accounts(fake: Any) -> None:
    fake.accounts.add_user("ann", uid=1, password=PASSWORD)
    fake.accounts.add_token(TOKEN, uid=1, scopes=["login:info"])
    fake.accounts.add_session(COOKIE, uid=1, ssl_session_id=marked("ssl"))
    fake.accounts.user_tickets[TICKET] = fake.accounts.user_tickets.pop(
        fake.accounts.add_user_ticket(1)
    )
    fake.accounts.lcookies[COOKIE] = "1"


def _blackbox(fake: Any) -> None:
    _accounts(fake)
    fake.require_tickets(TICKET)


def _otrs(fake: Any) -> None:
    fake.state.agents["robot"] = PASSWORD
    fake.add_ticket()


def _sandbox(fake: Any) -> None:
    assert fake.add_resource() == 1
    assert fake.add_task() == 2
    assert fake.add_task(status="running") == 3
    fake.finish(3, "succeeded")


def _staff(fake: Any) -> None:
    fake.add_person("ann")
    fake.add_group("web", "ann")


def _startrek(fake: Any) -> None:
    fake.add_queue("T")
    fake.add_queue("OPS")
    fake.add_issue("T", "one")
    fake.add_issue("T", "two", unique="u")
    fake.add_version("T", "1.0")
    fake.add_component("T", "core")
    made = StartrekClient.from_config(fake.config(), auth=OAuthToken(TOKEN), session=fake.session())
    made.comments.create("T-1", "text")
    made.links.create("T-1", "relates", "T-2")
    made.attachments.upload("T-1", b"content", "a.txt")
    made.bulk.update(["T-1"], {"summary": "y"})
    fake.bulk_hidden = 0
    fake.calls.clear()


def _tvm(fake: Any) -> None:
    fake.add_destination("blackbox", 222)
    fake.add_service_ticket(TICKET, src=7)
    fake.add_user_ticket(TICKET, 1)


class Scene(NamedTuple):
    """*methods*: a call for each; those with a `+` before their names send no secret."""

    seed: Callable[[Any], object]
    methods: Mapping[str, Callable[[Any], Any]]


def _nothing(fake: Any) -> None:
    pass


SCENES: dict[str, Scene] = {
    "alemate": Scene(
        _alemate,
        {
            "cancel": lambda c: c.cancel("r", comment="no"),
            "create": lambda c: c.create("n", [], author="ann"),
            "get": lambda c: c.get("g"),
            "groups": lambda c: c.groups(),
            "pause": lambda c: c.pause("r"),
            "resume": lambda c: c.resume("p"),
            "retry": lambda c: c.retry("r", "t1"),
            "skip": lambda c: c.skip("r", "t1"),
            "start": lambda c: c.start("g"),
            "submit": lambda c: c.submit(TaskGroup()),
            "wait": lambda c: c.wait("d", timeout=5.0),
        },
    ),
    "auth_qe": Scene(
        lambda fake: fake.grant("ann", "web", "admin"),
        {
            "allowed": lambda c: c.allowed("ann", "web", "admin"),
            "is_allowed": lambda c: c.is_allowed("ann", "web", "admin"),
            "roles": lambda c: c.roles("ann", "web"),
            "roles_of": lambda c: c.roles_of("ann", "web"),
            "users": lambda c: c.users("web", "admin"),
        },
    ),
    "blackbox": Scene(
        _blackbox,
        {
            "call": lambda c: c.call("oauth", oauth_token=TOKEN, userip=USER_IP),
            "check_session": lambda c: c.check_session(
                COOKIE, USER_IP, "yandex-team.ru", ssl_session_id=marked("ssl")
            ),
            "check_token": lambda c: c.check_token(TOKEN, USER_IP),
            "checkip": lambda c: c.checkip("192.0.2.1"),
            "lcookie": lambda c: c.lcookie(COOKIE),
            "login": lambda c: c.login("ann", PASSWORD, USER_IP, sid="smtp"),
            "oauth": lambda c: c.oauth(TOKEN, USER_IP, get_user_ticket=True),
            "sessionid": lambda c: c.sessionid(COOKIE, USER_IP, "yandex-team.ru"),
            "user_ticket": lambda c: c.user_ticket(TICKET),
            "userinfo": lambda c: c.userinfo(USER_IP, login="ann"),
            "userinfos": lambda c: c.userinfos([1], USER_IP),
        },
    ),
    "center_robot": Scene(
        _center_robot,
        {
            "builds": lambda c: c.builds("web"),
            "command": lambda c: c.command("web", "stop"),
            "get_command": lambda c: c.get_command("7"),
            "robots": lambda c: c.robots(),
            "state": lambda c: c.state("web"),
            "wait": lambda c: c.wait("7", timeout=5.0),
        },
    ),
    "clustermaster": Scene(
        lambda fake: fake.add_target("merge", hosts=["h1"]),
        {
            "cancel": lambda c: c.cancel("merge"),
            "hosts": lambda c: c.hosts(),
            "reset": lambda c: c.reset("merge"),
            "run": lambda c: c.run("merge"),
            "run_with_deps": lambda c: c.run_with_deps("merge"),
            "target": lambda c: c.target("merge"),
            "targets": lambda c: c.targets(),
            "tasks": lambda c: c.tasks("merge"),
            "wait": lambda c: (c.run("merge"), c.wait("merge", timeout=90.0)),
        },
    ),
    "cms": Scene(
        _cms,
        {
            "hosts.list": lambda c: c.hosts.list(),
            "hosts.set_state": lambda c: c.hosts.set_state("h1", "down", reason="disk", until=NOON),
            "hosts.state": lambda c: c.hosts.state("h1"),
            "instances.list": lambda c: c.instances.list("web"),
            "instances.set_state": lambda c: c.instances.set_state("h1", 80, "down", reason="x"),
            "maintenance.check": lambda c: c.maintenance.check("t"),
            "maintenance.create": lambda c: c.maintenance.create(["h1"], "prepare"),
            "maintenance.hold": lambda c: c.maintenance.hold(["h1"], "prepare", 60.0),
            "maintenance.list": lambda c: c.maintenance.list(),
            "maintenance.remove": lambda c: c.maintenance.remove("t"),
            "maintenance.wait": lambda c: c.maintenance.wait("t", 60.0),
        },
    ),
    "gencfg": Scene(
        lambda fake: fake.add_group("WEB", "h1"),
        {
            "group": lambda c: c.group("WEB"),
            "groups": lambda c: c.groups(),
            "hosts": lambda c: c.hosts("WEB"),
            "instances": lambda c: c.instances("WEB"),
            "tags": lambda c: c.tags(),
        },
    ),
    "iss": Scene(
        lambda fake: fake.add_configuration("web", "h1"),
        {
            "instances": lambda c: c.instances("h1"),
            "set_target": lambda c: c.set_target("web", revision="2", desired="running"),
            "state": lambda c: c.state("web"),
            "wait_state": lambda c: c.wait_state("web", "1", timeout=60.0),
        },
    ),
    "its": Scene(
        lambda fake: fake.set_value("a/b", 1),
        {
            "get": lambda c: c.get("a/b"),
            "handles": lambda c: c.handles(),
            "history": lambda c: c.history("a/b"),
            "override": lambda c: c.override("a/b", 2, 60.0),
            "replace": lambda c: c.replace("a/c", {"value": 1}, if_none_match="*"),
            "reset": lambda c: c.reset("a/b", version=c.value("a/b").version),
            "set": lambda c: c.set("a/c", 1, version=None),
            "value": lambda c: c.value("a/b"),
        },
    ),
    "nanny": Scene(
        _nanny,
        {
            "current_state": lambda c: c.current_state("web"),
            "info_attrs": lambda c: c.info_attrs("web"),
            "instances": lambda c: c.instances("web"),
            "runtime_attrs": lambda c: c.runtime_attrs("web"),
            "services": lambda c: c.services(),
            "set_info_attrs": lambda c: c.set_info_attrs(
                "web", {}, snapshot_id=str(c.info_attrs("web").snapshot_id), comment="x"
            ),
            "set_runtime_attrs": lambda c: c.set_runtime_attrs(
                "web", {}, snapshot_id=str(c.runtime_attrs("web").snapshot_id), comment="x"
            ),
            "set_snapshot_state": lambda c: c.set_snapshot_state(
                "web", str(c.runtime_attrs("web").snapshot_id), "online", comment="x"
            ),
            "snapshot": lambda c: c.snapshot("web", str(c.runtime_attrs("web").snapshot_id)),
            "update_info_attrs": lambda c: c.update_info_attrs("web", lambda old: {"new": 1}, "x"),
            "update_runtime_attrs": lambda c: c.update_runtime_attrs(
                "web", lambda old: {"replicas": 2}, "x"
            ),
            "wait_state": lambda c: _nanny_waits(c),
        },
    ),
    "oauth": Scene(
        _oauth,
        {
            "+authorize_url": lambda c: c.authorize_url(scope=["a"]),
            "+device_codes": lambda c: c.device_codes(scope=["a"]),
            "poll_device": lambda c: c.poll_device(CODE),
            "revoke": lambda c: c.revoke(TOKEN),
            "token_by_code": lambda c: c.token_by_code(CODE, code_verifier=VERIFIER),
            "token_by_password": lambda c: c.token_by_password("ann", PASSWORD),
            "token_by_refresh": lambda c: c.token_by_refresh(REFRESH),
            "wait_device": lambda c: c.wait_device(DeviceCodes.from_dict({"device_code": CODE})),
        },
    ),
    "otrs": Scene(
        _otrs,
        {
            "create_ticket": lambda c: c.create_ticket(
                NEW_TICKET, ARTICLE, attachments=[FILE], unique=("Key", "k")
            ),
            "get_ticket": lambda c: c.get_ticket(1, articles=True),
            "get_tickets": lambda c: c.get_tickets([1]),
            "history": lambda c: c.history(1),
            "search": lambda c: c.search(Queues="Raw"),
            "session": lambda c: c.session(),
            "update_ticket": lambda c: c.update_ticket(1, {"State": "open"}, ARTICLE),
        },
    ),
    "passport": Scene(
        _accounts,
        {
            "check_oauth": lambda c: c.check_oauth(TOKEN, USER_IP),
            "check_session": lambda c: c.check_session(
                {"Session_id": COOKIE, "sessionid2": marked("ssl")}, USER_IP, "yandex-team.ru"
            ),
            "+login_url": lambda c: c.login_url("https://example.org/"),
            "user_info": lambda c: c.user_info(TOKEN),
        },
    ),
    "sandbox": Scene(
        _sandbox,
        {
            "resources.download": lambda c: c.resources.download(1, io.BytesIO()),
            "resources.get": lambda c: c.resources.get(1),
            "resources.links": lambda c: c.resources.links(1),
            "resources.list": lambda c: c.resources.list(attrs={"a": 1}),
            "resources.touch": lambda c: c.resources.touch(1),
            "resources.upload": lambda c: c.resources.upload(io.BytesIO(b"content")),
            "run": lambda c: c.run("TEST", wait=300.0),
            "tasks.create": lambda c: c.tasks.create("TEST"),
            "tasks.delete": lambda c: c.tasks.delete(2),
            "tasks.get": lambda c: c.tasks.get(2),
            "tasks.list": lambda c: c.tasks.list(),
            "tasks.output": lambda c: c.tasks.output(3),
            "tasks.start": lambda c: c.tasks.start(2),
            "tasks.stop": lambda c: (c.tasks.start(2), c.tasks.stop(2)),
            "tasks.update": lambda c: c.tasks.update(2, description="x"),
            "tasks.wait": lambda c: c.tasks.wait(3, 60.0),
        },
    ),
    "shardtracker": Scene(
        lambda fake: fake.add_place("s1", "h1"),
        {
            "hosts": lambda c: c.hosts("s1"),
            "lookup": lambda c: c.lookup(["s1"]),
            "lookup_all": lambda c: c.lookup_all(["s1"]),
            "register": lambda c: c.register("s1", "h2", "/s1"),
            "shards": lambda c: c.shards(),
            "shards_of": lambda c: c.shards_of("h1"),
        },
    ),
    "staff": Scene(
        _staff,
        {
            "dump": lambda c: c.dump("persons"),
            "+forget": lambda c: c.forget(),
            "group": lambda c: c.group("web"),
            "groups": lambda c: c.groups(),
            "groups_of": lambda c: c.groups_of("ann"),
            "is_member": lambda c: c.is_member("ann", "web", recursive=True),
            "members": lambda c: c.members("web"),
            "memberships": lambda c: c.memberships(),
            "person": lambda c: c.person("ann"),
            "persons": lambda c: c.persons(fields=["login"]),
        },
    ),
    "startrek": Scene(
        _startrek,
        {
            "attachments.delete": lambda c: c.attachments.delete("T-1", "1"),
            "attachments.download": lambda c: c.attachments.download(ATTACHMENT, io.BytesIO()),
            "attachments.list": lambda c: c.attachments.list("T-1"),
            "attachments.open": lambda c: c.attachments.open(ATTACHMENT),
            "attachments.open_named": lambda c: c.attachments.open_named("T-1", "1", "a.txt"),
            "attachments.upload": lambda c: c.attachments.upload("T-1", b"content", "a.txt"),
            "attachments.upload_temporary": lambda c: c.attachments.upload_temporary(b"x", "a.txt"),
            "bulk.get": lambda c: c.bulk.get(BULK),
            "bulk.move": lambda c: c.bulk.move(["T-1"], "OPS"),
            "bulk.transition": lambda c: c.bulk.transition(["T-1"], "close"),
            "bulk.update": lambda c: c.bulk.update(["T-1"], {"summary": "x"}),
            "bulk.wait": lambda c: c.bulk.wait(BULK),
            "comments.create": lambda c: c.comments.create("T-1", "text"),
            "comments.delete": lambda c: c.comments.delete("T-1", 1),
            "comments.list": lambda c: c.comments.list("T-1"),
            "comments.update": lambda c: c.comments.update("T-1", 1, "y"),
            "dictionaries.archive_version": lambda c: c.dictionaries.archive_version("1"),
            "dictionaries.component": lambda c: c.dictionaries.component("1"),
            "dictionaries.fields": lambda c: c.dictionaries.fields(),
            "dictionaries.issue_types": lambda c: c.dictionaries.issue_types(),
            "dictionaries.priorities": lambda c: c.dictionaries.priorities(),
            "dictionaries.resolutions": lambda c: c.dictionaries.resolutions(),
            "dictionaries.statuses": lambda c: c.dictionaries.statuses(),
            "dictionaries.update_component": lambda c: c.dictionaries.update_component(
                "1", version=1, name="x"
            ),
            "dictionaries.user": lambda c: c.dictionaries.user("robot"),
            "dictionaries.version": lambda c: c.dictionaries.version("1"),
            "dictionaries.worklog": lambda c: c.dictionaries.worklog(),
            "issues.by_unique": lambda c: c.issues.by_unique("u"),
            "issues.changelog": lambda c: c.issues.changelog("T-1"),
            "issues.clone": lambda c: c.issues.clone("T-1", "OPS"),
            "issues.count": lambda c: c.issues.count(filter={"queue": "T"}),
            "issues.create": lambda c: c.issues.create("T", "x", unique="u"),
            "issues.execute": lambda c: c.issues.execute("T-1", "start"),
            "issues.get": lambda c: c.issues.get("T-1"),
            "issues.move": lambda c: c.issues.move("T-1", "OPS"),
            "issues.scroll": lambda c: c.issues.scroll(filter={"queue": "T"}, per_scroll=1),
            "issues.search": lambda c: c.issues.search(queue="T"),
            "issues.transitions": lambda c: c.issues.transitions("T-1"),
            "issues.update": lambda c: c.issues.update("T-1", version=1, summary="x"),
            "links.create": lambda c: c.links.create("T-1", "relates", "T-2"),
            "links.delete": lambda c: c.links.delete("T-1", 1),
            "links.list": lambda c: c.links.list("T-1"),
            "myself": lambda c: c.myself(),
            "queues.components": lambda c: c.queues.components("T"),
            "queues.get": lambda c: c.queues.get("T"),
            "queues.list": lambda c: c.queues.list(),
            "queues.versions": lambda c: c.queues.versions("T"),
            "remote_links.create": lambda c: c.remote_links.create("T-1", "k", "app"),
            "remote_links.list": lambda c: c.remote_links.list("T-1"),
        },
    ),
    "timeline": Scene(
        lambda fake: fake.add_event("release"),
        {
            "create": lambda c: c.create("x", NOON, external_id="e"),
            "delete": lambda c: c.delete("1"),
            "events": lambda c: c.events(tags=["web"]),
            "mark": lambda c: c.mark("x"),
            "span": lambda c: c.span("x"),
            "update": lambda c: c.update("1", end=NOON),
        },
    ),
    "tvm": Scene(
        _tvm,
        {
            "checksrv": lambda c: c.checksrv(TICKET),
            "checkusr": lambda c: c.checkusr(TICKET),
            "+forget": lambda c: c.forget("blackbox"),
            "ping": lambda c: c.ping(),
            "service_ticket": lambda c: c.service_ticket("blackbox"),
            "tickets": lambda c: c.tickets(["blackbox"]),
        },
    ),
}


def _nanny_waits(client: Any) -> Any:
    snapshot = str(client.runtime_attrs("web").snapshot_id)
    client.set_snapshot_state("web", snapshot, "online", comment="x")
    return client.wait_state("web", snapshot, "online", timeout=300.0)


# How a client is made of which all credentials are marked.


class _Tickets:
    def service_ticket(self, dst: str, /) -> str:
        return TICKET

    def forget(self, dst: str, /) -> None:
        pass


def _arguments(service: str, section: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The section of the configuration with marked secrets, and keywords beside it."""
    if service == "oauth":
        section |= {"client_secret": SECRET, "allow_password_grant": True}
    elif service == "otrs":
        section |= {"login": "robot", "password": PASSWORD}
    elif service == "tvm":
        section |= {"token": TOKEN, "timeout": {"total": 10}}
    elif service == "blackbox":
        return section, {"auth": TvmTicket(_Tickets(), "blackbox")}
    elif service == "startrek":
        section["auth"] = {"type": "oauth", "token": TOKEN, "scheme": "Bearer"}
    else:
        section["auth"] = {"type": "oauth", "token": TOKEN}
    return section, {}


class Hostile:
    """In place of a fake behind its server: from the request *strikes_at* on, *fault* answers."""

    def __init__(self) -> None:
        self.fakes: dict[str, FakeService[Any]] = {}
        """By the beginnings of paths."""
        self.fault: Callable[[FakeRequest], Delivery] | None = None
        self.strikes_at = 0
        self.asked: list[FakeRequest] = []

    def answer(self, request: FakeRequest) -> Delivery:
        self.asked.append(request)
        if self.fault is not None and len(self.asked) >= self.strikes_at:
            return self.fault(request)
        path = request.path
        return next(fake for at, fake in self.fakes.items() if path.startswith(at)).answer(request)


def _told(request: FakeRequest) -> list[str]:
    """The request, in several words."""
    credentials = [f"{name}: {value}" for name, value in request.headers.items()]
    credentials.sort(key=lambda line: MARK not in line)
    body = request.body.decode("utf-8", "replace")
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    known = base64.b64decode(encoded).decode() if scheme == "Basic" else encoded or scheme
    return [
        "\n".join(credentials),
        request.url,
        body,
        known,
        known.rpartition(":")[2],
        unquote_plus(f"{body}&{request.url}"),
        *(value for _, value in request.pairs),
        *request.form.values(),
        *([] if request.json is None else [json.dumps(request.json), repr(request.json)]),
    ]


def _refused(status: int, first: int) -> Callable[[FakeRequest], Delivery]:
    def refuse(request: FakeRequest) -> Delivery:
        told = _told(request)
        words = told[first:] + told[:first]
        body = {
            "error": words[0],
            "error_description": words[1],
            "message": words[2],
            "errorMessages": words,
            "errors": {word: word for word in words},
            "exception": {"id": 2, "value": words[0]},
            "Error": {"ErrorCode": words[1], "ErrorMessage": words[0]},
            "status": words[0],
            "request": words,
        }
        return Delivery(Reply(status, json=body), 0.0, 0.0)

    return refuse


def _in_plain_text(status: int, first: int) -> Callable[[FakeRequest], Delivery]:
    def refuse(request: FakeRequest) -> Delivery:
        told = _told(request)
        return Delivery(Reply(status, body="\n".join(told[first:] + told[:first])), 0.0, 0.0)

    return refuse


FAULTS: dict[str, Callable[[FakeRequest], Delivery]] = {
    "unavailable": lambda request: Delivery(
        Reply(503, body=" ".join(_told(request)), headers={"Retry-After": "1"}), 0.0, 0.0
    ),
    "a reset": lambda request: Delivery(None, 0.0, 0.0),
    "too late": lambda request: Delivery(Reply(), 0.3, 0.0),
    "garbage": _in_plain_text(200, 0),
    "another kind of garbage": lambda request: Delivery(
        Reply(json=[[word] for word in _told(request)]), 0.0, 0.0
    ),
    "an empty body": lambda request: Delivery(Reply(), 0.0, 0.0),
    "a refusal inside of a 200": _refused(200, 3),
    "bad request": _refused(400, 4),
    "unauthorized": _refused(401, 0),
    "forbidden, in plain text": _in_plain_text(403, 2),
    "not found, in plain text": _in_plain_text(404, 4),
    "conflict": _refused(409, 5),
    "a moved page": lambda request: Delivery(
        Reply(302, headers={"Location": f"http://other.test/?token={TOKEN}"}), 0.0, 0.0
    ),
    "a broken server": _refused(500, 6),
}


READABLE = {"another kind of garbage", "an empty body", "a refusal inside of a 200"}
"""What is no error unless a service says so."""


class Seen:
    """All that somebody who looks at logs, errors and metrics sees of one call."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.text = ""
        self.errors: list[YandexError] = []

    def add(self, value: object) -> None:
        self.text += f"{value!r} {value}\n"
        for refused in (pickle.dumps, json.dumps):
            try:
                dumped = refused(value)
            except (TypeError, ValueError, AttributeError, pickle.PicklingError):
                continue
            self.text += dumped if isinstance(dumped, str) else dumped.decode("latin-1")

    def add_error(self, error: YandexError) -> None:
        self.errors.append(error)
        self.text += "".join(traceback.format_exception(error))
        self.text += pickle.dumps(error).decode("latin-1")
        around: BaseException | None = error
        while around is not None:
            self.text += f"{around!r} {around} {vars(around)}\n"
            around = around.__cause__ or around.__context__

    def add_logs(self) -> None:
        self.text += self._caplog.text
        for entry in self._caplog.records:
            self.text += f"{vars(entry)!r} {entry.getMessage()}\n"
        self._caplog.clear()

    def add_metrics(self, recorder: MemoryRecorder) -> None:
        for name in recorder.names:
            self.text += f"{name} {recorder.series(name)}\n"

    def check(self, asked: list[FakeRequest], after: str) -> None:
        for secret in (MARK, USER_IP, *_encoded(asked)):
            at = self.text.find(secret)
            assert at < 0, f"seen, after {after}: …{self.text[max(0, at - 200) : at + 20]!r}"


def _encoded(asked: list[FakeRequest]) -> Iterator[str]:
    """Of what was sent as base64, pieces without the padding and whatever is around them."""
    for request in asked:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            yield value[20:60]


def _used(result: Any) -> Any:
    """What a caller would do with the result of a method."""
    if isinstance(result, Pager):
        return list(result)
    if isinstance(result, Stream):
        with result:
            return b"".join(result.pieces())
    if isinstance(result, AbstractContextManager):
        with result as inner:
            return inner
    if isinstance(result, Check):
        result.require()
    return result


class Stage:
    """One method of one client; `play` calls it on a service that is as new."""

    def __init__(self, service: str, method: str, caplog: pytest.LogCaptureFixture) -> None:
        self._row = next(row for row in TABLE if row.service == service)
        self._scene = SCENES[service]
        self._call = self._scene.methods[method]
        self._caplog = caplog
        self.hostile = Hostile()
        self.server = LiveServer(self.hostile)  # type: ignore[arg-type]

    def play(self, fault: str | None = None, strikes_at: int = 0) -> Seen:
        from sepelib.yandex import testing

        seen, recorder = Seen(self._caplog), MemoryRecorder()
        fake = getattr(testing, self._row.fake)()
        fake.tokens = {TOKEN}
        self._scene.seed(fake)
        self.hostile.fakes = {fake.prefix: fake}
        self.hostile.fault = None if fault is None else FAULTS[fault]
        self.hostile.strikes_at, self.hostile.asked = strikes_at, []
        root = f"http://{self.server.host}:{self.server.port}"
        section, options = _arguments(
            self._row.service, {**fake.config(), "url": root + fake.prefix}
        )
        options |= {"recorder": recorder, "clock": fake.clock, "sleep": fake.clock.sleep}
        if fault == "too late":
            options["timeout"] = (5.0, 0.02)
        if self._row.service == "passport":
            options["blackbox"] = self._blackbox(fake, root, dict(options))
        cls = getattr(
            importlib.import_module(f"sepelib.yandex.{self._row.service}"), self._row.client
        )
        with cls.from_config(section, **options) as client:
            seen.add(client)
            seen.text += f"{vars(client)}"
            try:
                result = _used(self._call(client))
                if fault is None:  # data that repeats what was sent is data
                    seen.add(result)
            except YandexError as error:
                seen.add_error(error)
        if "blackbox" in options:
            options["blackbox"].close()
        seen.add_logs()
        seen.add_metrics(recorder)
        seen.check(self.hostile.asked, f"{fault} at request {strikes_at}")
        for one in self.hostile.fakes.values():
            one.calls.assert_no_secret_in(seen.text)
        return seen

    def _blackbox(self, fake: Any, root: str, options: dict[str, Any]) -> BlackboxClient:
        from sepelib.yandex.testing import FakeBlackbox

        fake_blackbox = FakeBlackbox(accounts=fake.accounts)
        self.hostile.fakes = {fake_blackbox.prefix: fake_blackbox, **self.hostile.fakes}
        return BlackboxClient(root + fake_blackbox.prefix, **options)


@pytest.mark.parametrize(
    ("service", "method"),
    [(service, method) for service, scene in SCENES.items() for method in scene.methods],
)
def test_no_secret_is_seen(service: str, method: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")
    stage = Stage(service, method, caplog)
    with stage.server:
        seen = stage.play()

        assert seen.errors == [], "it does what it is meant to do"
        asked = stage.hostile.asked
        sent = [MARK in "\n".join(_told(request)) for request in asked]
        assert any(sent) is not method.startswith("+")
        for fault in FAULTS:
            for number in range(1, len(asked) + 1):
                stage.play(fault, number)


# That nothing is forgotten.


def _methods(client: ApiClient) -> Iterator[str]:
    """What can be called on a client and on its parts, beside what all clients have."""
    for name in sorted(set(dir(client)) - set(dir(ApiClient))):
        member = None if name.startswith("_") else getattr(client, name)
        if callable(member) and not isinstance(member, type):
            yield name
        elif type(member).__module__.startswith("sepelib.yandex."):
            parts = [part for part in dir(member) if not part.startswith("_")]
            yield from (f"{name}.{part}" for part in parts if callable(getattr(member, part)))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.service)
def test_each_method_of_each_client_is_called_above(row: Any) -> None:
    from sepelib.yandex import testing

    fake = getattr(testing, row.fake)()
    cls = getattr(importlib.import_module(f"sepelib.yandex.{row.service}"), row.client)
    with cls.from_config(fake.config(), session=fake.session()) as client:
        found = set(_methods(client))

    assert found == {method.removeprefix("+") for method in SCENES[row.service].methods}


def test_nothing_else_in_the_modules_takes_a_secret() -> None:
    found = set()
    for row in TABLE:
        module = importlib.import_module(f"sepelib.yandex.{row.service}")
        functions = (name for name in module.__all__ if callable(getattr(module, name)))
        found |= {name for name in functions if not isinstance(getattr(module, name), type)}

    assert found == {"token_from_env"}


def test_where_tokens_come_from_shows_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    monkeypatch.setenv("SANDBOX_TOKEN", TOKEN)
    sources = [
        TokenSource(TOKEN),
        TokenSource.env("SANDBOX_TOKEN"),
        TokenSource.file(file),
        TokenSource.call(lambda: TOKEN),
        token_from_env(),
    ]
    for source in sources:
        assert source.token().reveal() == TOKEN
        assert MARK not in f"{source!r} {source} {vars(source)} {source.token()!r}"


# Each way to show who one is.

AUTHS: dict[str, Auth] = {
    "oauth": OAuthToken(TOKEN),
    "iam": OAuthToken(TOKEN, scheme="Bearer"),
    "basic": BasicAuth("robot", PASSWORD),
    "service ticket": TvmTicket(_Tickets(), "staff"),
    "user ticket": UserTicket(TICKET),
    "cookies": SessionCookie(COOKIE, ssl_session_id=marked("ssl")),
    "all": CombinedAuth(
        TvmTicket(_Tickets(), "staff"), UserTicket(TICKET), SessionCookie(COOKIE), OAuthToken(TOKEN)
    ),
}


class _Anybody(ApiClient):
    service = "anybody"
    PATHS = {"ask": "/ask"}


@pytest.mark.parametrize("auth", AUTHS.values(), ids=AUTHS)
@pytest.mark.parametrize("fault", FAULTS)
def test_no_credential_of_any_kind_is_seen(
    auth: Auth, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hostile, seen, recorder, clock = Hostile(), Seen(caplog), MemoryRecorder(), Clock()
    hostile.fault = FAULTS[fault]
    sends: list[dict[str, Any]] = [
        {"params": {"oauth_token": TOKEN, "q": "x"}},
        {"data": {"password": PASSWORD, "userip": USER_IP}},
        {"json": {"refresh_token": REFRESH, "deep": [{"client_secret": SECRET}]}},
        {"headers": {"X-Ya-User-Ticket": TICKET, "X-Scroll-Token": marked("scroll")}},
        {"auth": OAuthToken(marked("other"))},
    ]
    server = LiveServer(hostile)  # type: ignore[arg-type]
    with server:
        url = f"http://{server.host}:{server.port}"
        options: dict[str, Any] = {"clock": clock, "sleep": clock.sleep, "recorder": recorder}
        with _Anybody(url, auth, timeout=(5.0, 0.05), **options) as client:
            seen.add(client)
            seen.add(auth)
            for more in sends:
                try:
                    client.request("ask", "POST", idempotent=True, **more)
                except YandexError as error:
                    seen.add_error(error)
            client.close()
    seen.add_logs()
    seen.add_metrics(recorder)
    assert hostile.asked and (seen.errors or fault in READABLE)
    seen.check(hostile.asked, fault)
