"""The turns of several hosts, at moments that a test names."""

import logging
import random

import pytest

from sepelib.rpc._hosts import Host, Hosts, HostState


def hosts_of(*labels: str) -> Hosts:
    hosts = [Host(label, label) for label in labels]
    return Hosts(hosts, probe_time=3.0, rng=random.Random(7))


def first(hosts: Hosts, now: float) -> str:
    return next(hosts.candidates(now)).label


def offered(hosts: Hosts, now: float) -> set[str]:
    """Those in rotation."""
    return {first(hosts, now) for _ in range(2 * len(hosts.all))}


def eject(hosts: Hosts, host: Host, now: float) -> None:
    for _ in range(3):
        hosts.failed(host, now)
    assert host.state is HostState.EJECTED


def test_each_attempt_begins_with_the_next_host_and_may_try_all() -> None:
    hosts = hosts_of("a", "b", "c")

    assert [first(hosts, 0.0) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
    assert [host.label for host in hosts.candidates(0.0)] == ["a", "b", "c"]


def test_three_failures_in_a_row_eject_a_host_for_about_a_second() -> None:
    hosts = hosts_of("a", "b")
    a = hosts.all[0]
    for _ in range(2):
        hosts.failed(a, 100.0)
    hosts.connected(a)
    for _ in range(2):
        hosts.failed(a, 100.0)
    assert offered(hosts, 100.0) == {"a", "b"}  # not in a row

    hosts.failed(a, 100.0)

    assert offered(hosts, 100.7) == {"b"}
    assert 100.8 <= a.ejected_until <= 101.2
    assert "a" in offered(hosts, 101.3)


def test_a_host_comes_back_for_one_caller_first() -> None:
    hosts = hosts_of("a", "b")
    a = hosts.all[0]
    eject(hosts, a, 100.0)

    assert first(hosts, 102.0) == "a" and a.state is HostState.PROBED
    assert [first(hosts, 102.0) for _ in range(4)] == ["b"] * 4
    hosts.connected(a)

    assert a.state is HostState.UP
    assert {first(hosts, 102.0), first(hosts, 102.0)} == {"a", "b"}


def test_another_may_probe_when_the_first_one_never_came_back() -> None:
    hosts = hosts_of("a", "b")
    a = hosts.all[0]
    eject(hosts, a, 100.0)
    assert first(hosts, 102.0) == "a"  # and is killed

    assert "a" not in offered(hosts, 104.9)
    assert "a" in offered(hosts, 105.1)


def test_each_ejection_is_longer_up_to_half_a_minute_until_it_connects() -> None:
    hosts = hosts_of("a", "b")
    a = hosts.all[0]
    eject(hosts, a, 0.0)
    lengths = []
    for now in range(100, 1000, 100):
        assert "a" in [first(hosts, now), first(hosts, now)]
        hosts.failed(a, now)
        lengths.append(a.ejected_until - now)

    expected = [2, 4, 8, 16, 30, 30, 30, 30, 30]
    for length, exact in zip(lengths, expected, strict=True):
        assert 0.8 * exact <= length <= 1.2 * exact
    assert len({round(length, 3) for length in lengths[4:]}) > 1  # jitter

    hosts.connected(a)
    eject(hosts, a, 5000.0)
    assert a.ejected_until <= 5001.2


def test_failures_of_those_on_their_way_do_not_lengthen_an_ejection() -> None:
    hosts = hosts_of("a", "b")
    a = hosts.all[0]
    eject(hosts, a, 100.0)
    until = a.ejected_until

    for _ in range(20):
        hosts.failed(a, 100.1)

    assert a.ejected_until == until and a.failures == 23


def test_turns_are_even_among_those_in_rotation() -> None:
    hosts = hosts_of("a", "b", "c")
    eject(hosts, hosts.all[0], 100.0)

    turns = [first(hosts, 100.1) for _ in range(10)]

    assert turns.count("b") == turns.count("c") == 5


def test_when_none_in_rotation_connects_one_left_out_is_the_last_resort() -> None:
    hosts = hosts_of("a", "b", "c", "d")
    eject(hosts, hosts.all[0], 100.1)
    eject(hosts, hosts.all[1], 100.0)

    tried = [host.label for host in hosts.candidates(100.2)]

    assert sorted(tried[:2]) == ["c", "d"] and tried[2:] == ["b"]


def test_when_all_are_ejected_the_least_recently_failed_is_tried() -> None:
    hosts = hosts_of("a", "b", "c")
    for host, now in zip(hosts.all, (100.2, 100.0, 100.1), strict=True):
        eject(hosts, host, now)

    assert [host.label for host in hosts.candidates(100.3)] == ["b"]
    hosts.failed(hosts.all[1], 100.3)
    assert [host.label for host in hosts.candidates(100.3)] == ["c"]

    hosts.connected(hosts.all[2])  # though it was ejected
    assert hosts.all[2].state is HostState.UP


def test_ejections_are_a_warning_each_and_the_return_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "sepelib.rpc")
    hosts = hosts_of("a:1", "b:1")
    eject(hosts, hosts.all[0], 0.0)
    hosts.connected(hosts.all[0])

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[0].getMessage().startswith("a:1 could not be connected to 3 times in a")


def test_threads_that_lose_and_find_a_host_at_once_leave_it_in_a_state_that_is() -> None:
    import sys
    import threading

    hosts = hosts_of("a", "b")
    trouble: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for step in range(3000):
                for host in hosts.candidates(step / 10):
                    if chance.random() < 0.7:
                        hosts.failed(host, step / 10)
                    else:
                        hosts.connected(host)
        except BaseException as error:
            trouble.append(error)

    logging.getLogger("sepelib.rpc").setLevel(logging.CRITICAL)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=[seed]) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        logging.getLogger("sepelib.rpc").setLevel(logging.NOTSET)
    assert not trouble
