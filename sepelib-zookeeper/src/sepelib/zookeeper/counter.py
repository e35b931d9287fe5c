"""A number and a value that many share, each change of which is done exactly once.
Status: production.

    hits = Counter(client, "/hits")
    before, after = hits.add(1)
    hits.add(5, key=f"order-{number}")      # again after a crash: added once all the same

    limits = SharedValue(client, "/limits", default=b"{}")
    value, seen = limits.get()
    while limits.wait_change(seen):
        value, seen = limits.get()

A change is done once, over lost answers and lost sessions: each is one transaction with a node of
its own below PATH, which is there while its caller does not know yet. `_once` has the proof. There
is no `+`, since an expression that writes, and waits, and may be repeated, surprises.

Cost: 3 requests for a change, the last of which is not waited for, of a shared value 4 in the same
two round trips; 2 for a read, in one.
Units: seconds. Sharing: for all greenlets of the client's hub, whose changes take turns.
Errors: ZookeeperTimeout when the time is over (None: the client's `request_timeout`), be it the
current `sepelib.util.deadline`'s; the change may be done then if its *maybe_executed* is True.
ConfigurationError when the node holds something else. Left behind: nothing, but for a process that
dies in the middle; others delete that an hour later.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from kazoo.exceptions import NoNodeError

from sepelib.zookeeper._call import Call
from sepelib.zookeeper._identity import normal_path
from sepelib.zookeeper._once import Once
from sepelib.zookeeper._wait import Busy, TimeIsUp
from sepelib.zookeeper.client import Client, client_of
from sepelib.zookeeper.errors import ConfigurationError

__all__ = ["Counter", "SharedValue"]

_LARGEST = 1_000_000
"""The servers' own limit is 1 MiB: a request beyond it makes them cut the connection."""

Number = TypeVar("Number", int, float)


