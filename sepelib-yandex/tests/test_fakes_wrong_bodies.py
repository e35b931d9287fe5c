"""Fakes refuse what a service would refuse, in its words: no wrong request breaks one."""

from typing import Any

import pytest

from sepelib.yandex.testing import YandexFakes

WRONG: list[Any] = [None, 7, 1.5, True, "", "x", [], [[]], [{}], [None], {}, {"a": {}}]
HUGE = "9" * 5000

BODIES: list[tuple[str, str, str, dict[str, Any]]] = [
    (
        "cms",
        "POST",
        "/api/walle/v11/tasks",
        {"id": "a", "hosts": ["h1"], "action": "reboot", "type": "automated"},
    ),
    ("cms", "PUT", "/hosts/h1/state", {"state": "down", "reason": "x"}),
    (
        "nanny",
        "PUT",
        "/v2/services/web/runtime_attrs",
        {"snapshot_id": "snapshot-1", "content": {}, "comment": "x"},
    ),
    ("nanny", "PUT", "/v2/services/web/snapshots/snapshot-1/state", {"state": "online"}),
    ("iss", "PUT", "/v1/configurations/web/target", {"revision": "2", "desired": "running"}),
    ("its", "PUT", "/v1/values/a/b", {"value": 1, "expires_at": "2026-02-01T00:00:00Z"}),
    ("alemate", "PUT", "/v1/groups/g", {"tasks": [{"id": "a", "type": "x", "deps": []}]}),
    ("center_robot", "POST", "/v1/robots/web/commands", {"command": "start", "args": {}}),
    ("clustermaster", "POST", "/v1/targets/merge/run", {"hosts": ["h1"]}),
    ("clustermaster", "POST", "/v1/targets/merge/cancel", {"hosts": ["h1"]}),
    ("shardtracker", "POST", "/v1/shards/s/register", {"host": "h1", "path": "/s"}),
    ("shardtracker", "POST", "/v1/lookup", {"shards": ["s"]}),
    ("timeline", "POST", "/v1/events", {"title": "t", "start": "2026-01-01T00:00:00Z"}),
    ("timeline", "PATCH", "/v1/events/e", {"end": "2026-01-01T00:00:00Z"}),
]
NUMBERS = [
    ("cms", "/hosts", "limit"),
    ("staff", "/v3/persons", "_page"),
    ("staff", "/v3/groups", "_limit"),
    ("nanny", "/v2/services", "offset"),
    ("center_robot", "/v1/robots/web/builds", "limit"),
    ("timeline", "/v1/events", "limit"),
]


@pytest.fixture
def services(yandex_fakes: YandexFakes) -> YandexFakes:
    """With one thing of each kind, so that a path leads somewhere."""
    yandex_fakes.cms.add_host("h1")
    yandex_fakes.nanny.add_service("web")
    yandex_fakes.iss.add_configuration("web", "h1")
    yandex_fakes.center_robot.add_robot("web")
    yandex_fakes.clustermaster.add_target("merge", hosts=["h1"])
    yandex_fakes.timeline.add_event("t", id="e")
    return yandex_fakes


def asked(fakes: YandexFakes, service: str, method: str, path: str, **how: Any) -> Any:
    fake = fakes[service]
    headers = {"Authorization": f"OAuth {fake.token}", "If-None-Match": "*"}
    return fake.session().request(method, fake.url + path, headers=headers, timeout=20, **how)


@pytest.mark.parametrize(("service", "method", "path", "body"), BODIES)
def test_a_wrong_body_breaks_no_fake(
    services: YandexFakes, service: str, method: str, path: str, body: dict[str, Any]
) -> None:
    inner = [
        {**body, name: [{**first, key: wrong}]}
        for name, value in body.items()
        for first in (value if isinstance(value, list) else ())
        if isinstance(first, dict)
        for key in first
        for wrong in WRONG
    ]
    wrongs = [*WRONG, *({**body, name: wrong} for name in body for wrong in WRONG), *inner]
    for wrong in wrongs:
        answer = asked(services, service, method, path, json=wrong)
        assert answer.status_code < 500, wrong
    assert asked(services, service, method, path, json=body).status_code < 500


@pytest.mark.parametrize(("service", "path", "parameter"), NUMBERS)
@pytest.mark.parametrize("wrong", ["", "x", "-1", "1.5", "\u0661", HUGE])
def test_a_number_that_is_none_is_refused(
    services: YandexFakes, service: str, path: str, parameter: str, wrong: str
) -> None:
    answer = asked(services, service, "GET", path, params={parameter: wrong})
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_parameter")


def test_times_and_tags_of_a_mark_are_looked_at(services: YandexFakes) -> None:
    event = {"title": "t", "start": "2026-01-01T00:00:00Z"}
    for wrong in ({"start": "soon"}, {"end": 7}, {"tags": "web"}, {"tags": [1]}):
        body = {**event, **wrong}
        assert asked(services, "timeline", "POST", "/v1/events", json=body).status_code == 400
    answer = asked(services, "timeline", "PATCH", "/v1/events/e", json={"end": "later"})
    assert answer.status_code == 400
