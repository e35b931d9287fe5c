"""A client of a section of the configuration; what does not fit is named, its value is not."""

from typing import Any

import pytest

from sepelib.core.config import ConfigError
from sepelib.util.secrets import Secret
from sepelib.yandex.base import ApiClient
from sepelib.yandex.testing import FakeRequest, FakeService, route


class FakeOne(FakeService[None]):
    service = "one"

    def new_state(self) -> None:
        return None

    @route("GET", "/thing", op="thing.get")
    @route("GET", "/other", op="other.get")
    def _get(self, request: FakeRequest) -> object:
        return {"path": request.path, "org": request.headers.get("X-Org-ID")}


class OneClient(ApiClient):
    service = "one"
    PATHS = {"thing.get": "/thing"}
    OPTIONS = {"org_id": (str, int), "secret": (str, Secret)}

    def __init__(
        self, *args: Any, org_id: str | int | None = None, secret: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.org_id = org_id
        self.secret = secret


FULL: dict[str, Any] = {
    "url": "http://one.test",
    "auth": {"type": "oauth", "token": "fake-one-token"},
    "timeout": {"connect": 1, "read": 10, "total": 30},
    "retries": {"attempts": 2, "backoff": [0.5, 4.0], "budget": 0.1},
    "headers": {"X-Org-ID": "7"},
    "paths": {"thing.get": "/other"},
    "verify": "/etc/ssl/bundle.pem",
    "max_connections": 3,
    "max_body": 1000,
    "org_id": 12,
    "secret": Secret("s"),
}


def test_all_that_a_section_may_have_reaches_the_client() -> None:
    fake = FakeOne()
    client = OneClient.from_config(FULL, session=fake.session())
    assert client.request("thing.get", "GET").data == {"path": "/other", "org": "7"}
    assert client.org_id == 12 and client.secret == Secret("s")
    assert client._timeout == (1.0, 10.0) and client._total_timeout == 30.0
    assert client._policy.attempts == 2
    assert (client._policy.backoff.base, client._policy.backoff.cap) == (0.5, 4.0)
    assert client._slots.size == 3 and client._max_body == 1000
    fake.faults.on("*", status=500)
    with pytest.raises(Exception, match="status 500"):
        OneClient.from_config(
            {"url": fake.url, "retries": {"attempts": 2, "backoff": [0, 0]}, "auth": FULL["auth"]},
            session=fake.session(),
        ).request("thing.get", "GET")
    assert len(fake.calls.of("thing.get")) == 2


def test_a_section_may_be_small() -> None:
    client = OneClient.from_config({"url": ["http://a.test", "http://b.test/base/"]})
    assert client._bases == ("http://a.test", "http://b.test/base")
    assert client._timeout == (1.0, 10.0) and client._total_timeout == 30.0
    client.close()


def test_null_is_no_limit_where_there_may_be_none() -> None:
    section = {"url": "http://a.test", "timeout": {"read": None, "total": None}, "org_id": None}
    with OneClient.from_config(section) as client:
        assert client._timeout == (1.0, None) and client._total_timeout is None


def test_keywords_are_added_to_the_section() -> None:
    client = OneClient.from_config({"url": "http://a.test"}, org_id="x", max_connections=1)
    assert client.org_id == "x" and client._slots.size == 1
    client.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tiemout": {}}, "one has the unknown key tiemout"),
        ({"timeout": {"reed": 1}}, r"one\.timeout has the unknown key reed"),
        ({"timeout": 10}, r"one\.timeout is not a mapping"),
        ({"timeout": {"read": "fast"}}, r"one\.timeout\.read is not a number"),
        ({"timeout": {"read": -1}}, r"one\.timeout\.read is not a number"),
        ({"timeout": {"read": True}}, r"one\.timeout\.read is not a number"),
        ({"timeout": {"read": float("nan")}}, r"one\.timeout\.read is not a number"),
        ({"retries": {"attempts": 0}}, r"one\.retries\.attempts is not a whole number"),
        ({"retries": {"backoff": 3}}, r"one\.retries\.backoff is not \[first, longest\]"),
        ({"retries": {"tries": 3}}, r"one\.retries has the unknown key tries"),
        ({"auth": {"type": "oauth", "tokn": "s3cret"}}, "one of token"),
        ({"auth": "s3cret"}, r"one\.auth is not a mapping"),
        ({"url": 7}, r"one\.url is not a text or a list"),
        ({"url": []}, r"one\.url is not a text or a list"),
        ({"headers": {"X": 7}}, r"one\.headers is not a mapping of texts"),
        ({"max_connections": "3"}, r"one\.max_connections is not int"),
        ({"max_connections": True}, r"one\.max_connections is not int"),
        ({"verify": 1}, r"one\.verify is not bool or str"),
        ({"org_id": 1.5}, r"one\.org_id is not str or int"),
        ({"secret": ["s3cret"]}, r"one\.secret is not str or Secret"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        OneClient.from_config({"url": "http://a.test", **change})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("section", [None, [], "x", {7: 8}])
def test_what_is_no_section_is_refused(section: Any) -> None:
    with pytest.raises(ConfigError, match="one is not a mapping"):
        OneClient.from_config(section)


def test_a_path_that_nobody_asks_for_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^one: paths has the unknown operation thing\.got"):
        OneClient.from_config({"url": "http://a.test", "paths": {"thing.got": "/x"}})
