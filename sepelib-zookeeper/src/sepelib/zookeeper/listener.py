"""Hear of what others have changed, without a lock.     Status: production.

    with ConditionListener(client, "/app/config") as changes:
        load()
        while changes.wait():                           # False once it is stopped
            load()

    ConditionListener.signal(client, "/app/config")     # who has changed it

A change is a new (czxid, version) of the node: by a signal, by a `Condition.notify()` at the same
path, by a write of anybody, by a deletion. That pair is read again after each wake-up of the watch,
each reconnect, each new session and each poll interval, so none of them loses a change. Several may
be told as one.

The node is made when it is missing, and stays: to have a version it has to be there.

Requests: for each change and each poll 1, for a poll 1 more to take the former watch back; for a
signal 3, in two round trips.
Sharing: for all greenlets of the client's hub; `stop()` for any thread.
Metrics: `zk_listener_changes` (path_class).
"""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
from kazoo.exceptions import BadVersionError, NoNodeError

from sepelib.zookeeper._call import Call, Unanswered
from sepelib.zookeeper._handler import Lane
from sepelib.zookeeper._identity import normal_path
from sepelib.zookeeper._keeper import Keeper, Life
from sepelib.zookeeper._wait import TimeIsUp, Wait
from sepelib.zookeeper.client import client_of
from sepelib.zookeeper.errors import ZookeeperMisused

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["ConditionListener"]

_JITTER = 0.25  # of the poll interval, so that listeners started together do not ask together

_Pair = tuple[int, int]
_UNKNOWN: _Pair = (-1, -1)  # with which every pair differs


class ConditionListener(Keeper):
    """Tells of the changes at *path*, from `start()` on.

    callback(listener) is called after each of them, in a greenlet of its own, never twice at the
    same time: of changes that come meanwhile it is told by one more call. Whatever it raises is
    logged. poll_interval: seconds after which the node is read though nothing was heard, up to a
    quarter longer. path_class: the label of the metrics.

    When the client is stopped, `wait()` raises why; it may be started again with the client.
    """

    _WHAT = "listener"

    def __init__(
        self,
        client: Client,
        path: str,
        callback: Callable[[ConditionListener], object] | None = None,
        *,
        poll_interval: float = 60.0,
        path_class: str = "",
    ) -> None:
        super().__init__(client, path)
        if callback is not None and not callable(callback):
            raise TypeError(f"the callback of a ConditionListener is callable, {callback!r} is not")
        if not 0 < poll_interval < math.inf:
            raise ValueError(f"poll_interval is positive and finite, not {poll_interval!r}")
        self._callback = callback
        self._poll_interval = poll_interval
        self._changes = self._client.recorder.counter(
            "zk_listener_changes", "Changes that a ConditionListener has heard of.", ("path_class",)
        ).labels(path_class)
        self._pair: _Pair | None = None  # None: the first one is where it starts from
        self._sequence = 0
        self._first = 0
        self._seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._lane = Lane()
        self._call_due = False

    def __repr__(self) -> str:
        return f"<ConditionListener {self.path}: {self._life.value}, {self._sequence} changes>"

    @property
    def sequence(self) -> int:
        """How many changes were heard of. Grows; nothing on the servers has this number."""
        return self._sequence

    def start(self) -> bool:
        """Hear of each change from now on; False when it was started already.

        Reads the node, and makes it when it is missing: what was before does not count. When that
        cannot be done in the client's `request_timeout` it goes on by itself (`error` tells what is
        wrong), and the first reading, whenever it comes, counts as a change, since it may be one.
        ZookeeperMisused when the client is not started.
        """
        if self._life is Life.ON:
            return super().start()
        self._pair = None
        self._first = self._sequence
        begun = super().start()
        try:
            timeout = self._client.request_timeout
            self._await(timeout if timeout < math.inf else None, lambda: self._pair or self._error)
        except BaseException:
            self._ask()
            raise
        finally:
            if self._pair is None:
                self._pair = _UNKNOWN
        return begun

    def wait(self, timeout: float | None = None, *, after: int | None = None) -> bool:
        """True when there was a change since this greenlet has got True, or since the start.

        False after *timeout* seconds (None: for ever), or once it is stopped. Each greenlet gets
        each change, several of them as one. *after*: a `sequence`; True when there was a change
        since then, whoever has got it. DeadlineExceeded when the current deadline is the earlier
        one, ZookeeperMisused when it was never started, or its client is stopped.
        """
        self._client.check_thread("ConditionListener.wait()")
        if self._hub is None:
            raise ZookeeperMisused(f"listener {self.path} is not started")
        me = gevent.getcurrent()
        seen = max(self._seen.get(me, 0), self._first) if after is None else after
        wait = Wait(self.path, timeout, what=self._WHAT)
        self._waiters.add(wait)
        try:
            if wait.blocking:
                wait.until(lambda: self._sequence > seen or self._life is not Life.ON)
        except TimeIsUp:
            return False
        finally:
            self._waiters.discard(wait)
        if self._sequence > seen:
            if after is None:
                self._seen[me] = self._sequence
            return True
        if self._life is Life.FAILED and self._error is not None:
            raise self._error
        return False

    @staticmethod
    def signal(client: Client, path: str, *, timeout: float | None = None) -> None:
        """Let all listeners at *path* hear of a change. Needs no lock; wakes no waiter there.

        ZookeeperTimeout when the servers do not answer in *timeout* seconds (None: the client's
        `request_timeout`): it may be done then. Without a node there nothing is: nobody listens.
        """
        client, path = client_of(client), normal_path(path, "listener")

        def read() -> Any:
            client.sync_async(path)  # else a server that lags behind may know of no node
            return client.get_async(path)

        with Call.for_answer(client, path, "listener", timeout) as call:
            while True:
                try:
                    # The data stays: it is of a notify, which may yet have to look for it.
                    data, stat = call.read(read)
                    call.write(partial(client.set_async, path, data, version=stat.version))
                    return
                except NoNodeError:
                    return
                except (BadVersionError, Unanswered):
                    call.wait.breathe()

    # In the greenlet.

    def _step(self, call: Call) -> bool:
        if self._life is not Life.ON:
            return False
        try:
            with call.watch(self.path) as seen:
                if self._life is not Life.ON:
                    return False  # stopped while it was read: nobody hears of it
                stat = seen.value[1]
                self._heard((stat.czxid, stat.version))
                self._until(
                    call,
                    # Without a pair it was stopped and started again: that is to be read anew.
                    lambda: seen.fired or self._life is not Life.ON or self._pair is None,
                    self._poll_interval * random.uniform(1.0, 1.0 + _JITTER),
                )
        except NoNodeError:
            call.read(partial(self._client.ensure_parent_async, self.path, container=False))
        return True

    def _heard(self, pair: _Pair) -> None:
        self._error = None  # not at the end of the step, which may be long
        former, self._pair = self._pair, pair
        if former is not None and former != pair:
            self._sequence += 1
            self._changes.inc()
            if self._callback is not None and not self._call_due:
                self._call_due = True
                self._lane.post(self._call_back, f"the callback of listener {self.path}", self.path)
        self._changed()

    def _call_back(self) -> None:
        self._call_due = False
        if self._callback is not None:
            self._callback(self)

    def _say_trouble(self) -> None:
        super()._say_trouble()
        self._changed()  # start() waits no longer

    def _move(self, life: Life) -> None:
        if life is not Life.ON:
            self._lane.clear()
            self._call_due = False
        super()._move(life)
