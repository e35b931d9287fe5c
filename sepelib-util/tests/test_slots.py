"""No slot is ever lost or made: threads here, greenlets when patched.

An unpatched process has no greenlets: there, the part of them runs in a patched one.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import gevent
import pytest
from gevent.monkey import is_module_patched

from sepelib.util.slots import Slots

LIMIT = 20.0


def test_slots_are_given_in_the_order_of_waiting() -> None:
    slots = Slots(1)
    assert slots.try_acquire()
    order: list[int] = []
    threads = []

    def wait(number: int) -> None:
        assert slots.acquire(LIMIT)
        order.append(number)
        slots.release()

    for number in range(5):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        until(lambda number=number: slots.waiting == number + 1)
    slots.release()
    for thread in threads:
        thread.join(LIMIT)
    assert order == [0, 1, 2, 3, 4]
    assert slots.free == 1


def test_one_who_has_given_up_takes_no_slot() -> None:
    slots = Slots(1)
    assert slots.try_acquire()
    assert not slots.acquire(0.01)
    assert not slots.acquire(0.0)
    slots.release()
    assert slots.free == 1 and slots.try_acquire() and not slots.try_acquire()


def test_a_release_inside_of_an_acquire_is_seen() -> None:
    """As by a finalizer, which the garbage collector may run between any two steps."""

    class Late(Slots):
        def _match(self) -> None:
            if not self.free:
                self._free.append(None)
            super()._match()

    slots = Late(1)
    assert slots.try_acquire()
    assert slots.acquire(LIMIT)


def test_no_slot_is_lost_or_made_among_threads_that_give_up() -> None:
    slots, held, wrong = Slots(3), [], []

    def work(patience: float) -> None:
        for _ in range(300):
            if slots.acquire(patience):
                held.append(1)
                if len(held) > 3:
                    wrong.append(len(held))
                time.sleep(0)
                held.pop()
                slots.release()

    threads = [threading.Thread(target=work, args=(n * 0.0002,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == [] and slots.free == 3


def test_less_than_one_slot_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 slot, not 0"):
        Slots(0)


if not is_module_patched("socket"):

    def test_all_of_this_passes_in_a_patched_process() -> None:
        command = [sys.executable, "-m", "gevent.monkey", "--module", "pytest", "-q", __file__]
        done = subprocess.run([*command, "-p", "no:cacheprovider"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

else:

    def test_one_who_is_killed_as_the_slot_is_granted_passes_it_on() -> None:
        slots = Slots(1)
        assert slots.try_acquire()
        first = gevent.spawn(slots.acquire, LIMIT)
        second = gevent.spawn(slots.acquire, LIMIT)
        gevent.sleep(0)
        assert slots.waiting == 2
        first.kill(block=False)  # strikes when this greenlet waits, before the wake-up
        slots.release()
        assert slots.waiting == 1  # granted
        assert second.get(timeout=LIMIT) is True
        assert slots.free == 0 and isinstance(first.value, gevent.GreenletExit)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
