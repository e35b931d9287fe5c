"""The requests of one call of a recipe, all within the patience of that call.

    with Call(client, "/gate", "barrier", timeout) as call:
        while True:
            with call.watch("/gate", "exists") as seen:
                if seen.value is None:
                    return True
                call.until_fired(seen)

What is read is asked for until there is an answer, over any number of connections and sessions. A
write is sent once; what became of one without an answer only the recipe can find out, by reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from kazoo.exceptions import KazooException, SessionExpiredError, SessionMovedError

from sepelib.util.deadline import DeadlineExceeded
from sepelib.zookeeper._contender import UNANSWERED, check_running
from sepelib.zookeeper._wait import Busy, TimeIsUp, Wait
from sepelib.zookeeper._watch import Ask, Watch
from sepelib.zookeeper.errors import ZookeeperError, ZookeeperTimeout
from sepelib.zookeeper.session import SessionState
from sepelib.zookeeper.transaction import TransactionRefused, TransactionUnknown

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["Call", "Unanswered"]


class Unanswered(Exception):
    """A write was sent and there is no answer: it is done, or not, or yet will be."""


class Call:
    """What a method of a recipe does from its begin to its end; for one greenlet.

    *what* the recipe is ("queue", "barrier") is the first word of what it says. The *timeout*
    covers everything; when it is over any of these methods raises TimeIsUp, which the recipe turns
    into its result. Without *blocking*, or with a timeout of 0, nothing is waited for but answers:
    Busy. Errors about data (NoNodeError, BadVersionError ...) are for the recipe: what it does not
    catch leaves the `with` as a ZookeeperError.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        what: str,
        timeout: float | None = None,
        *,
        blocking: bool = True,
    ) -> None:
        client.check_thread(f"a {what}")
        self.client = client
        self.path = path
        self.what = what
        self.wait = Wait(path, timeout, blocking=blocking, what=what)
        self.unanswered = False
        """Whether a write of this call was sent and not answered."""
        self._for_answer = False
        self._unsubscribe: Callable[[], None] = lambda: None

    @classmethod
    def for_answer(cls, client: Client, path: str, what: str, timeout: float | None = None) -> Self:
        """Of a method that waits for the servers only, not for what others do.

        A *timeout* of None is the client's `request_timeout`. When the time is over, also that of
        the current deadline, the `with` is left by a ZookeeperTimeout, with *maybe_executed* True
        if a write was sent and not answered.
        """
        if timeout is None and client.request_timeout < math.inf:
            timeout = client.request_timeout
        try:
            call = cls(client, path, what, timeout)
        except DeadlineExceeded as error:
            words = f"{what} {path}: not asked for: {error}"
            raise ZookeeperTimeout(words, maybe_executed=False) from error
        call._for_answer = True
        return call

    def __enter__(self) -> Self:
        self._unsubscribe = self.client.session.subscribe(self.wait.wake)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._unsubscribe()
        if isinstance(error, ZookeeperError):
            return
        if self._for_answer and isinstance(error, TimeIsUp | Busy | DeadlineExceeded):
            raise self._timeout(error) from error
        if isinstance(error, KazooException):
            words = f"{type(error).__name__} {error}".strip()
            raise ZookeeperError(f"{self.what} {self.path}: {words}") from error

    def contact(self) -> None:
        """Wait for the connection."""
        session = self.client.session

        def settled() -> bool:
            check_running(self.client)
            return session.state is SessionState.CONNECTED

        if not self.wait.blocking and not settled():
            raise Busy
        self.wait.until(settled)

    def read(self, ask: Callable[[], Any]) -> Any:
        """The value of the result that *ask*() makes; asked again as long as there is no answer."""
        while True:
            self.contact()
            answer = ask()
            self._settle(answer)
            try:
                return answer.get_nowait()
            except UNANSWERED:
                self.wait.breathe()

    def write(self, ask: Callable[[], Any]) -> Any:
        """The value of the result that *ask*() makes; Unanswered when nobody knows what became of
        it. What was not sent yet, because there was no connection, is asked for again.

        However this ends, what has not been sent by then is not sent later.
        """
        while True:
            self.contact()
            answer = ask()
            try:
                self._settle(answer)
            except BaseException:
                answer.withdraw()
                self.unanswered |= answer.left
                raise
            try:
                return answer.get_nowait()
            except TransactionUnknown as e:
                self.unanswered = True
                raise Unanswered from e
            except TransactionRefused as e:
                if isinstance(e.error, SessionExpiredError | SessionMovedError):
                    # Not done for certain; but it can be asked for again, as if nobody knew.
                    raise Unanswered from e
                raise
            except UNANSWERED as e:
                # Not sent by now, it may be in the queue of a new connection.
                answer.withdraw()
                if answer.left:
                    self.unanswered = True
                    raise Unanswered from e
                self.wait.breathe()

    def watch(self, path: str, ask: Ask = "get") -> Watch:
        """Read *path* until it is answered, and watch it. NoNodeError is raised here.

        The caller removes it, by a `with` at best.
        """
        while True:
            self.contact()
            watch = Watch(self.client, path, self.wait.wake, ask)
            try:
                self._settle(watch.answer)
                watch.answer.get_nowait()
                return watch
            except UNANSWERED:
                watch.remove()  # the answer may be late, and set it
                self.wait.breathe()
            except KazooException:
                watch.fired = True  # refused: it was not set
                raise
            except BaseException:
                watch.remove()
                raise

    def until_fired(self, *watches: Watch, timeout: float | None = None) -> bool:
        """Wait until one of *watches* may have something new; False when *timeout* is over first.

        They are gone with the connection: that is new too.
        """

        def moved() -> bool:
            check_running(self.client)
            gone = self.client.session.state is not SessionState.CONNECTED
            return gone or any(watch.fired for watch in watches)

        if not self.wait.blocking and not moved():
            raise Busy
        return self.wait.until(moved, timeout)

    def _settle(self, answer: Any) -> None:
        answer.rawlink(self.wait.wake)
        self.wait.until(answer.ready)

    def _timeout(self, error: BaseException) -> ZookeeperTimeout:
        reason = f"no answer in {self.wait.waited():.3g} s"
        if isinstance(error, Busy):
            reason = "it would have to wait"
        if self.unanswered:
            reason += "; what was sent last is done, or not"
        words = f"{self.what} {self.path}: {reason}"
        return ZookeeperTimeout(words, maybe_executed=self.unanswered)
