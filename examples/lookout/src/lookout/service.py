"""The daemon: take what it needs, run until it is told to stop, give everything back.

lock the state directory ─► load the history ─► open the port ─► mail ─► watch ─► wait
unlock ◄── save the history ◄── stop mailing ◄── drain the server ◄── stop watching ◄── a signal
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gevent.lock import RLock

from lookout import store
from lookout.counters import Counters, count
from lookout.judge import State
from lookout.mail import Postman
from lookout.records import Incident
from lookout.settings import Configuration, Settings, make_server
from lookout.syncer import Syncer
from lookout.targets import Target
from lookout.watchdog import Watchdog
from lookout.web import make_app
from sepelib.core.config import ConfigError
from sepelib.flask.server import Server
from sepelib.metrics import Registry
from sepelib.util.fs import FileLock, FileLockTimeout

__all__ = ["CannotStart", "Service"]

log = logging.getLogger(__name__)


class CannotStart(Exception):
    """The daemon cannot do without something that is not to be had; one sentence."""


class Unwell(Exception):
    """What a check of /ping has to say."""


class Service:
    """One lookout on one state directory. Use it in a `with` block.

    Entering raises CannotStart or `CannotListen`, with nothing left behind; leaving saves the
    history, and `failed` tells afterwards why it could not.
    configuration: where the *settings* are from, for `reload()` and /config/.
    announce: called with each incident that opens or closes, see `Watchdog`.
    port: instead of that of the settings.
    """

    def __init__(
        self,
        settings: Settings,
        configuration: Configuration,
        registry: Registry,
        *,
        announce: Callable[[Incident], object],
        port: int | None = None,
    ) -> None:
        self.failed: str | None = None
        self.counters = Counters(registry)
        self._refused: str | None = None  # why the last reload changed nothing
        self._settings = settings
        self._configuration = configuration
        self._registry = registry
        self._announce = announce
        self._options = {} if port is None else {"port": port}
        self._started = time.monotonic()
        self._version = version("lookout")
        self._exits = ExitStack()
        self._is_open = False
        # What is watched and how changes at a start, a reload, a new list in svn and the end; each
        # may come while another waits in its middle.
        self._changing = RLock()

    def __enter__(self) -> Self:
        with self._changing, ExitStack() as exits:
            self._open(exits)
            self._is_open = True
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changing:
            self._is_open = False
        self._exits.close()

    @property
    def url(self) -> str:
        return f"{self.server.url}/"

    def _open(self, exits: ExitStack) -> None:
        settings = self._settings
        path = _state_file(settings.state, exits)
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
        self.postman = Postman(self.history, self.keeper, settings.mail, self.counters)
        self.watchdog = Watchdog(self.history, self.keeper, self.counters, announce=self._tell)
        self.syncer = Syncer(settings.state, changed=self._watch)
        exits.callback(self.counters.ask(self._states, lambda: len(self.history.outbox)))
        self.server = self._make_server()
        self.server.start()
        exits.callback(self.postman.stop)
        exits.callback(self.server.stop)
        self.postman.start()
        exits.callback(self.watchdog.stop)
        exits.callback(self.syncer.stop)
        self.syncer.use(settings.svn, settings.defaults)
        self.watchdog.watch(self.targets)

    def _make_server(self) -> Server:
        app = make_app(lambda: self.targets, self.history, self.health)
        server = make_server(
            self._configuration.config,
            app,
            version=self._version,
            metrics=self._registry,
            **self._options,
        )
        # None is critical: a lookout that cannot save or mail still watches, and shows it.
        for name, problem in {
            "history can be saved": lambda: self.keeper.error,
            "configuration taken": lambda: self._refused,
            "mail can be sent": lambda: self.postman.error,
        }.items():
            server.add_check(name, partial(_check, problem), critical=False, cache=0.0)
        return server

    @property
    def targets(self) -> tuple[Target, ...]:
        """Those of the configuration, then those of the list in svn that it does not name."""
        own = self._settings.targets
        names = {target.name for target in own}
        return (*own, *(target for target in self.syncer.targets if target.name not in names))

    def _watch(self) -> None:
        with self._changing:
            if self._is_open:
                self.watchdog.watch(self.targets)

    def _tell(self, incident: Incident) -> None:
        self.postman.wake()  # the mail itself came into the outbox with the incident
        self._announce(incident)

    def reload(self) -> None:
        """Read the configuration again and go on with it; with that of before if it is wrong.

        What cannot change while running is kept as it is, with a WARNING that names it.
        """
        with self._changing:
            if self._is_open:
                self._reload()

    def _reload(self) -> None:
        old = self._settings
        try:
            new = self._configuration.reload()
        except ConfigError as error:
            log.error("configuration not taken, the one of before stays: %s", error)
            self._refused = str(error)
            self.counters.refused.inc()
            return
        self._refused = None
        self.counters.taken.inc()
        if kept := [key for key, (was, now) in _fixed(old, new).items() if was != now]:
            log.warning("only a restart changes %s; kept as before", ", ".join(kept))
        self._settings = new = replace(
            new,
            name=old.name,
            state=old.state,
            web=old.web,
            log=replace(old.log, level=new.log.level),
        )
        logging.getLogger().setLevel(new.log.level)
        self.history.limit(max_results=new.max_results, max_incidents=new.max_incidents)
        self.keeper.every = new.save_every
        if new.mail != old.mail:
            self.postman.use(new.mail)
        self.syncer.use(new.svn, new.defaults)
        self.watchdog.watch(self.targets)
        log.info("configuration read again, watching %d targets", len(self.targets))

    def _states(self) -> list[State]:
        return [self.history.record(target.name).standing.state for target in self.targets]

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
        if faults := count(self.counters.faults):
            complaints.append(f"lookout itself failed in {faults} probes; its log says how")
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
                "sent": count(self.counters.sent),
                "waiting": len(self.history.outbox),
                "given_up": count(self.counters.given_up),
            },
        }


def _check(problem: Callable[[], str | None]) -> None:
    if said := problem():
        raise Unwell(said)


def _fixed(old: Settings, new: Settings) -> dict[str, tuple[object, object]]:
    """What it was and what it would be, for all that stays until a restart."""
    web = {f"web.{key}": (old.web.get(key), new.web.get(key)) for key in {**old.web, **new.web}}
    return {
        "service.name": (old.name, new.name),
        "service.state": (old.state, new.state),
        **web,
        "log.file": (old.log.file, new.log.file),
        "log.json": (old.log.json, new.log.json),
    }


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
