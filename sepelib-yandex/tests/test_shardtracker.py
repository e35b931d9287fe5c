"""shardtracker: shards and hosts."""

import pytest

from sepelib.yandex.errors import ApiProtocolError, BadRequest, NotFound
from sepelib.yandex.shardtracker import ShardtrackerClient
from sepelib.yandex.testing import FakeShardtracker, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def tracker(fake_shardtracker: FakeShardtracker, yandex_fakes: YandexFakes) -> ShardtrackerClient:
    for shard, host in (("web-1", "h1"), ("web-1", "h2"), ("web-2", "h2"), ("mail-1", "h3")):
        fake_shardtracker.add_place(shard, host)
    client = yandex_fakes.client("shardtracker", sleep=fake_shardtracker.clock.sleep)
    assert isinstance(client, ShardtrackerClient)
    return client


def test_shards_and_hosts_are_found_from_both_sides(
    fake_shardtracker: FakeShardtracker, tracker: ShardtrackerClient
) -> None:
    fake_shardtracker.add_place("web-2", "h1", "downloading")
    assert [(place.host, place.state) for place in tracker.hosts("web-2")] == [
        ("h2", "ready"),
        ("h1", "downloading"),
    ]
    assert [(shard.shard, shard.state) for shard in tracker.shards_of("h1")] == [
        ("web-1", "ready"),
        ("web-2", "downloading"),
    ]
    assert [shard.shard for shard in tracker.shards(prefix="web-")] == ["web-1", "web-2"]
    assert list(tracker.shards_of("h9")) == []
    with pytest.raises(NotFound, match="no shard web-9"):
        list(tracker.hosts("web-9"))


def test_many_shards_come_in_pages(
    fake_shardtracker: FakeShardtracker, tracker: ShardtrackerClient
) -> None:
    for number in range(150):
        fake_shardtracker.add_place(f"more-{number:03}", "h1")
    pager = tracker.shards(prefix="more-")
    assert [shard.shard for shard in pager] == [f"more-{number:03}" for number in range(150)]
    assert pager.total == 150 and len(fake_shardtracker.calls.of("shards")) == 2


def test_a_registration_may_be_repeated(
    fake_shardtracker: FakeShardtracker, tracker: ShardtrackerClient
) -> None:
    fake_shardtracker.faults.next("register", reset="after-apply")
    place = tracker.register("web-3", "h1", "/shards/web-3", checksum="abc")
    assert (place.host, place.state) == ("h1", "ready")
    tracker.register("web-3", "h1", "/elsewhere")
    assert [found.host for found in tracker.hosts("web-3")] == ["h1"]
    assert fake_shardtracker.calls.of("register")[0].json == {
        "host": "h1",
        "path": "/shards/web-3",
        "checksum": "abc",
    }


def test_a_lookup_has_each_shard_once(
    fake_shardtracker: FakeShardtracker, tracker: ShardtrackerClient
) -> None:
    names = iter(["web-2", "web-1", "web-2", "nobody"])
    assert tracker.lookup_all(names) == {"web-2": ["h2"], "web-1": ["h1", "h2"], "nobody": []}
    (call,) = fake_shardtracker.calls.of("lookup")
    assert call.json == {"shards": ["web-2", "web-1", "nobody"]}
    assert tracker.lookup_all([]) == {}


@pytest.mark.parametrize(
    ("count", "sizes"), [(1000, [1000]), (1001, [1000, 1]), (2000, [1000] * 2)]
)
def test_a_large_lookup_is_split(
    fake_shardtracker: FakeShardtracker,
    tracker: ShardtrackerClient,
    count: int,
    sizes: list[int],
) -> None:
    names = [f"s{number}" for number in range(count)]
    assert list(tracker.lookup_all(names)) == names
    calls = fake_shardtracker.calls.of("lookup")
    assert [len(call.json["shards"]) for call in calls] == sizes


def test_a_lookup_that_is_too_large_is_refused(tracker: ShardtrackerClient) -> None:
    with pytest.raises(BadRequest, match="at most 1000"):
        tracker.lookup(["x"] * 1001)


def test_a_lookup_only_reads_so_it_is_repeated(
    fake_shardtracker: FakeShardtracker, tracker: ShardtrackerClient
) -> None:
    fake_shardtracker.faults.next("lookup", reset="after-apply")
    assert tracker.lookup(["mail-1"]) == {"mail-1": ["h3"]}
    fake_shardtracker.faults.on("lookup", body=b"[]")
    with pytest.raises(ApiProtocolError, match=r"shardtracker lookup .* the answer is no object"):
        tracker.lookup_all(["mail-1"])


def test_one_text_is_not_taken_for_shards(tracker: ShardtrackerClient) -> None:
    with pytest.raises(TypeError, match="not the one text 'abc'"):
        tracker.lookup_all("abc")
