"""Clients of sepelib.yandex with what they are handed: a session, a registry, an authenticator."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Set
from datetime import datetime
from typing import Any, Protocol

import pytest

from sepelib.http import InstrumentedSession
from sepelib.metrics import Registry
from sepelib.util import instrument
from sepelib.util.deadline import DeadlineExceeded, deadline
from sepelib.util.testing import MemoryRecorder
from sepelib.yandex.blackbox import BlackboxClient
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiTimeout,
    NotFound,
    ServerError,
)
from sepelib.yandex.staff import StaffClient
from sepelib.yandex.startrek import StartrekClient
from sepelib.yandex.testing import FakeBlackbox, FakeStaff, FakeStartrek

# Over an InstrumentedSession.


@pytest.fixture
def fake() -> Iterator[FakeStartrek]:
    fake = FakeStartrek()
    fake.add_queue("T")
    fake.add_issue("T", "one")
    with fake.serve():
        yield fake


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def session(recorder: MemoryRecorder) -> Iterator[InstrumentedSession]:
    with InstrumentedSession("startrek", recorder=recorder) as session:
        yield session


@pytest.fixture
def client(
    fake: FakeStartrek, session: InstrumentedSession, recorder: MemoryRecorder
) -> Iterator[StartrekClient]:
    options: dict[str, Any] = {"sleep": lambda seconds: None, "recorder": recorder}
    with StartrekClient.from_config(fake.config(), session=session, **options) as client:
        yield client


def test_a_client_over_a_session_that_retries_makes_three_requests_and_not_nine(
    fake: FakeStartrek, client: StartrekClient, recorder: MemoryRecorder
) -> None:
    fake.faults.on("issues.get", status=503)
    with pytest.raises(ServerError) as caught:
        client.issues.get("T-1")

    assert caught.value.attempts == 3 == len(fake.calls)
    assert [call.attempt for call in fake.calls] == [1, 2, 3]
    assert sum(recorder.series("http_client_requests").values()) == 3
    assert recorder.value("http_client_retries", "startrek") == 0, "only one of the two retries"
    assert recorder.value("yandex_requests", "startrek", "issues.get", "5xx") == 3


def test_a_lost_connection_is_asked_for_three_times_too(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.faults.on("issues.get", reset="before-apply")
    with pytest.raises(ApiConnectionError) as caught:
        client.issues.get("T-1")
    assert caught.value.attempts == 3 == len(fake.calls)


def test_a_change_whose_answer_is_lost_is_sent_once_and_may_have_been_applied(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.faults.on("comments.create", reset="after-apply")
    with pytest.raises(ApiConnectionError) as caught:
        client.comments.create("T-1", "text")
    assert caught.value.maybe_applied and len(fake.calls) == 1


def test_a_service_that_is_down_has_certainly_done_nothing(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.down = True
    with pytest.raises(ApiConnectionError) as caught:
        client.comments.create("T-1", "text")
    assert caught.value.attempts == 3 and not caught.value.maybe_applied
    fake.down = False
    assert client.comments.create("T-1", "text").id == 1


def test_a_deadline_from_above_holds_through_both(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.faults.on("*", drip=0.05)
    with pytest.raises(DeadlineExceeded) as caught, deadline(0.3):
        client.issues.get("T-1")
    assert isinstance(caught.value, ApiTimeout)


def test_results_are_those_of_a_plain_session(client: StartrekClient) -> None:
    made = client.issues.create("T", "two")
    assert client.issues.get("T-2") == made
    assert [issue.key for issue in client.issues.scroll(filter={"queue": "T"})] == ["T-1", "T-2"]
    with pytest.raises(NotFound):
        client.issues.get("T-9")


def test_the_session_stays_its_owners(session: InstrumentedSession, fake: FakeStartrek) -> None:
    with StartrekClient.from_config(fake.config(), session=session) as client:
        client.issues.get("T-1")
    answer = session.get(
        f"{fake.url}/v2/issues/T-1", headers={"Authorization": f"OAuth {fake.token}"}
    )
    assert answer.status_code == 200


# In a registry.


def test_a_registry_shows_what_a_client_does(fake: FakeStartrek) -> None:
    registry = Registry()
    options: dict[str, Any] = {"recorder": registry, "sleep": lambda seconds: None}
    with StartrekClient.from_config(fake.config(), **options) as client:
        fake.faults.next("issues.get", status=503)
        client.issues.get("T-1")
        with pytest.raises(NotFound):
            client.issues.get("T-2")

    text = registry.dump("prometheus")[0].decode()
    for result, count in (("ok", 1), ("4xx", 1), ("5xx", 1)):
        labels = f'service="startrek",op="issues.get",result="{result}"'
        assert f"yandex_requests_total{{{labels}}} {count}" in text
    assert 'yandex_seconds_count{service="startrek",op="issues.get"} 3' in text


def test_one_line_lights_up_clients_that_were_made_before(fake: FakeStartrek) -> None:
    registry = Registry()
    with StartrekClient.from_config(fake.config()) as client:
        former = instrument.install(registry)
        try:
            client.issues.get("T-1")
        finally:
            instrument.install(former)

    assert b'op="issues.get",result="ok"} 1' in registry.dump("prometheus")[0]


# Shapes that an authenticator takes.


class Verdict(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def uid(self) -> str | None: ...
    @property
    def login(self) -> str | None: ...
    @property
    def scopes(self) -> Set[str]: ...
    @property
    def expires_at(self) -> datetime | None: ...


class Blackbox(Protocol):
    def check_token(self, token: str, user_ip: str) -> Verdict: ...
    def check_session(
        self, session_id: str, user_ip: str, host: str, *, ssl_session_id: str | None = None
    ) -> Verdict: ...


class GroupSource(Protocol):
    def groups_of(self, login: str) -> Set[str]: ...


STATUSES = {"valid", "need_reset", "expired", "noauth", "disabled", "invalid"}


def test_a_blackbox_client_is_a_blackbox() -> None:
    fake = FakeBlackbox()
    fake.add_user("ann", uid=11)
    fake.add_token("token", uid=11, scopes=["tool:read"])
    fake.add_session("cookie", uid=11, hosts=["tool.example"], old=True)
    with BlackboxClient.from_config(fake.config(), session=fake.session()) as client:
        blackbox: Blackbox = client  # held by mypy too

        verdict = blackbox.check_token("token", "127.0.0.1")
        assert (verdict.status, verdict.uid, verdict.login) == ("valid", "11", "ann")
        assert verdict.scopes == {"tool:read"} and verdict.expires_at is None
        assert blackbox.check_token("other", "127.0.0.1").status == "invalid"

        verdict = blackbox.check_session("cookie", "127.0.0.1", "tool.example")
        assert (verdict.status, verdict.login, verdict.scopes) == ("need_reset", "ann", frozenset())
        verdict = blackbox.check_session("cookie", "127.0.0.1", "x", ssl_session_id="y")
        assert verdict.status in STATUSES - {"valid", "need_reset"}


def test_a_staff_client_is_a_source_of_groups() -> None:
    fake = FakeStaff()
    for login in ("ann", "bob"):
        fake.add_person(login)
    fake.add_group("web", "ann")
    fake.add_group("ops", "ann", "bob")
    with StaffClient.from_config(fake.config(), session=fake.session()) as client:
        groups: GroupSource = client  # held by mypy too

        assert groups.groups_of("ann") == {"web", "ops"}
        assert isinstance(groups.groups_of("nobody"), Set) and not groups.groups_of("nobody")


@pytest.mark.parametrize(("cls", "shape"), [(BlackboxClient, Blackbox), (StaffClient, GroupSource)])
def test_the_parameters_are_called_as_in_the_shape(cls: type, shape: type) -> None:
    for name, member in vars(shape).items():
        if not name.startswith("_"):
            wanted = inspect.signature(member).parameters.values()
            found = inspect.signature(getattr(cls, name)).parameters.values()
            assert [(p.name, p.kind, p.default) for p in found] == [
                (p.name, p.kind, p.default) for p in wanted
            ]