class Counter(Generic[Number]):
    """A number at *path*; *default*, whose type is that of the counter, is where it begins.

    An int has any size up to 4300 digits; a float adds as floats do. The node is kazoo's `Counter`
    without *support_curator*, the number as text: both may use one path, and kazoo's own additions
    are as they are there, perhaps twice. keep: seconds for which a key is
    known, at the least, and the longest that an addition with one waits for its answer; all who use
    the path give the same.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        default: Number = 0,
        *,
        keep: float = 3600.0,
        path_class: str = "",
    ) -> None:
        self._client = client_of(client)
        self.path = normal_path(path, "counter")
        self._type: Any = type(default)
        if self._type not in (int, float):
            raise TypeError(f"a counter is an int or a float, not {self._type.__name__}")
        self.default: Number = self._number(default)
        self._once = Once(self._client, self.path, b"", keep=keep, path_class=path_class)

    def __repr__(self) -> str:
        return f"<Counter {self.path}>"

    @property
    def value(self) -> Number:
        """As the servers have it: every change that was answered before is in it."""
        with Call.for_answer(self._client, self.path, "counter") as call:
            try:
                data, _ = self._once.read(call)
            except NoNodeError:
                return self.default
            return self._parsed(data)

    def add(
        self, n: Number, *, key: str | None = None, timeout: float | None = None
    ) -> tuple[Number, Number]:
        """Add *n*, which may be negative; the numbers before and after.

        key: names this addition among all that are made at this path. Asked for again within *keep*
        seconds, by whichever process, it is not done again, and what came of it the first time is
        given; ValueError when it was of another *n*.
        """
        n = self._number(n)

        def plan(data: bytes, stat: Any) -> tuple[bytes, bytes]:
            before = self._parsed(data)
            after: Number = self._type(before + n)
            if not self._countable(after):
                raise ValueError(f"counter {self.path}: {before!r} and {n!r} are {after!r}")
            return repr(after).encode(), json.dumps([n, before, after]).encode()

        with Call.for_answer(self._client, self.path, "counter", timeout) as call:
            result = self._once.change(call, plan, key)
        assert result is not None
        numbers: list[Number] = json.loads(result)
        added, before, after = numbers
        if added != n:
            raise ValueError(f"counter {self.path}: the key {key!r} is one of adding {added!r}")
        return before, after

    def _number(self, n: Number) -> Number:
        allowed = (int, float) if self._type is float else (int,)
        if type(n) not in allowed:
            raise TypeError(f"this counter takes {self._type.__name__}, not {type(n).__name__}")
        try:
            number: Number = self._type(n)
        except OverflowError as e:
            raise ValueError("a counter of floats cannot count an int beyond them") from e
        if not self._countable(number):
            raise ValueError(f"a counter cannot count {n!r}")
        return number

    def _countable(self, number: Number) -> bool:
        return self._type is int or math.isfinite(number)

    def _parsed(self, data: bytes) -> Number:
        if not data:
            return self.default
        try:
            number: Number = self._type(data.decode("ascii"))
            if self._countable(number):
                return number
            cause = None
        except ValueError as e:
            cause = e
        raise ConfigurationError(
            f"counter {self.path}: holds {data[:40]!r}, which is no {self._type.__name__}"
        ) from cause


class SharedValue:
    """Bytes at *path*; *default* while nobody has set any.

    The node holds the bare bytes, so who only reads may do so with any client, and its watches
    fire as ever.
    """

    def __init__(
        self, client: Client, path: str, default: bytes = b"", *, path_class: str = ""
    ) -> None:
        self._client = client_of(client)
        self.path = normal_path(path, "shared value")
        self._default = _checked(default)
        self._once = Once(self._client, self.path, default, keep=3600.0, path_class=path_class)

    def __repr__(self) -> str:
        return f"<SharedValue {self.path}>"

    def get(self, timeout: float | None = None) -> tuple[bytes, int]:
        """The value as the servers have it, and which one it is.

        That is a number that is greater for each later one, whoever sets it; 0 while nobody has set
        any, or when somebody has deleted the node.
        """
        with self._call(timeout) as call:
            try:
                data, stat = self._once.read(call)
            except NoNodeError:
                return self._default, 0
            return data, self._which(data, stat)

    def set(self, value: bytes, timeout: float | None = None) -> None:
        """Set it, whatever it is."""
        value = _checked(value)
        with self._call(timeout) as call:
            self._once.change(call, lambda data, stat: (value, b""), fresh=True)

    def try_set(self, value: bytes, expected: int, timeout: float | None = None) -> bool:
        """Set it if it is still the one that `get()` has given with *expected*; else False."""
        value = _checked(value)

        def plan(data: bytes, stat: Any) -> tuple[bytes, bytes] | None:
            return (value, b"") if self._which(data, stat) == expected else None

        with self._call(timeout) as call:
            return self._once.change(call, plan, fresh=True) is not None

    def update(
        self, change: Callable[[bytes], bytes | None], timeout: float | None = None
    ) -> bytes | None:
        """Set what *change*(value) returns, and return it; None of it leaves all as it is.

        It is called again whenever others were faster, so it should do nothing else. What it raises
        is raised, and nothing is set.
        """
        values: list[bytes] = []  # of each attempt: one without an answer may be the one

        def plan(data: bytes, stat: Any) -> tuple[bytes, bytes] | None:
            value = change(data)
            if value is None:
                return None
            values.append(_checked(value))
            return value, str(len(values) - 1).encode()

        with self._call(timeout) as call:
            attempt = self._once.change(call, plan, fresh=True)
        return None if attempt is None else values[int(attempt)]

    def wait_change(self, seen: int, timeout: float | None = None) -> bool:
        """True once it is another one than that which `get()` has given with *seen*, at once if it
        is already; False when *timeout* seconds are over before.

        None waits for ever. Of several changes the last one is what `get()` gives then.
        """
        try:
            with Call(self._client, self.path, "shared value", timeout) as call:
                while True:
                    with call.watch(self.path, "exists") as node:
                        if self._present(call) != seen:
                            return True
                        call.until_fired(node)
        except (TimeIsUp, Busy):
            return False

    def _call(self, timeout: float | None) -> Call:
        return Call.for_answer(self._client, self.path, "shared value", timeout)

    def _present(self, call: Call) -> int:
        try:
            data, stat = self._once.read(call)
        except NoNodeError:
            return 0
        return self._which(data, stat)

    def _which(self, data: bytes, stat: Any) -> int:
        # A node made for the first change is there before that.
        return 0 if stat.version == 0 and data == self._default else int(stat.mzxid)


def _checked(value: bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"a shared value is bytes, not {type(value).__name__}")
    if len(value) > _LARGEST:
        raise ValueError(f"a shared value has {_LARGEST} bytes at most, not {len(value)}")
    return value
