"""timeline: marks that are only decoration."""

from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest

from sepelib.core.config import ConfigError
from sepelib.util.deadline import deadline
from sepelib.yandex.errors import ApiProtocolError, BadRequest, NotFound, ServerError
from sepelib.yandex.testing import EPOCH, FakeTimeline, YandexFakes
from sepelib.yandex.timeline import TimelineClient

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def timeline(fake_timeline: FakeTimeline, yandex_fakes: YandexFakes) -> TimelineClient:
    return made(fake_timeline, yandex_fakes)


@pytest.fixture
def strict(fake_timeline: FakeTimeline, yandex_fakes: YandexFakes) -> TimelineClient:
    return made(fake_timeline, yandex_fakes, best_effort=False)


def made(fake: FakeTimeline, fakes: YandexFakes, **options: Any) -> TimelineClient:
    clock = fake.clock
    client = fakes.client(
        "timeline", clock=clock, sleep=clock.sleep, now=lambda: fake.now, **options
    )
    assert isinstance(client, TimelineClient)
    return client


def broken(kind: type[BaseException], fake: FakeTimeline) -> NoReturn:
    fake.clock.advance(1.0)
    raise kind


def event(fake: FakeTimeline) -> dict[str, Any]:
    (only,) = fake.all("events")
    return only


def test_a_mark_is_now_and_has_what_was_said(
    fake_timeline: FakeTimeline, timeline: TimelineClient
) -> None:
    fake_timeline.clock.advance(60.0)
    id = timeline.mark("release 7", tags={"web", "prod"}, type="release", link="http://t/1")
    made = event(fake_timeline)
    assert made["id"] == id and made["start"] == "2026-01-01T00:01:00Z"
    assert (made["title"], made["type"], made["link"]) == ("release 7", "release", "http://t/1")
    assert made["tags"] == ["prod", "web"] and len(made["external_id"]) == 36
    assert "end" not in made and "author" not in made


def test_a_mark_whose_answer_is_lost_is_one_mark(
    fake_timeline: FakeTimeline, timeline: TimelineClient
) -> None:
    fake_timeline.faults.next("create", reset="after-apply")
    id = timeline.mark("x")
    assert event(fake_timeline)["id"] == id and len(fake_timeline.calls.of("create")) == 2


def test_an_external_id_is_one_event(fake_timeline: FakeTimeline, timeline: TimelineClient) -> None:
    first = timeline.mark("x", external_id="release-7")
    assert first is not None and timeline.mark("y", external_id="release-7") == first
    assert event(fake_timeline)["title"] == "x"


def test_events_are_found_by_time_and_tags(
    fake_timeline: FakeTimeline, timeline: TimelineClient
) -> None:
    for hour in range(4):
        start = (EPOCH + timedelta(hours=hour)).isoformat()
        fake_timeline.add_event(f"e{hour}", start=start, tags=["web", f"t{hour % 2}"])
    found = list(timeline.events(from_=EPOCH + timedelta(hours=1), to=EPOCH + timedelta(hours=3)))
    assert [one.title for one in found] == ["e1", "e2"]
    assert found[0].start == datetime(2026, 1, 1, 1, tzinfo=UTC) and found[0].tags == ("web", "t1")
    assert [one.title for one in timeline.events(tags=["web", "t0"])] == ["e0", "e2"]


def test_an_event_is_ended_and_removed(
    fake_timeline: FakeTimeline, timeline: TimelineClient
) -> None:
    id = fake_timeline.add_event("x")
    until = EPOCH + timedelta(minutes=5)
    fake_timeline.faults.next("update", reset="after-apply")
    assert timeline.update(id, end=until).end == until
    timeline.delete(id)
    assert list(timeline.events()) == []
    with pytest.raises(NotFound):
        timeline.delete(id)
    with pytest.raises(NotFound):
        timeline.update(id, end=until)


def test_a_span_lasts_as_long_as_its_block(
    fake_timeline: FakeTimeline, timeline: TimelineClient
) -> None:
    with timeline.span("release 7", tags=["web"], author="ann") as id:
        assert event(fake_timeline)["id"] == id and "end" not in event(fake_timeline)
        fake_timeline.clock.advance(90.0)
    assert event(fake_timeline)["end"] == "2026-01-01T00:01:30Z"
    assert event(fake_timeline)["author"] == "ann"


