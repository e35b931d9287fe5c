"""http_mock with our own session and client: what passes through them is what they would send."""

import pytest
import requests
from responses import RequestsMock, matchers

from sepelib.http import InstrumentedSession, NotFound, RestClient, TransportError
from sepelib.util.retry import RetryPolicy
from sepelib.util.testing import MemoryRecorder

pytest_plugins = ["sepelib.http.pytest_plugin"]

URL = "http://staff.example/api"


def once() -> RetryPolicy:
    return RetryPolicy(requests.RequestException, attempts=1)


def test_a_client_gets_the_answer_and_the_mock_sees_the_call(http_mock: RequestsMock) -> None:
    http_mock.post(
        f"{URL}/users/a%2Fb/keys",
        json={"id": 1},
        status=201,
        match=[
            matchers.json_params_matcher({"key": "k"}),
            matchers.header_matcher({"Accept": "application/json", "Authorization": "OAuth t"}),
        ],
    )
    client = RestClient(InstrumentedSession(), URL, headers={"Authorization": "OAuth t"})
    assert client.post("/users/{login}/keys", login="a/b", json={"key": "k"}) == {"id": 1}
    assert len(http_mock.calls) == 1


@pytest.mark.parametrize("cls", [InstrumentedSession, requests.Session])
def test_errors_are_those_of_a_server(http_mock: RequestsMock, cls: type[requests.Session]) -> None:
    http_mock.get(f"{URL}/users/7", json={"message": "no such user"}, status=404)
    with cls() as session, pytest.raises(NotFound) as caught:
        RestClient(session, URL).get("/users/7")
    assert str(caught.value) == f"GET {URL}/users/7: 404 Not Found: no such user"


def test_a_call_that_was_not_announced_is_refused_with_what_was(http_mock: RequestsMock) -> None:
    client = RestClient(InstrumentedSession(retries=once()), URL)
    with pytest.raises(TransportError, match="Connection refused by Responses"):
        client.get("/users/7")


def test_metrics_are_as_with_a_server(http_mock: RequestsMock) -> None:
    http_mock.get(f"{URL}/users/7", json={})
    recorder = MemoryRecorder()
    client = RestClient(InstrumentedSession("staff", recorder=recorder), URL)
    client.get("/users/{login}", login=7)
    requests_ = recorder.series("http_client_requests")
    assert requests_ == {("staff", "/users/{login}", "GET", "2xx"): 1.0}
    assert recorder.value("http_client_in_flight", "staff") == 0
