"""The configuration of a daemon that knows all services, and credentials that change under it."""

from __future__ import annotations

import os
import threading
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sepelib.core.config import ConfigError
from sepelib.util.retry import RetryPolicy
from sepelib.yandex.auth import OAuthToken, TokenSource
from sepelib.yandex.base import ApiClient
from sepelib.yandex.contract import SERVICES
from sepelib.yandex.errors import CredentialsUnavailable, Unauthorized, YandexError
from sepelib.yandex.staff import StaffClient
from sepelib.yandex.testing import FakeStaff, YandexFakes
from sepelib.yandex.testing._fakes import TABLE

both_transports = pytest.mark.yandex(transport="both")
LIMIT = 20.0
SECRET = "hunter22"


def client_class(service: str) -> type[ApiClient]:
    row = next(row for row in TABLE if row.service == service)
    found: type[ApiClient] = getattr(import_module(f"sepelib.yandex.{service}"), row.client)
    return found


def test_the_fakes_have_a_section_for_each_service(yandex_fakes: YandexFakes) -> None:
    assert list(yandex_fakes.config()) == list(SERVICES)


@both_transports
def test_one_configuration_makes_all_nineteen_clients(yandex_fakes: YandexFakes) -> None:
    for service, section in yandex_fakes.config().items():
        fake = yandex_fakes[service]
        fake.faults.on("*", status=418)
        once = RetryPolicy(YandexError, attempts=1)
        cls = client_class(service)
        with cls.from_config(section, session=fake.session(), retry=once) as client:
            assert client.service == service and fake.root in repr(client)
            with pytest.raises(YandexError, match="status 418"):
                client.request("probe", "GET", "/probe")
        assert len(fake.calls) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_an_unknown_key_is_named(yandex_fakes: YandexFakes, service: str) -> None:
    section = {**yandex_fakes.config(service)[service], "tiemout": {"read": 1}}

    with pytest.raises(ConfigError, match=f"^{service} has the unknown key tiemout"):
        client_class(service).from_config(section)


@pytest.mark.parametrize("service", SERVICES)
def test_the_words_about_a_section_have_no_secret_of_it(
    yandex_fakes: YandexFakes, service: str
) -> None:
    section = yandex_fakes.config(service)[service]
    section |= {name: SECRET for name in section if name in ("password", "client_secret")}
    if "auth" in section:
        section["auth"] |= {"token": SECRET}

    with pytest.raises(ConfigError, match="zzz") as caught:
        client_class(service).from_config({**section, "zzz": SECRET})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("service", SERVICES)
def test_all_clients_take_what_all_sections_may_have(
    yandex_fakes: YandexFakes, service: str
) -> None:
    section = yandex_fakes.config(service)[service]
    common = {
        "timeout": {"connect": 2, "read": 3, "total": 4},
        "retries": {"attempts": 2, "backoff": [0.5, 4.0], "budget": 0.1},
        "headers": {"X-Team": "web"},
        "verify": "/etc/ssl/bundle.pem",
        "max_connections": 3,
        "max_body": 1000,
        "paths": {},
    }

    with client_class(service).from_config({**section, **common}) as client:
        assert client._timeout == (2.0, 3.0) and client._total_timeout == 4.0
        assert client._policy.attempts == 2 and client._policy.budget is not None
        assert client._slots.size == 3 and client._max_body == 1000


# Tokens that change under a running client.


@pytest.fixture
def token_file(tmp_path: Path, fake_staff: FakeStaff) -> Path:
    file = tmp_path / "token"
    file.write_text(fake_staff.token + "\n")
    fake_staff.add_person("ann")
    return file


@pytest.fixture
def staff(yandex_fakes: YandexFakes, fake_staff: FakeStaff, token_file: Path) -> StaffClient:
    auth = OAuthToken(TokenSource.file(token_file))
    found = yandex_fakes.client("staff", auth=auth)
    assert isinstance(found, StaffClient)
    return found


def rotate(file: Path, token: str) -> None:
    """As a daemon of secrets does it: another file in its place."""
    new = file.with_suffix(".new")
    new.write_text(token)
    os.replace(new, file)


