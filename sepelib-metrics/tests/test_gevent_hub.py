"""What gevent's hub tells about itself."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
from gevent.monkey import get_original

from sepelib.metrics import Registry, gevent_hub

LIMIT = 30.0  # seconds; far more than anything here takes

block: Callable[[float], None] = get_original("time", "sleep")  # the hub, in both worlds


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    unregister = gevent_hub.register(made, interval=0.01)
    yield made
    unregister()


def series_of(registry: Registry, name: str) -> dict[str, Any]:
    (metric,) = (m for m in registry.snapshot()["metrics"] if m["name"] == name)
    (series,) = metric["series"]
    return dict(series)


def value_of(registry: Registry, name: str) -> float:
    return float(series_of(registry, name)["value"])


def wait_until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(LIMIT, AssertionError("it did not come true")):
        while not condition():
            gevent.sleep(0.001)


def test_a_blocked_hub_is_a_latency(registry: Registry) -> None:
    def latency() -> dict[str, Any]:
        return series_of(registry, "gevent_hub_latency_seconds")

    wait_until(lambda: latency()["count"] >= 3)
    before = latency()["count"]
    block(0.3)
    wait_until(lambda: latency()["count"] > before)

    assert 0.25 <= latency()["window"]["max"] < LIMIT


def test_timers_come_as_often_as_asked_for_and_not_more(registry: Registry) -> None:
    gevent.sleep(0.2)
    assert series_of(registry, "gevent_hub_latency_seconds")["count"] <= 30


def test_greenlets_are_counted_from_their_start_to_their_end(registry: Registry) -> None:
    before = value_of(registry, "gevent_greenlets")
    stop = gevent.event.Event()
    greenlets = [gevent.spawn(stop.wait) for _ in range(3)]
    later = gevent.spawn_later(LIMIT, print)
    gevent.sleep(0)
    assert value_of(registry, "gevent_greenlets") == before + 4

    stop.set()
    gevent.joinall(greenlets)
    later.kill()

    assert value_of(registry, "gevent_greenlets") == before  # though they are still held


def test_greenlets_from_before_are_counted_too() -> None:
    registry = Registry()
    greenlet = gevent.spawn(gevent.sleep, LIMIT)
    gevent.sleep(0)
    unregister = gevent_hub.register(registry)
    try:
        with_it = value_of(registry, "gevent_greenlets")
        greenlet.kill()
        assert value_of(registry, "gevent_greenlets") == with_it - 1
    finally:
        unregister()


def test_waiting_greenlets_are_watchers_of_the_loop(registry: Registry) -> None:
    before = value_of(registry, "gevent_loop_watchers")
    greenlets = [gevent.spawn(gevent.sleep, LIMIT) for _ in range(5)]
    gevent.sleep(0.001)
    assert value_of(registry, "gevent_loop_watchers") >= before + 5
    gevent.killall(greenlets)


def test_the_threadpool_is_counted(registry: Registry) -> None:
    pool = gevent.get_hub().threadpool
    go_on = get_original("_thread", "allocate_lock")()
    go_on.acquire()

    def task() -> None:
        go_on.acquire()
        go_on.release()

    tasks = [pool.spawn(task) for _ in range(pool.maxsize)]
    wait_until(lambda: value_of(registry, "gevent_threadpool_size") == pool.maxsize)
    assert value_of(registry, "gevent_threadpool_tasks") == pool.maxsize
    assert value_of(registry, "gevent_threadpool_max_size") == pool.maxsize
    wait_until(lambda: value_of(registry, "gevent_threadpool_queued") == 0)
    tasks.append(pool.spawn(task))
    assert value_of(registry, "gevent_threadpool_queued") == 1

    go_on.release()
    gevent.joinall(tasks)
    wait_until(lambda: value_of(registry, "gevent_threadpool_tasks") == 0)


def test_registered_twice_is_as_once_and_unregistered_leaves_nothing(registry: Registry) -> None:
    unregister = gevent_hub.register(registry)
    assert value_of(registry, "gevent_threadpool_max_size") == gevent.get_hub().threadpool.maxsize

    unregister()
    unregister()

    assert value_of(registry, "gevent_threadpool_max_size") == 0
    count = series_of(registry, "gevent_hub_latency_seconds")["count"]
    gevent.sleep(0.1)
    assert series_of(registry, "gevent_hub_latency_seconds")["count"] == count


def test_the_timers_keep_no_loop_alive(registry: Registry) -> None:
    code = (
        "import gevent\n"
        "from sepelib.metrics import Registry, gevent_hub\n"
        "gevent_hub.register(Registry())\n"
        "gevent.wait()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)


def test_a_dump_in_a_native_thread_sees_the_hub_that_was_registered(registry: Registry) -> None:
    seen: list[float] = []

    def dump() -> None:
        seen.append(value_of(registry, "gevent_threadpool_max_size"))

    gevent.get_hub().threadpool.apply(dump)
    assert seen == [gevent.get_hub().threadpool.maxsize]


@pytest.mark.parametrize("interval", [0, -1.0, float("nan")])
def test_an_interval_is_positive(interval: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        gevent_hub.register(Registry(), interval=interval)


def test_without_gevent_its_import_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['gevent'] = None\n"
        "import sepelib.metrics\n"
        "try: import sepelib.metrics.gevent_hub\n"
        "except ImportError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sentence = "sepelib.metrics.gevent_hub needs gevent: pip install 'sepelib-metrics[gevent]'\n"
    assert done.stdout == sentence
