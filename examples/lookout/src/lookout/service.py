"""The daemon: take what it needs, run until it is told to stop, give everything back.

lock the state directory ─► load the history ─► open the port ─► watch ─► judge ─► wait
unlock ◄── save the history ◄── drain the server ◄── stop watching ◄── stop judging ◄── a signal

Judging ends first: another replica goes on with it while this one still answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gevent.lock import RLock

from lookout import store
from lookout.chair import Chair
from lookout.counters import Counters, count
from lookout.election import Alone, Elected, Election
from lookout.judge import State
from lookout.ledger import LedgerFile
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
    """One replica of lookout. Use it in a `with` block.

    Entering raises CannotStart or `CannotListen`, with nothing left behind; leaving saves the
    history, and `failed` tells afterwards why it could not.
    configuration: where the *settings* are from, for `reload()` and /config/.
    announce: called with each incident that opens or closes, see `Chair`.
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
        alone = settings.zookeeper is None
        # What is this replica's own has its own place among several.
        own = settings.state if alone else settings.state / "replicas" / settings.replica
        path = _state_file(own, exits)
        file = LedgerFile(settings.state)
        try:
            file.adopt(settings.state / path.name)
            with suppress(store.HistoryDamaged):  # the judge puts it aside
                file.read()
            self.history = store.load(path, max_results=settings.max_results)
        except (OSError, store.NewerHistory) as error:
            raise CannotStart(f"the history cannot be read: {error}") from error
        write = partial(store.save, path)
        try:
            # A full disk is to be heard of now, and not when the first incident is to be kept.
            write(store.encode(self.history))
        except OSError as error:
            raise CannotStart(f"the history cannot be saved: {error}") from error
        self.keeper = store.Keeper(
            partial(store.encode, self.history), write, every=settings.save_every
        )
        exits.callback(self._close_keeper)
        self.chair = Chair(
            self.history,
            self.keeper,
            file,
            self.counters,
            replica=settings.replica,
            announce=self._announce,
            mail=settings.mail,
            max_incidents=settings.max_incidents,
            save_every=settings.save_every,
        )
        self.election: Election = (
            Alone(self.chair)
            if settings.zookeeper is None
            else Elected(self.chair, settings.zookeeper, settings.replica)
        )
        self.watchdog = Watchdog(self.history, self.keeper, self.counters, heard=self.chair.heard)
        self.syncer = Syncer(own, changed=self._watch)
        exits.callback(
            self.counters.ask(
                self._states, lambda: self.chair.waiting, lambda: self.election.is_degraded
            )
        )
        self.server = self._make_server()
        self.server.start()
        exits.callback(self.server.stop)
        exits.callback(self.watchdog.stop)
        exits.callback(self.syncer.stop)
        self.syncer.use(settings.svn, settings.defaults)
        self._watch_targets()
        exits.callback(self.election.stop)
        self.election.start()

    def _make_server(self) -> Server:
        app = make_app(
            lambda: self.targets,
            self.history,
            self.chair.ledger,
            self.health,
            self.election.cluster,
        )
        server = make_server(
            self._configuration.config,
            app,
            version=self._version,
            metrics=self._registry,
            **self._options,
        )
        checks: dict[str, Callable[[], str | None]] = {
            "history can be saved": lambda: self._unsaved,
            "configuration taken": lambda: self._refused,
            "mail can be sent": lambda: self.chair.postman.error if self.chair.postman else None,
        }
        if self._settings.zookeeper is not None:
            checks["zookeeper"] = lambda: self.election.complaint
        # None is critical: a lookout that cannot save, mail or judge still watches, and shows it.
        for name, problem in checks.items():
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
                self._watch_targets()

    def _watch_targets(self) -> None:
        targets = self.targets
        self.watchdog.watch(targets)
        self.chair.watch([target.name for target in targets])

    @property
    def _unsaved(self) -> str | None:
        """Why something could not be saved."""
        return self.keeper.error or self.chair.error

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
            replica=old.replica,
            zookeeper=old.zookeeper,
            web=old.web,
            log=replace(old.log, level=new.log.level),
        )
        logging.getLogger().setLevel(new.log.level)
        self.history.limit(new.max_results)
        self.chair.limit(new.max_incidents)
        self.keeper.every = new.save_every
        if new.mail != old.mail:
            self.chair.use(new.mail)
        self.syncer.use(new.svn, new.defaults)
        self._watch_targets()
        log.info("configuration read again, watching %d targets", len(self.targets))

    def _states(self) -> list[State]:
        return [self.history.record(target.name).standing.state for target in self.targets]

    def _clashes(self) -> str:
        names = {target.name for target in self._settings.targets}
        return ", ".join(t.name for t in self.syncer.targets if t.name in names)

    def _close_keeper(self) -> None:
        if not self.keeper.close():
            self.failed = f"the last results are not saved: {self.keeper.error}"
        elif self.chair.error is not None:
            self.failed = f"the last incidents are not saved: {self.chair.error}"

    def health(self) -> dict[str, Any]:
        """What the service says about itself."""
        complaints = []
        if self._refused:
            complaints.append(
                f"The configuration was not taken, the one of before stays: {self._refused}"
            )
        if self._unsaved:
            complaints.append(f"The history cannot be saved: {self._unsaved}")
        if self.election.complaint:
            complaints.append(self.election.complaint)
        if faults := count(self.counters.faults):
            complaints.append(f"lookout itself failed in {faults} probes; its log says how")
        complaints += self.syncer.complaints
        if clashes := self._clashes():
            complaints.append(
                f"Not taken from svn, the configuration has targets of these names: {clashes}"
            )
        if postman := self.chair.postman:
            complaints += postman.complaints
        return {
            "service": self._settings.name,
            "version": self._version,
            "uptime": round(time.monotonic() - self._started, 3),
            "complaints": complaints,
            "replica": self._settings.replica,
            "judge": self.election.status(),
            "mail": None
            if self._settings.mail is None
            else {
                "sent": count(self.counters.sent),
                "waiting": self.chair.waiting,
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
        "service.replica": (old.replica, new.replica),
        "zookeeper": (old.zookeeper, new.zookeeper),
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
