"""The fake of the OAuth server, asked by plain requests: each error that is published."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sepelib.yandex.testing import (
    Accounts,
    FakeOAuth,
    FakePassport,
    FakeService,
    FakeTvmTool,
    check_shape,
    sample,
)

CLIENT = (FakeOAuth.client_id, FakeOAuth.client_secret)


@pytest.fixture
def fake() -> Iterator[FakeOAuth]:
    fake = FakeOAuth()
    fake.add_user("ann", uid=11, password="pw")
    yield fake
    fake.check()


def post(
    fake: FakeOAuth,
    path: str = "/token",
    auth: tuple[str, str] | None = CLIENT,
    /,
    **form: str,
) -> requests.Response:
    return fake.session().post(fake.url + path, data=form, auth=auth, timeout=5)


def refusal(answer: requests.Response) -> tuple[int, str]:
    said = answer.json()
    check_shape(said, sample("oauth", "expired_code").json)
    return answer.status_code, said["error"]


def by_code(fake: FakeOAuth, **options: Any) -> dict[str, str]:
    return {"grant_type": "authorization_code", "code": fake.add_code(uid=11, **options)}


def test_it_answers_in_the_published_shapes(fake: FakeOAuth) -> None:
    token = post(fake, **by_code(fake, asked=["a"])).json()
    check_shape(token, sample("oauth", "token").json)
    assert "scope" not in token and token["expires_in"] == 31536000
    less = post(fake, **by_code(fake, asked=["a", "b"], granted=["a"])).json()
    check_shape(less, sample("oauth", "token_scope").json)
    codes = post(fake, "/device/code", None, client_id=fake.client_id).json()
    check_shape(codes, sample("oauth", "device_codes").json)
    answer = post(fake, grant_type="device_code", code=codes["device_code"])
    assert refusal(answer) == (400, "authorization_pending")


def test_a_client_shows_itself_by_basic_or_in_the_form(fake: FakeOAuth) -> None:
    form = {"client_id": CLIENT[0], "client_secret": CLIENT[1]}
    assert post(fake, "/token", None, **form, **by_code(fake)).status_code == 200
    assert post(fake, **by_code(fake)).status_code == 200

    wrong = (CLIENT[0], "wrong")
    assert refusal(post(fake, "/token", wrong, **by_code(fake))) == (401, "invalid_client")
    assert refusal(post(fake, "/token", None, **by_code(fake))) == (400, "invalid_client")
    assert refusal(post(fake, "/device/code", None, client_id="x")) == (400, "invalid_client")


def test_what_is_wrong_with_a_request_has_the_published_name(fake: FakeOAuth) -> None:
    assert refusal(post(fake, grant_type="magic")) == (400, "unsupported_grant_type")
    assert refusal(post(fake, code="1")) == (400, "invalid_request")
    assert refusal(post(fake, grant_type="authorization_code")) == (400, "invalid_request")
    assert refusal(post(fake, **by_code(fake), scopes="a")) == (400, "invalid_request")
    assert refusal(post(fake, "/token?code=1", **by_code(fake))) == (400, "invalid_request")
    session = fake.session()
    json = session.post(f"{fake.url}/token", json=by_code(fake), auth=CLIENT, timeout=5)
    assert refusal(json) == (415, "invalid_request")


def test_an_application_has_its_scopes_and_may_be_blocked(fake: FakeOAuth) -> None:
    app = fake.accounts.add_app("app", "app-secret", scopes=["a"])
    ask = {"client_id": "app", "scope": "a b"}
    assert refusal(post(fake, "/device/code", None, **ask)) == (400, "invalid_scope")
    app.blocked = True
    answer = post(fake, "/token", ("app", "app-secret"), **by_code(fake, client_id="app"))
    assert refusal(answer) == (400, "unauthorized_client")


def test_a_code_of_another_application_is_no_grant(fake: FakeOAuth) -> None:
    fake.accounts.add_app("app", "app-secret")
    assert refusal(post(fake, **by_code(fake, client_id="app"))) == (400, "invalid_grant")
    fake.accounts.add_token("y0_of-app", uid=11, client_id="app")
    answer = post(fake, "/revoke_token", access_token="y0_of-app")
    assert refusal(answer) == (400, "invalid_grant") and "y0_of-app" in fake.accounts.tokens


def test_the_oldest_token_of_too_many_devices_dies(fake: FakeOAuth) -> None:
    tokens = [
        post(fake, **by_code(fake, device_id=f"device-{number}")).json()["access_token"]
        for number in range(31)
    ]
    unbound = post(fake, **by_code(fake)).json()["access_token"]
    assert list(fake.accounts.tokens) == [*tokens[1:], unbound]


def test_an_authorize_url_that_the_server_would_not_take_is_told(fake: FakeOAuth) -> None:
    url = f"{fake.url}/authorize?response_type="
    for wrong in (f"{url}token&client_id=fake-client", f"{url}code&client_id=x", fake.url):
        with pytest.raises(AssertionError):
            fake.confirm(wrong, uid=11)


@pytest.mark.parametrize("kind", [FakeOAuth, FakePassport, FakeTvmTool])
def test_a_reset_is_as_new(kind: type[FakeService[Any]]) -> None:
    fake = kind()
    if isinstance(fake, FakeTvmTool):
        fake.add_destination("blackbox", 222)
        fake.rotate()
    else:
        assert isinstance(fake, FakeOAuth | FakePassport)
        fake.accounts.add_user("ann")
        if isinstance(fake, FakeOAuth):
            post(fake, "/device/code", None, client_id=fake.client_id)
            fake.state.slow_down = True
    fake.reset()
    assert fake.state == kind().state
    assert getattr(fake, "accounts", Accounts()) == Accounts()