def test_a_span_ends_though_its_block_fails_is_killed_or_late(
    fake_timeline: FakeTimeline, strict: TimelineClient
) -> None:
    class Killed(BaseException): ...

    for kind in (RuntimeError, Killed):
        with pytest.raises(kind), strict.span("x"):
            broken(kind, fake_timeline)
    with deadline(5.0, clock=fake_timeline.clock), strict.span("x"):
        fake_timeline.clock.advance(6.0)
    ends = [item["end"][-3:] for item in fake_timeline.all("events")]
    assert ends == ["01Z", "02Z", "08Z"]


def test_a_mark_that_fails_is_logged_and_breaks_nothing(
    fake_timeline: FakeTimeline, timeline: TimelineClient, caplog: pytest.LogCaptureFixture
) -> None:
    fake_timeline.faults.on("*", status=500)
    assert timeline.mark("release 7") is None
    ran = []
    with timeline.span("release 8") as id:
        ran.append(id)
    assert ran == [None] and fake_timeline.calls.of("update") == []
    lines = [record.message for record in caplog.records if record.name.endswith(".timeline")]
    assert [line.partition(": ")[0] for line in lines] == [
        "no mark of 'release 7'",
        "no mark of 'release 8'",
    ]


def test_a_mark_without_an_end_is_logged_and_breaks_nothing(
    fake_timeline: FakeTimeline, timeline: TimelineClient, caplog: pytest.LogCaptureFixture
) -> None:
    fake_timeline.faults.on("update", status=500)
    with timeline.span("release 7"):
        pass
    assert "the mark of 'release 7', 1, has no end: timeline update" in caplog.text


def test_who_wants_to_know_is_told(fake_timeline: FakeTimeline, strict: TimelineClient) -> None:
    fake_timeline.faults.on("*", status=500)
    with pytest.raises(ServerError):
        strict.mark("x")
    fake_timeline.faults.clear()
    fake_timeline.faults.on("update", status=500)
    with pytest.raises(ServerError), strict.span("x"):
        pass
    with pytest.raises(RuntimeError, match="mine"), strict.span("x"):
        raise RuntimeError("mine")


def test_what_is_no_decoration_raises_always(
    fake_timeline: FakeTimeline, timeline: TimelineClient
) -> None:
    with pytest.raises(BadRequest, match="title is missing"):
        timeline.create("", EPOCH, external_id="x")
    with pytest.raises(ValueError, match="has a zone"):
        timeline.mark("x", start=datetime(2026, 1, 1))
    fake_timeline.faults.on("events", status=500)
    with pytest.raises(ServerError):
        list(timeline.events())


def test_best_effort_is_configured(fake_timeline: FakeTimeline) -> None:
    TimelineClient.from_config({**fake_timeline.config(), "best_effort": False}).close()
    with pytest.raises(ConfigError, match=r"timeline\.best_effort is not bool"):
        TimelineClient.from_config({**fake_timeline.config(), "best_effort": 1})


@pytest.mark.parametrize("id", [b"null", b"{}", b"[1]", b"true and"])
def test_a_mark_without_an_id_is_a_failure_that_is_told(
    fake_timeline: FakeTimeline, timeline: TimelineClient, id: bytes
) -> None:
    fake_timeline.faults.on("create", body=b'{"id": ' + id + b"}")
    assert timeline.mark("release 7") is None
    with pytest.raises(ApiProtocolError):
        timeline.create("release 7", fake_timeline.now, external_id="r7")


@pytest.mark.parametrize("id", [b'".."', b'""', b'"a\\u0000"', b'"\\ud800"'])
def test_an_id_that_no_path_takes_breaks_no_release(
    fake_timeline: FakeTimeline, timeline: TimelineClient, strict: TimelineClient, id: bytes
) -> None:
    fake_timeline.faults.on("create", body=b'{"id": ' + id + b"}")
    with timeline.span("release 7"):
        pass
    for client in (timeline, strict):
        with pytest.raises(RuntimeError, match="mine"), client.span("release 7"):
            raise RuntimeError("mine")
