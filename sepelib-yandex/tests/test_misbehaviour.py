"""Services that do not keep to their contracts, met by the clients themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from sepelib.util.testing import Clock
from sepelib.yandex.errors import ApiProtocolError, ApiTimeout, ForeignLink
from sepelib.yandex.testing import FakeService, Reply, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")

READS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "alemate": ("get", lambda client: client.get("g")),
    "auth_qe": ("allowed", lambda client: client.is_allowed("ann", "web", "admin")),
    "blackbox": ("oauth", lambda client: client.oauth("token", "127.0.0.1")),
    "center_robot": ("robots", lambda client: list(client.robots())),
    "clustermaster": ("target", lambda client: client.target("merge")),
    "cms": ("maintenance.list", lambda client: client.maintenance.list()),
    "gencfg": ("tags", lambda client: client.tags()),
    "iss": ("state", lambda client: client.state("web")),
    "its": ("value", lambda client: client.get("a")),
    "nanny": ("current_state", lambda client: client.current_state("web")),
    "otrs": ("TicketSearch", lambda client: client.search(Queues="Raw")),
    "passport": ("info", lambda client: client.user_info("token")),
    "sandbox": ("resources.get", lambda client: client.resources.get(1)),
    "shardtracker": ("lookup", lambda client: client.lookup(["s1"])),
    "staff": ("persons", lambda client: client.person("ann")),
    "startrek": ("issues.get", lambda client: client.issues.get("T-1")),
    "timeline": ("events", lambda client: list(client.events())),
    "tvm": ("tickets", lambda client: client.tickets(["blackbox"])),
}
"""Of each service that reads, one operation; oauth has none."""


def ready(fakes: YandexFakes, service: str) -> tuple[Any, FakeService[Any]]:
    """A client whose waits take no time."""
    clock = Clock()
    return fakes.client(service, clock=clock, sleep=clock.sleep), fakes[service]


@pytest.mark.parametrize("service", READS)
@pytest.mark.parametrize("body", [b"<html>down for maintenance</html>", b'{"half": ', b"\xff\xfe"])
def test_an_answer_of_200_that_is_not_json_is_asked_for_again_and_then_raised(
    yandex_fakes: YandexFakes, service: str, body: bytes
) -> None:
    op, read = READS[service]
    client, fake = ready(yandex_fakes, service)
    fake.faults.on(op, status=200, body=body)

    with pytest.raises(ApiProtocolError) as caught:
        read(client)

    assert caught.value.attempts >= 3 and caught.value.op == op
    assert caught.value.attempts == len(fake.calls.of(op)), "a read is repeated"
    assert len({call.request_id for call in fake.calls.of(op)}) == len(fake.calls.of(op))


def test_a_code_is_not_sent_twice_to_a_server_that_answers_nonsense(
    yandex_fakes: YandexFakes,
) -> None:
    client, fake = ready(yandex_fakes, "oauth")
    fake.faults.on("token.code", status=200, body=b"<html>")

    with pytest.raises(ApiProtocolError) as caught:
        client.token_by_code("7000001")

    assert caught.value.maybe_applied and len(fake.calls) == 1


@pytest.mark.parametrize("service", READS)
def test_a_json_of_another_shape_is_told_as_such_or_is_a_result(
    yandex_fakes: YandexFakes, service: str
) -> None:
    op, read = READS[service]
    client, fake = ready(yandex_fakes, service)
    shapes: list[Any] = [None, 7, "text", True, [], [[]], [None], {}, {"items": 7}, {"a": {"b": 1}}]
    for shape in shapes:
        fake.faults.clear()
        fake.faults.on(op, status=200, json=shape)
        with suppress(ApiProtocolError):
            read(client)


@pytest.mark.parametrize("service", READS)
def test_whoever_answers_too_late_is_named_with_the_time_it_had(
    yandex_fakes: YandexFakes, service: str
) -> None:
    op, read = READS[service]
    fake = yandex_fakes[service]
    client = yandex_fakes.client(service, timeout=(5.0, 0.05), total_timeout=0.5)
    fake.faults.on(op, delay=2.0)

    with pytest.raises(ApiTimeout) as caught:
        read(client)

    assert caught.value.op == op and fake.root in str(caught.value)


# Pages.

WALKS: dict[str, tuple[str, Callable[[Any], Any], Callable[[str], Reply]]] = {
    "startrek": (
        "comments.list",
        lambda client: client.comments.list("T-1"),
        lambda link: Reply(json=[{"id": 1}], headers={"Link": f'<{link}>; rel="next"'}),
    ),
    "staff": (
        "persons",
        lambda client: client.persons(),
        lambda link: Reply(json={"result": [{"login": "ann"}], "links": {"next": link}}),
    ),
    "cms": (
        "instances.list",
        lambda client: client.instances.list("web"),
        lambda link: Reply(json=[{"host": "h1"}], headers={"Link": f'<{link}>; rel="next"'}),
    ),
    "center_robot": (
        "robots",
        lambda client: client.robots(),
        lambda link: Reply(json=[{"name": "web"}], headers={"Link": f'<{link}>; rel="next"'}),
    ),
}


@pytest.mark.parametrize("service", WALKS)
def test_pages_that_lead_in_a_circle_end_in_an_error(
    yandex_fakes: YandexFakes, service: str
) -> None:
    op, walk, page = WALKS[service]
    client, fake = ready(yandex_fakes, service)
    for _ in range(10):
        fake.faults.play(page(f"{fake.root}/again?cursor=1"))

    with pytest.raises(ApiProtocolError, match="repeats") as caught:
        list(itertools.islice(walk(client), 10))

    assert caught.value.op == op and len(fake.calls) == 2


@pytest.mark.parametrize("service", WALKS)
@pytest.mark.parametrize(
    "link",
    [
        "http://evil.test/v2/persons",
        "//evil.test/",
        "https://{host}/",
        "http://{host}@evil.test/",
        "http://{host}:1/",
        "http://{host}.evil.test/",
        "ftp://{host}/",
        "http://{host}\\@evil.test/",
    ],
)
def test_a_link_to_another_host_is_not_followed(
    yandex_fakes: YandexFakes, service: str, link: str
) -> None:
    _, walk, page = WALKS[service]
    client, fake = ready(yandex_fakes, service)
    host = fake.root.removeprefix("http://").partition(":")[0]
    fake.faults.play(page(link.format(host=host)))

    with pytest.raises(ForeignLink) as caught:
        list(walk(client))

    assert len(fake.calls) == 1 and not caught.value.maybe_applied
    assert fake.token not in str(caught.value)


def test_a_scroll_that_gives_the_same_page_for_ever_ends_in_an_error(
    yandex_fakes: YandexFakes,
) -> None:
    client, fake = ready(yandex_fakes, "startrek")
    page = Reply(json=[{"key": "T-1"}], headers={"X-Scroll-Id": "s", "X-Scroll-Token": "t"})
    fake.faults.play(page, "issues.search", times=10)

    with pytest.raises(ApiProtocolError, match="again"):
        list(client.issues.scroll(query="all"))

    assert fake.calls.ops.count("issues.search") == 3
    assert fake.calls.ops[-1] == "issues.scroll_clear", "and is freed"


def test_totals_that_lie_end_no_walk(yandex_fakes: YandexFakes) -> None:
    client, fake = ready(yandex_fakes, "staff")
    for login in ("ann", "bob", "cid"):
        fake.faults.play(
            Reply(
                json={
                    "result": [{"login": login}],
                    "page": "one",
                    "pages": "many",
                    "total": -3,
                    "links": {} if login == "cid" else {"next": f"/v3/persons?_page={login}"},
                }
            )
        )
    pager = client.persons()

    assert [person["login"] for person in pager] == ["ann", "bob", "cid"]
    assert pager.total is None
