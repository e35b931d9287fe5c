"""auth.qe: fails closed."""

import json
from typing import Any

import pytest

from sepelib.core.config import ConfigError
from sepelib.util.deadline import deadline
from sepelib.yandex.auth_qe import AuthQeClient
from sepelib.yandex.errors import ApiProtocolError, DeadlineExceeded, NotFound, ServerError
from sepelib.yandex.testing import FakeAuthQe, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def auth_qe(yandex_fakes: YandexFakes) -> AuthQeClient:
    return made(yandex_fakes)


def made(fakes: YandexFakes, **options: Any) -> AuthQeClient:
    clock = fakes.clock
    client = fakes.client("auth_qe", clock=clock, sleep=clock.sleep, **options)
    assert isinstance(client, AuthQeClient)
    return client


def test_a_role_is_a_role_in_a_project(fake_auth_qe: FakeAuthQe, auth_qe: AuthQeClient) -> None:
    fake_auth_qe.grant("ann", "web", "admin", "reader")
    fake_auth_qe.grant("bob", "web", "reader")
    assert auth_qe.is_allowed("ann", "web", "admin")
    assert not auth_qe.is_allowed("ann", "mail", "admin")
    assert not auth_qe.is_allowed("bob", "web", "admin")
    assert auth_qe.roles("ann", "web") == {"admin", "reader"}
    assert list(auth_qe.users("web", "reader")) == ["ann", "bob"]
    fake_auth_qe.revoke("ann", "web", "admin")
    assert not auth_qe.is_allowed("ann", "web", "admin")
    assert fake_auth_qe.calls.of("allowed")[-1].query == {
        "login": "ann",
        "project": "web",
        "role": "admin",
    }


def test_a_user_that_is_not_known_has_no_roles(auth_qe: AuthQeClient) -> None:
    assert not auth_qe.is_allowed("nobody", "web", "admin")
    assert auth_qe.roles_of("nobody", "web") == frozenset()
    with pytest.raises(NotFound):
        auth_qe.roles("nobody", "web")


@pytest.mark.parametrize("allowed", ["true", 1, "yes", None, {}, [True]])
def test_only_true_is_a_yes(
    fake_auth_qe: FakeAuthQe, auth_qe: AuthQeClient, allowed: object
) -> None:
    fake_auth_qe.grant("ann", "web", "admin")
    fake_auth_qe.faults.on("allowed", body=json.dumps({"allowed": allowed}).encode())
    with pytest.raises(ApiProtocolError, match="does not say allowed") as caught:
        auth_qe.is_allowed("ann", "web", "admin")
    assert caught.value.attempts == 3


@pytest.mark.parametrize("body", [b"true", b"[]", b"{}", b"", b"<html>"])
def test_an_answer_that_means_nothing_is_an_error(
    fake_auth_qe: FakeAuthQe, auth_qe: AuthQeClient, body: bytes
) -> None:
    fake_auth_qe.grant("ann", "web", "admin")
    fake_auth_qe.faults.on("*", body=body)
    with pytest.raises(ApiProtocolError):
        auth_qe.is_allowed("ann", "web", "admin")
    with pytest.raises(ApiProtocolError):
        auth_qe.roles_of("ann", "web")
    with pytest.raises(ApiProtocolError):
        list(auth_qe.users("web", "admin"))


def test_an_error_is_never_an_answer(fake_auth_qe: FakeAuthQe, auth_qe: AuthQeClient) -> None:
    fake_auth_qe.grant("ann", "web", "admin")
    assert auth_qe.is_allowed("ann", "web", "admin")
    fake_auth_qe.faults.on("*", status=500)
    with pytest.raises(ServerError):
        auth_qe.is_allowed("ann", "web", "admin")


def test_an_answer_is_remembered_as_long_as_it_was_said(
    fake_auth_qe: FakeAuthQe, yandex_fakes: YandexFakes
) -> None:
    auth_qe = made(yandex_fakes, cache_ttl=60.0)
    fake_auth_qe.grant("ann", "web", "admin")
    assert auth_qe.is_allowed("ann", "web", "admin")
    assert not auth_qe.is_allowed("bob", "web", "admin")
    fake_auth_qe.revoke("ann", "web")
    fake_auth_qe.clock.advance(59.0)
    assert auth_qe.is_allowed("ann", "web", "admin")
    assert not auth_qe.is_allowed("bob", "web", "admin")
    assert len(fake_auth_qe.calls.of("allowed")) == 2
    fake_auth_qe.clock.advance(1.0)
    assert not auth_qe.is_allowed("ann", "web", "admin")


