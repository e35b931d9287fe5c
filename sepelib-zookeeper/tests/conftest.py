"""One case, two libraries: `flavour` is ours, or kazoo's own classes under `--peer kazoo`."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

SESSION = 2.0  # seconds; what expires does so in about this
LOCK_PATH = "/service/lock"


class Flavour:
    """The client and the locks of one library, and what a case asks of both alike.

    Sentences given as *otherwise* say what was wrong, so that a failure reads as a finding.
    """

    name: str
    script = ""  # the first lines of a child process: defines Client, Lock and SESSION

    def __init__(self) -> None:
        self._clients: list[Any] = []
        self._greenlets: list[Any] = []

    def make(self, hosts: str, **options: Any) -> Any:
        """A client, not started; stopped when the test ends."""
        client = self._make(hosts, **{"timeout": SESSION} | options)
        self._clients.append(client)
        return client

    def client(self, hosts: str, **options: Any) -> Any:
        client = self.make(hosts, **options)
        client.start(timeout=10.0)
        assert self.connected(client) and client.exists("/")
        return client

    def cut_off(self, client: Any, proxy: Any) -> None:
        """An outage: every connection ends, and no new one is made until `proxy.heal()`."""
        proxy.refuse()
        proxy.cut()
        self.eventually(lambda: not self.connected(client), 2.0, "a cut was not noticed")

    def _make(self, hosts: str, **options: Any) -> Any:
        raise NotImplementedError

    def connected(self, client: Any) -> bool:
        raise NotImplementedError

    def lost(self, client: Any) -> bool:
        raise NotImplementedError

    def lock(self, client: Any, path: str, **options: Any) -> Any:
        raise NotImplementedError

    def read_lock(self, client: Any, path: str) -> Any:
        raise NotImplementedError

    def write_lock(self, client: Any, path: str) -> Any:
        raise NotImplementedError

    def acquire(self, lock: Any, timeout: float | None = None) -> bool:
        """Whether *lock* was acquired in *timeout*, in whichever way the library says no."""
        raise NotImplementedError

    def pass_through(self, client: Any, gate: str, contender: str) -> None:
        """Wait, with a recipe of the library, until *gate*/*contender* is no more."""
        raise NotImplementedError

    def spawn(self, call: Callable[..., Any], *args: Any) -> Any:
        """A greenlet, killed when the test ends; what it raises is not printed."""
        greenlet = gevent.spawn(_outcome, call, args)
        self._greenlets.append(greenlet)
        return greenlet

    def result(self, greenlet: Any, seconds: float, otherwise: str) -> Any:
        """What the call of *greenlet* returned or raised; at the latest in *seconds*."""
        greenlet.join(seconds)
        if not greenlet.ready():
            pytest.fail(otherwise)
        value, error = greenlet.value
        if error is not None:
            raise error
        return value

    def within(self, seconds: float, call: Callable[..., Any], *args: Any, otherwise: str) -> Any:
        return self.result(self.spawn(call, *args), seconds, otherwise)

    def eventually(self, condition: Callable[[], object], seconds: float, otherwise: str) -> None:
        with gevent.Timeout(seconds, False):
            while not condition():
                gevent.sleep(0.01)
            return
        pytest.fail(otherwise)

    def close(self) -> None:
        gevent.killall(self._greenlets, timeout=1.0)
        # A client that cannot stop must not hold up the next test.
        gevent.joinall([gevent.spawn(self._stop, client) for client in self._clients], timeout=5.0)

    def _stop(self, client: Any) -> None:
        client.stop()
        client.close()


def _outcome(call: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    try:
        return call(*args), None
    except BaseException as error:
        return None, error


class Ours(Flavour):
    name = "ours"
    script = f"from sepelib.zookeeper import Client, Lock\nSESSION = {SESSION}\n"

    def _make(self, hosts: str, **options: Any) -> Any:
        from sepelib.zookeeper import Client

        return Client(hosts, **options)

    def connected(self, client: Any) -> bool:
        from sepelib.zookeeper import SessionState

        return bool(client.session.state is SessionState.CONNECTED)

    def lost(self, client: Any) -> bool:
        from sepelib.zookeeper import SessionState

        return bool(client.session.state is SessionState.LOST)

    def lock(self, client: Any, path: str, **options: Any) -> Any:
        from sepelib.zookeeper import Lock

        return Lock(client, path, **options)

    def read_lock(self, client: Any, path: str) -> Any:
        from sepelib.zookeeper import ReadLock

        return ReadLock(client, path)

    def write_lock(self, client: Any, path: str) -> Any:
        from sepelib.zookeeper import WriteLock

        return WriteLock(client, path)

    def acquire(self, lock: Any, timeout: float | None = None) -> bool:
        return bool(lock.acquire(timeout=timeout))

    def pass_through(self, client: Any, gate: str, contender: str) -> None:
        from sepelib.zookeeper import Barrier

        Barrier(client, f"{gate}/{contender}").wait()


class Kazoo(Flavour):
    name = "kazoo"
    script = f"""
from kazoo.client import KazooClient
from kazoo.handlers.gevent import SequentialGeventHandler
from kazoo.recipe.lock import Lock
def Client(hosts, timeout):
    return KazooClient(hosts, timeout=timeout, handler=SequentialGeventHandler())
SESSION = {SESSION}
"""

    def _make(self, hosts: str, **options: Any) -> Any:
        from kazoo.client import KazooClient
        from kazoo.handlers.gevent import SequentialGeventHandler

        return KazooClient(hosts, handler=SequentialGeventHandler(), **options)

    def connected(self, client: Any) -> bool:
        return bool(client.state == "CONNECTED")

    def lost(self, client: Any) -> bool:
        return bool(client.state == "LOST")

    def lock(self, client: Any, path: str, **options: Any) -> Any:
        options.pop("container", None)  # it has none
        return client.Lock(path, **options)

    def read_lock(self, client: Any, path: str) -> Any:
        return client.ReadLock(path)

    def write_lock(self, client: Any, path: str) -> Any:
        return client.WriteLock(path)

    def acquire(self, lock: Any, timeout: float | None = None) -> bool:
        from kazoo.exceptions import LockTimeout

        try:
            return bool(lock.acquire(timeout=timeout))
        except LockTimeout:
            return False

    def pass_through(self, client: Any, gate: str, contender: str) -> None:
        client.Barrier(f"{gate}/{contender}").wait()


@pytest.fixture
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """Ours; with --peer kazoo (./dev peers) kazoo's."""
    peer = request.config.getoption("--peer", None)
    flavour = Kazoo() if peer == "kazoo" else Ours()
    yield flavour
    flavour.close()


@pytest.fixture
def proxy(zookeeper: Any) -> Iterator[Any]:
    with zookeeper.proxy() as proxy:
        yield proxy


@pytest.fixture
def observer(zookeeper: Any) -> Iterator[Any]:
    """A client that no fault touches: kazoo's, whichever the flavour."""
    from kazoo.client import KazooClient
    from kazoo.handlers.gevent import SequentialGeventHandler

    client = KazooClient(zookeeper.hosts, timeout=20.0, handler=SequentialGeventHandler())
    client.start()
    yield client
    client.stop()
    client.close()


class Queue:
    """The queue of the lock, as the server has it."""

    def __init__(self, observer: Any, flavour: Any) -> None:
        self._observer = observer
        self._flavour = flavour

    def names(self) -> list[str]:
        if not self._observer.exists(LOCK_PATH):
            return []
        return sorted(self._observer.get_children(LOCK_PATH), key=lambda name: name[-10:])

    def comes_to(self, count: int, seconds: float = 5.0) -> None:
        self._flavour.eventually(
            lambda: len(self.names()) == count, seconds, f"the queue never was {count} long"
        )

    def stays_at(self, count: int, seconds: float = 0.5) -> None:
        """Nor is there another one a while later."""
        self.comes_to(count)
        gevent.sleep(seconds)
        assert len(self.names()) == count

    def owners(self) -> list[int]:
        stats = [self._observer.exists(f"{LOCK_PATH}/{name}") for name in self.names()]
        return [stat.ephemeralOwner for stat in stats if stat]

    def join(self) -> str:
        """A contender that this test is itself."""
        prefix = f"{LOCK_PATH}/{random.getrandbits(128):032x}__lock__"
        return str(self._observer.create(prefix, ephemeral=True, sequence=True, makepath=True))

    def delete(self, path: str) -> None:
        self._observer.delete(path)

    def clear(self) -> None:
        """All of it and the parent, at once."""
        transaction = self._observer.transaction()
        for name in self.names():
            transaction.delete(f"{LOCK_PATH}/{name}")
        transaction.delete(LOCK_PATH)
        assert not any(isinstance(result, Exception) for result in transaction.commit())


@pytest.fixture
def queue(observer: Any, flavour: Any) -> Queue:
    return Queue(observer, flavour)
