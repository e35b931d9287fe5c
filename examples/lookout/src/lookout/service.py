"""The daemon: take what it needs, run until it is told to stop, give everything back.

lock the state directory ─► open the port ─► load the history ─► serve and watch ─► wait
unlock ◄── save the history ◄── stop mailing ◄── drain the server ◄── stop probing ◄── a signal
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from lookout import store
from lookout.mail import Postman
from lookout.records import Incident
from lookout.settings import Settings, Target
from lookout.syncer import Syncer
from lookout.watchdog import Watchdog
from lookout.web import make_app, make_server
from sepelib.core.config import ConfigError
from sepelib.util.fs import FileLock, FileLockTimeout

__all__ = ["CannotStart", "PortInUse", "Service", "listen", "signals"]

DRAIN = 1.0  # seconds for answers under way; an idle browser makes the server wait all of them

log = logging.getLogger(__name__)


class CannotStart(Exception):
    """The daemon cannot do without something that is not to be had; one sentence."""


class PortInUse(CannotStart):
    """Another process listens on the address."""


class Service:
    """One lookout on one state directory. Use it in a `with` block.

    Entering raises CannotStart, with nothing left behind; leaving saves the history, and `failed`
    tells afterwards why it could not.
    announce: called with each incident that opens or closes, see `Watchdog`.
    listener: serve on this instead of the address of the settings; closed at the end.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        announce: Callable[[Incident], object],
        listener: socket.socket | None = None,
    ) -> None:
        self.failed: str | None = None
        self._refused: str | None = None  # why the last reload changed nothing
        self._settings = settings
        self._announce = announce
        self._listener = listener
        self._started = time.monotonic()
        self._version = version("lookout")
        self._exits = ExitStack()
        self._watching = BoundedSemaphore()

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            self._open(exits)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.close()

    @property
    def url(self) -> str:
        host, port = self._address[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def _open(self, exits: ExitStack) -> None:
        settings = self._settings
        if self._listener is not None:
            exits.callback(self._listener.close)
        path = _state_file(settings.state, exits)
        listener = self._listener or listen(settings.host, settings.port)
        exits.callback(listener.close)
        self._address = listener.getsockname()
        try:
            self.history = store.load(
                path, max_results=settings.max_results, max_incidents=settings.max_incidents
            )
        except (OSError, store.NewerHistory) as error:
            raise CannotStart(f"the history cannot be read: {error}") from error
        try:
            # A full disk is to be heard of now, and not when the first incident is to be kept.
            store.save(path, store.encode(self.history))
        except OSError as error:
            raise CannotStart(f"the history cannot be saved: {error}") from error
        self.keeper = store.Keeper(self.history, path, every=settings.save_every)
        exits.callback(self._close_keeper)
        self.postman = Postman(self.history, self.keeper, settings.mail)
        self.postman.start()
        exits.callback(self.postman.stop)
        self.watchdog = Watchdog(self.history, self.keeper, announce=self._tell)
        self.syncer = Syncer(settings.state, changed=self._watch)
        app = make_app(lambda: self.targets, self.history, self.health)
        server = make_server(listener, app)
        server.start()
        exits.callback(server.stop, timeout=DRAIN)
        exits.callback(self.watchdog.stop)
        exits.callback(self.syncer.stop)
        self.syncer.use(settings.svn, settings.defaults)
        self._watch()

    @property
    def targets(self) -> tuple[Target, ...]:
        """Those of the configuration, then those of the list in svn that it does not name."""
        own = self._settings.targets
        names = {target.name for target in own}
        return (*own, *(target for target in self.syncer.targets if target.name not in names))

    def _watch(self) -> None:
        # `watch` waits in the middle: a reload and the syncer, each with its targets, take turns.
        with self._watching:
            self.watchdog.watch(self.targets)

    def _tell(self, incident: Incident) -> None:
        self.postman.wake()  # the mail itself came into the outbox with the incident
        self._announce(incident)

    def reload(self, read: Callable[[], Settings]) -> None:
        """Go on with the settings that *read* gives; with those of before if it is a ConfigError.

        What cannot change while running is kept as it is, with a WARNING that names it.
        """
        old = self._settings
        try:
            new = read()
        except ConfigError as error:
            log.error("configuration not taken, the one of before stays: %s", error)
            self._refused = str(error)
            return
        self._refused = None
        fixed = {"service.state": "state", "web.host": "host", "web.port": "port"}
        if kept := [key for key, name in fixed.items() if getattr(new, name) != getattr(old, name)]:
            log.warning("only a restart changes %s; kept as before", ", ".join(kept))
        self._settings = new = replace(new, state=old.state, host=old.host, port=old.port)
        logging.getLogger().setLevel(new.log_level)
        self.history.limit(max_results=new.max_results, max_incidents=new.max_incidents)
        self.keeper.every = new.save_every
        if new.mail != old.mail:
            self.postman.use(new.mail)
        self.syncer.use(new.svn, new.defaults)
        self._watch()
        log.info("configuration read again, watching %d targets", len(self.targets))

    def _clashes(self) -> str:
        names = {target.name for target in self._settings.targets}
        return ", ".join(t.name for t in self.syncer.targets if t.name in names)

    def _close_keeper(self) -> None:
        if not self.keeper.close():
            self.failed = f"the last results are not saved: {self.keeper.error}"

    def health(self) -> dict[str, Any]:
        """What the service says about itself."""
        complaints = []
        if self._refused:
            complaints.append(
                f"The configuration was not taken, the one of before stays: {self._refused}"
            )
        if self.keeper.error:
            complaints.append(f"The history cannot be saved: {self.keeper.error}")
        if self.watchdog.faults:
            complaints.append(
                f"lookout itself failed in {self.watchdog.faults} probes; its log says how"
            )
        complaints += self.syncer.complaints
        if clashes := self._clashes():
            complaints.append(
                f"Not taken from svn, the configuration has targets of these names: {clashes}"
            )
        complaints += self.postman.complaints
        return {
            "service": self._settings.name,
            "version": self._version,
            "uptime": round(time.monotonic() - self._started, 3),
            "complaints": complaints,
            "mail": None
            if self._settings.mail is None
            else {
                "sent": self.postman.sent,
                "waiting": len(self.history.outbox),
                "given_up": self.postman.given_up,
            },
        }


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises CannotStart, PortInUse where another port would do."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} of {host} is in use; stop what listens there or give another port"
            ) from error
        raise CannotStart(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def _state_file(state: Path, exits: ExitStack) -> Path:
    """The file of the history, once nobody else may touch it."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = FileLock(state / "lock", timeout=0)
        lock.acquire()
    except FileLockTimeout as error:
        raise CannotStart(
            f"another lookout (pid {error.holder}) uses {state}; stop it or give another directory"
        ) from error
    except FileExistsError as error:
        raise CannotStart(f"cannot keep the history in {state}: not a directory") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CannotStart(f"cannot keep the history in {state}: {reason}") from error
    exits.callback(lock.release)
    return state / "history.json"


class Signals(NamedTuple):
    """What somebody has asked for from outside."""

    stop: Event
    reload: Event


@contextmanager
def signals(*, reload: bool = False) -> Iterator[Signals]:
    """Events that SIGTERM and SIGINT set (stop) and, if wanted, SIGHUP (reload).

    Whoever asks twice to stop is obeyed at once.
    """
    asked = Signals(Event(), Event())

    def stop(number: int) -> None:
        if asked.stop.is_set():
            os._exit(128 + number)
        asked.stop.set()  # no more than this: a handler runs in the middle of anything

    def reread(number: int) -> None:
        asked.reload.set()

    handlers = [gevent.signal_handler(n, stop, n) for n in (signal.SIGTERM, signal.SIGINT)]
    if reload:
        handlers.append(gevent.signal_handler(signal.SIGHUP, reread, signal.SIGHUP))
    try:
        yield asked
    finally:
        for handler in handlers:
            handler.cancel()