def test_without_stale_ttl_an_old_answer_is_none(
    fake_auth_qe: FakeAuthQe, yandex_fakes: YandexFakes
) -> None:
    auth_qe = made(yandex_fakes, cache_ttl=60.0)
    fake_auth_qe.grant("ann", "web", "admin")
    assert auth_qe.is_allowed("ann", "web", "admin")
    fake_auth_qe.clock.advance(61.0)
    fake_auth_qe.faults.on("*", status=500)
    with pytest.raises(ServerError):
        auth_qe.is_allowed("ann", "web", "admin")


def test_with_stale_ttl_an_old_answer_is_given_while_the_service_fails(
    fake_auth_qe: FakeAuthQe, yandex_fakes: YandexFakes, caplog: pytest.LogCaptureFixture
) -> None:
    auth_qe = made(yandex_fakes, cache_ttl=60.0, stale_ttl=600.0)
    fake_auth_qe.grant("ann", "web", "admin")
    assert auth_qe.is_allowed("ann", "web", "admin")
    fake_auth_qe.clock.advance(100.0)
    fake_auth_qe.faults.on("*", status=500)
    assert auth_qe.is_allowed("ann", "web", "admin")
    assert "values that expired are given instead" in caplog.text
    with pytest.raises(ServerError):
        auth_qe.is_allowed("bob", "web", "admin")
    fake_auth_qe.clock.advance(600.0)
    with pytest.raises(ServerError):
        auth_qe.is_allowed("ann", "web", "admin")


def test_a_definite_no_replaces_an_old_yes(
    fake_auth_qe: FakeAuthQe, yandex_fakes: YandexFakes
) -> None:
    auth_qe = made(yandex_fakes, cache_ttl=60.0, stale_ttl=600.0)
    fake_auth_qe.grant("ann", "web", "admin")
    assert auth_qe.is_allowed("ann", "web", "admin")
    fake_auth_qe.revoke("ann", "web")
    fake_auth_qe.clock.advance(100.0)
    assert not auth_qe.is_allowed("ann", "web", "admin")
    fake_auth_qe.clock.advance(100.0)
    fake_auth_qe.faults.on("*", status=500)
    assert not auth_qe.is_allowed("ann", "web", "admin")


def test_a_question_to_the_cache_ends_with_its_deadline(
    fake_auth_qe: FakeAuthQe, yandex_fakes: YandexFakes
) -> None:
    auth_qe = made(yandex_fakes, cache_ttl=60.0)
    with deadline(1.0, clock=fake_auth_qe.clock):
        fake_auth_qe.clock.advance(2.0)
        with pytest.raises(DeadlineExceeded, match="auth_qe allowed"):
            auth_qe.is_allowed("ann", "web", "admin")


def test_the_cache_is_configured_and_a_stale_one_alone_is_refused(
    fake_auth_qe: FakeAuthQe,
) -> None:
    section = {**fake_auth_qe.config(), "cache_ttl": 60, "stale_ttl": 600.0}
    AuthQeClient.from_config(section).close()
    with pytest.raises(ConfigError, match=r"auth_qe\.stale_ttl is not int or float"):
        AuthQeClient.from_config({**section, "stale_ttl": "long"})
    with pytest.raises(ValueError, match="give both"):
        AuthQeClient(fake_auth_qe.url, stale_ttl=600.0)


@pytest.mark.parametrize("roles", [[{}], [["admin"]], [None], ["admin", 1], "admin"])
def test_roles_are_texts_or_an_error(
    fake_auth_qe: FakeAuthQe, auth_qe: AuthQeClient, roles: object
) -> None:
    fake_auth_qe.grant("ann", "web", "admin")
    fake_auth_qe.faults.on("roles", body=json.dumps({"roles": roles}).encode())
    with pytest.raises(ApiProtocolError, match="does not say roles"):
        auth_qe.roles_of("ann", "web")


@pytest.mark.parametrize("nobody", ["", None])
def test_nobody_is_asked_about_nobody(
    fake_auth_qe: FakeAuthQe, auth_qe: AuthQeClient, nobody: Any
) -> None:
    """A question without a login could be taken for one about the caller."""
    asks = (nobody, "web", "admin"), ("ann", nobody, "admin"), ("ann", "web", nobody)
    for ask in asks:
        with pytest.raises(ValueError, match="is not empty"):
            auth_qe.is_allowed(*ask)
    with pytest.raises(ValueError, match=r"allowed\(\) needs its login"):
        auth_qe.allowed(None, "web", "admin")  # type: ignore[arg-type]
    assert not fake_auth_qe.calls
