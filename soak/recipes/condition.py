"""Waits to be notified and notifies, under one lock; and listens for changes without it."""

from __future__ import annotations

import time
from typing import Any

import gevent
from kazoo.exceptions import KazooException

from soak.recipes.base import Context, Driver, Struck

__all__ = ["Waiter"]

_PATH = "/soak/condition"
_LOCK = "/soak/condition-lock"
_SHORT = (0.2, 4.0)  # seconds that most waits may take
_LONG = 60.0  # those that only a notify ends
_LASTING = 0.3  # of all waits
_BETWEEN = (0.5, 2.5)  # seconds between two notifies of a worker


class Waiter(Driver):
    """And notifier, and listener. Of sepelib only: kazoo has none."""

    def __init__(self, context: Context) -> None:
        super().__init__("condition", context)
        self._client = context.library.client

    def run(self) -> None:
        gevent.spawn(self._listen)  # up to the end of the process
        waiting = gevent.spawn(self._wait)
        while not self.resting:
            self._notify(self.rng.choice((1, 1, 1, 2, 0)))
            self.pause(*_BETWEEN)
        # Who asks for the lock from now on does not wait any more; all others hear this one.
        while not self._notify(0):
            gevent.sleep(0.1)
        waiting.join()

    def _condition(self) -> tuple[Any, Any]:
        from sepelib.zookeeper import Condition, InterruptableLock

        lock = InterruptableLock(self._client, _LOCK)
        return lock, Condition(self._client, _PATH, lock, container=False)

    def _wait(self) -> None:
        lock, condition = self._condition()
        while not self.resting:
            # In a greenlet of its own, since that may be killed, and owns the lock.
            n = self.attempt()
            waiting = gevent.spawn(self._wait_once, lock, condition, n)
            if self.rng.random() < self.context.config.struck / 2:
                waiting.join(self.rng.uniform(0, 2.0))
                waiting.kill()
            waiting.join()

    def _wait_once(self, lock: Any, condition: Any, n: str) -> None:
        from sepelib.zookeeper import LockLost

        timeout = _LONG if self.rng.random() < _LASTING else self.rng.uniform(*_SHORT)
        try:
            if not lock.acquire(timeout=self.context.config.acquire) or self.resting:
                return
            self.write("wait", n, token=lock.fencing_token, timeout=timeout)
            try:
                notified = self.strike(lambda: condition.wait(timeout), lock.interrupt, kill=False)
            except Struck as e:
                self.write("struck", n, how=e.how, took=e.took)
            except LockLost as e:
                # No waiter any more; it may have been notified.
                self.write("woken", n, notified=True, error=repr(e))
            except gevent.GreenletExit:
                self.write("struck", n, how="kill", took=0.0)
                raise
            else:
                self.write("woken", n, notified=notified)
        except Exception as e:
            self.raised(n, "wait", e)
        finally:
            lock.release()

    def _notify(self, count: int) -> bool:
        """*count* waiters, 0: all; whether that was acknowledged."""
        from sepelib.zookeeper import LockLost, ZookeeperTimeout

        lock, condition = self._condition()
        n = self.attempt()
        try:
            if not lock.acquire(timeout=self.context.config.acquire):
                return False
            locked = time.monotonic()
            self.write("notify", n, token=lock.fencing_token, locked=locked, wanted=count)
            try:
                woken = condition.notify(count) if count else condition.notify_all()
            except (LockLost, ZookeeperTimeout) as e:
                self.write("unsure", n, error=repr(e))
                return False
            self.write("notified", n, woken=woken)
        except Exception as e:
            self.raised(n, "notify", e)
            return False
        finally:
            lock.release()
        return True

    def _listen(self) -> None:
        """As one who keeps a copy of what is there: reads it at first, and after each change."""
        from sepelib.zookeeper import ConditionListener

        listener = ConditionListener(self._client, _PATH)
        changed = True
        listener.start()
        while True:
            n = self.attempt()
            try:
                changed = changed or listener.wait(timeout=2.0)
                if changed:
                    _, stat = self._client.get(_PATH)
                    changed = False
                    self.write("heard", n, version=stat.version)
            except KazooException:
                gevent.sleep(0.1)  # to read it was not possible; that is tried again
            except Exception as e:
                self.raised(n, "listen", e)
