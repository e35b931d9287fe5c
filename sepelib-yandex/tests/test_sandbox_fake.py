"""FakeSandbox, asked by bare requests."""

import json
from typing import Any

import pytest
import requests

from sepelib.yandex.testing import FakeSandbox, check_shape, sample

pytestmark = pytest.mark.yandex(transport="both")

LIMIT = 20.0  # seconds; far more than anything here takes


class Wire:
    def __init__(self, fake: FakeSandbox) -> None:
        self.fake = fake
        self.http = fake.session()
        self.headers = {"Authorization": f"OAuth {fake.token}"}

    def ask(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        url = path if path.startswith("http") else self.fake.url + path
        kwargs.setdefault("headers", self.headers)
        return self.http.request(method, url, timeout=LIMIT, **kwargs)

    def get(self, path: str, **params: Any) -> Any:
        answer = self.ask("GET", path, params=params)
        assert answer.status_code == 200
        return answer.json()

    def put(self, path: str, **body: Any) -> requests.Response:
        return self.ask("PUT", path, json=body)


@pytest.fixture
def wire(fake_sandbox: FakeSandbox) -> Wire:
    return Wire(fake_sandbox)


def test_resources_have_the_shape_that_is_known(wire: Wire) -> None:
    attributes = {"ttl": "inf", "mds": "1/x", "platform": "linux"}
    number = wire.fake.add_resource(b"abc", task=99, attributes=attributes, links=2)
    found = wire.get(f"/resource/{number}")
    check_shape(found, sample("sandbox", "resource").json)
    links = wire.get(f"/resource/{number}/data/http")
    check_shape(links, sample("sandbox", "links").json)

    short = wire.ask("GET", f"/resource/{number}", headers={**wire.headers, "X-No-Links": "1"})
    assert list(short.json()["http"]) == ["proxy"]
    assert [link["url"] for link in links] == found["http"]["links"]
    for url in (found["http"]["proxy"], *found["http"]["links"]):
        assert wire.ask("GET", url).content == b"abc"


def test_attrs_are_a_json_object(wire: Wire) -> None:
    number = wire.fake.add_resource(attributes={"ttl": "3", "platform": "linux"})
    wire.fake.add_resource()
    found = wire.get("/resource", attrs=json.dumps({"platform": "linux"}))
    assert [item["id"] for item in found["items"]] == [number] and found["total"] == 1
    for bad in ("platform", "[]"):
        assert wire.ask("GET", "/resource", params={"attrs": bad}).status_code == 400
    assert wire.ask("GET", "/resource", params={"limit": "1001"}).status_code == 400
    assert wire.ask("GET", "/resource", params={"nonsense": "1"}).status_code == 400


def test_a_bad_token_is_a_403_and_none_may_read_what_is_public(wire: Wire) -> None:
    number = wire.fake.add_resource()
    path = f"/resource/{number}"
    bad = wire.ask("GET", path, headers={"Authorization": "OAuth bad"})
    assert bad.status_code == 403
    check_shape(bad.json(), sample("sandbox", "bad token").json)
    assert wire.ask("GET", path, headers={}).status_code == 200
    assert wire.ask("POST", "/task", json={"type": "X"}, headers={}).status_code == 403
    assert wire.ask("GET", "/task", headers={}).status_code == 403
    wire.fake.public = False
    assert wire.ask("GET", path, headers={}).status_code == 403


def test_bytes_are_there_while_a_resource_is_ready(wire: Wire) -> None:
    number = wire.fake.add_resource(attributes={"ttl": "1"})
    assert wire.ask("GET", f"/proxy/{number}").status_code == 200
    wire.fake.clock.advance(86_400.0)
    assert wire.ask("GET", f"/proxy/{number}").status_code == 404
    assert wire.get(f"/resource/{number}")["state"] == "DELETED"
    for path in ("/resource/9", "/resource/x", "/proxy/9", "/resource/9/data/http"):
        assert wire.ask("GET", path).status_code == 404


def test_corruption_is_of_one_source_and_so_many_downloads(wire: Wire) -> None:
    number = wire.fake.add_resource(b"abc")
    empty = wire.fake.add_resource(b"")
    wire.fake.corrupt(number, times=1)
    wire.fake.corrupt(empty)
    [link] = wire.get(f"/resource/{number}")["http"]["links"]
    assert wire.ask("GET", link).content == b"abc"
    assert wire.ask("GET", f"/proxy/{number}").content == b"`bc"
    assert wire.ask("GET", f"/proxy/{number}").content == b"abc"
    assert wire.ask("GET", f"/proxy/{empty}").content == b"?"


def test_several_files_need_the_stream(wire: Wire) -> None:
    several, one = wire.fake.add_resource(files={"a": b"b"}), wire.fake.add_resource()
    assert wire.ask("GET", f"/proxy/{several}").status_code == 400
    assert wire.ask("GET", f"/proxy/{several}?stream=tgz").content[:2] == b"\x1f\x8b"
    assert wire.ask("GET", f"/proxy/{one}?stream=tgz").status_code == 400


@pytest.mark.parametrize(
    ("params", "part", "status"),
    [
        ({}, "file", 201),
        ({"ttl": "inf"}, "file", 400),
        ({"ttl": "inf", "owner": "X"}, "file", 201),
        ({"ttl": "soon"}, "file", 400),
        ({}, "other", 400),
    ],
)
def test_uploads_are_checked(wire: Wire, params: dict[str, str], part: str, status: int) -> None:
    answer = wire.ask("POST", "/upload", params=params, files={part: ("x.txt", b"abc")})
    assert answer.status_code == status
    if status == 201:
        assert answer.json()["file_name"] == "x.txt" and answer.json()["type"] == "OTHER_RESOURCE"
        number = answer.json()["id"]
        assert wire.ask("GET", f"/proxy/{number}").content == b"abc"
    assert wire.ask("POST", "/upload", data=b"abc").status_code == 415


def test_a_task_is_made_at_its_location(wire: Wire) -> None:
    made = wire.ask("POST", "/task", json={"type": "BUILD", "status": "running", "id": 7})
    assert (made.status_code, made.json()["id"], made.json()["status"]) == (201, 1, "draft")
    assert wire.ask("GET", made.headers["Location"]).json() == made.json()
    for body in ({}, {"type": ""}, {"type": 7}, ["x"]):
        assert wire.ask("POST", "/task", json=body).status_code == 400
    changed = wire.put("/task/1", description="y", status="running", id=7).json()
    assert (changed["description"], changed["status"], changed["id"]) == ("y", "draft", 1)
    assert wire.put("/task/9").status_code == 404
    assert wire.get("/task/1/output") == {}


def test_a_batch_has_an_answer_for_each_task(wire: Wire) -> None:
    draft, running = wire.fake.add_task(), wire.fake.add_task(status="running")
    answer = wire.put("/batch/tasks", action="delete", id=[draft, running, 9])
    assert answer.status_code == 200
    assert [(item["id"], item["ok"]) for item in answer.json()["items"]] == [
        (draft, True),
        (running, False),
        (9, False),
    ]
    assert wire.put("/batch/tasks", action="dance", id=[1]).status_code == 400
    for strange in (1, [{}], [[1]], ["1"]):
        assert wire.put("/batch/tasks", action="start", id=strange).status_code == 400


def test_tasks_go_through_their_states_by_the_clock(wire: Wire) -> None:
    numbers = [wire.fake.add_task(), wire.fake.add_task(kill_timeout=20)]
    wire.put("/batch/tasks", action="start", id=numbers)

    def states() -> list[str]:
        return [item["status"] for item in wire.get("/task")["items"]]

    assert states() == ["queued", "queued"]
    wire.fake.clock.advance(5.0)
    assert states() == ["running", "running"]
    wire.fake.clock.advance(20.0)
    assert states() == ["running", "failed"]
    wire.fake.clock.advance(40.0)
    assert states() == ["succeeded", "failed"]
    late = wire.fake.add_task()
    wire.put("/batch/tasks", action="start", id=[late])
    wire.fake.clock.advance(1000.0)
    assert states()[-1] == "succeeded"


def test_reset_is_as_new(fake_sandbox: FakeSandbox, wire: Wire) -> None:
    fake_sandbox.corrupt(fake_sandbox.add_resource())
    fake_sandbox.finish(fake_sandbox.add_task(), "failed")
    assert fake_sandbox.state != FakeSandbox().state
    fake_sandbox.reset()
    assert fake_sandbox.state == FakeSandbox().state