def tokens(fake: FakeStaff) -> list[str]:
    return [call.headers["Authorization"].removeprefix("OAuth ") for call in fake.calls]


@both_transports
def test_a_token_file_that_changes_is_picked_up(
    staff: StaffClient, fake_staff: FakeStaff, token_file: Path
) -> None:
    assert staff.person("ann")
    fake_staff.tokens = {"the new token"}
    rotate(token_file, "the new token")

    assert staff.person("ann")

    assert tokens(fake_staff) == ["fake-staff-token", "the new token"], "without a 401"


@both_transports
def test_a_file_from_the_configuration_is_picked_up_too(
    yandex_fakes: YandexFakes, fake_staff: FakeStaff, token_file: Path
) -> None:
    section = {**fake_staff.config(), "auth": {"type": "oauth", "token_file": str(token_file)}}
    with StaffClient.from_config(section, session=fake_staff.session()) as staff:
        assert staff.person("ann")
        fake_staff.tokens = {"the new token"}
        rotate(token_file, "the new token")
        assert staff.person("ann")
    assert tokens(fake_staff)[-1] == "the new token"


@both_transports
def test_a_token_that_is_over_is_reloaded_once(
    yandex_fakes: YandexFakes, fake_staff: FakeStaff, token_file: Path
) -> None:
    given = iter(["old", "new", "newer", "newest"])
    kept = [next(given)]
    source = TokenSource.call(lambda: kept[0], invalidate=lambda: kept.insert(0, next(given)))
    staff = yandex_fakes.client("staff", auth=OAuthToken(source))
    fake_staff.tokens = {"new"}

    assert staff.person("ann")
    assert tokens(fake_staff) == ["old", "new"]
    assert staff.person("ann") and tokens(fake_staff) == ["old", "new", "new"]

    fake_staff.tokens = {"newest"}
    with pytest.raises(Unauthorized) as caught:
        staff.person("ann")
    assert tokens(fake_staff)[3:] == ["new", "newer"], "once, not until it fits"
    assert caught.value.attempts == 2


@both_transports
def test_a_token_that_nobody_can_renew_is_sent_once(
    staff: StaffClient, fake_staff: FakeStaff
) -> None:
    fake_staff.tokens = {"another one"}
    with pytest.raises(Unauthorized):
        staff.person("ann")
    assert len(fake_staff.calls) == 1


@both_transports
def test_a_token_that_changes_while_an_answer_is_awaited_is_sent_next(
    staff: StaffClient, fake_staff: FakeStaff, token_file: Path
) -> None:
    fake_staff.faults.next("persons", delay=0.5)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(staff.person("ann")))
    asking.start()
    while not fake_staff.calls:
        asking.join(0.01)
    rotate(token_file, "the new token")
    fake_staff.tokens = {"the new token"}
    asking.join(LIMIT)

    assert answers and answers[0]["login"] == "ann", "it was asked with the old one in time"
    assert staff.person("ann") and tokens(fake_staff)[-1] == "the new token"


@both_transports
def test_a_token_that_changes_between_two_attempts_is_in_the_second(
    yandex_fakes: YandexFakes, fake_staff: FakeStaff, token_file: Path
) -> None:
    def rotated(seconds: float) -> None:
        rotate(token_file, "the new token")
        fake_staff.tokens = {"the new token"}

    auth = OAuthToken(TokenSource.file(token_file))
    staff = yandex_fakes.client("staff", auth=auth, sleep=rotated)
    fake_staff.faults.next("persons", status=503)

    assert staff.person("ann")
    assert tokens(fake_staff) == ["fake-staff-token", "the new token"]


def test_a_file_that_was_never_there_sends_nothing(fake_staff: FakeStaff, tmp_path: Path) -> None:
    auth = OAuthToken(TokenSource.file(tmp_path / "none"))
    with (
        StaffClient(fake_staff.url, auth, session=fake_staff.session()) as staff,
        pytest.raises(CredentialsUnavailable, match=r"token file .*none cannot be read"),
    ):
        staff.person("ann")
    assert len(fake_staff.calls) == 0
