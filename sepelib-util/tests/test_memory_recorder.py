"""The recorder that tests look into."""

import threading

import pytest

from sepelib.util.testing import MemoryRecorder, check_recorder


def test_it_passes_what_every_recorder_has_to_pass() -> None:
    recorder = MemoryRecorder()
    check_recorder(recorder, lambda name, labels: recorder.value(name, *labels))


def test_a_histogram_keeps_what_it_was_told_in_order() -> None:
    recorder = MemoryRecorder()
    seconds = recorder.histogram("seconds", labels=("method",))
    seconds.labels("GET").observe(2.0)
    seconds.labels("GET").observe(1.0)
    assert recorder.observations("seconds", "GET") == [2.0, 1.0]
    assert recorder.observations("seconds", "PUT") == []


def test_all_series_are_seen_at_once() -> None:
    recorder = MemoryRecorder()
    calls = recorder.counter("calls", labels=("method",))
    calls.labels("GET").inc(2)
    calls.labels("PUT").inc()
    assert recorder.series("calls") == {("GET",): 2, ("PUT",): 1}


def test_reading_makes_no_series() -> None:
    recorder = MemoryRecorder()
    recorder.counter("calls", labels=("method",))
    assert recorder.value("calls", "GET") == 0
    assert recorder.series("calls") == {}


def test_a_misspelt_name_is_not_a_zero() -> None:
    recorder = MemoryRecorder()
    recorder.counter("calls")
    with pytest.raises(KeyError, match=r"'cals' was never declared; these were: \['calls'\]"):
        recorder.value("cals")


def test_a_histogram_has_no_value_and_a_counter_no_observations() -> None:
    recorder = MemoryRecorder()
    recorder.counter("calls")
    recorder.histogram("seconds")
    with pytest.raises(TypeError, match="is a histogram"):
        recorder.value("seconds")
    with pytest.raises(TypeError, match="is a counter"):
        recorder.observations("calls")


def test_another_number_of_label_values_is_refused() -> None:
    recorder = MemoryRecorder()
    recorder.counter("calls", labels=("method",))
    with pytest.raises(ValueError, match="has the labels"):
        recorder.value("calls")


@pytest.mark.parametrize("n", [-1, float("nan")])
def test_a_counter_that_would_shrink_is_refused(n: float) -> None:
    with pytest.raises(ValueError, match="only grows"):
        MemoryRecorder().counter("calls").inc(n)


def test_threads_lose_no_increment() -> None:
    recorder = MemoryRecorder()
    gauge = recorder.gauge("size")

    def work() -> None:
        for _ in range(5000):
            gauge.inc(2)
            gauge.dec()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.value("size") == 20000
