"""The daemon: take what it needs, run until it is told to stop, give everything back.

lock the state directory ─► load the history ─► open the port ─► watch ─► judge ─► wait
unlock ◄── save the history ◄── drain the server ◄── stop watching ◄── stop judging ◄── a signal

Its share of the targets and the judging end first: other replicas go on with them while this one
still answers.
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
from lookout.cluster import Cluster, OfOne, OfSeveral
from lookout.counters import Counters, count
from lookout.judge import State
from lookout.ledger import LedgerFile
from lookout.records import Incident
from lookout.results import Exchange, ResultFiles
from lookout.settings import Configuration, Settings, make_server
from lookout.syncer import Syncer
from lookout.targets import Target
from lookout.voices import Voices
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
        # What is this replica's own has its own place among several.
        places = settings.state / "replicas"
        own = settings.state if settings.zookeeper is None else places / settings.replica
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
        self.cluster: Cluster = (
            OfOne(settings.replica)
            if settings.zookeeper is None
            else OfSeveral(
                settings.zookeeper, settings.replica, quorum=settings.quorum, changed=self._watch
            )
        )
        sharing = self.cluster.sharing
        self.keeper = store.Keeper(
            partial(store.encode, self.history), write, every=settings.save_every
        )
        self.voices = Voices(self.history, settings.replica, sharing.sharers)
        self.chair = Chair(
            self.voices,
            self.keeper,
            file,
            self.counters,
            replica=settings.replica,
            announce=self._announce,
            mail=settings.mail,
            max_incidents=settings.max_incidents,
            save_every=settings.save_every,
        )
        exits.callback(self._close_keeper)
        self.exchange = (
            None
            if settings.zookeeper is None
            else Exchange(
                self.voices, ResultFiles(places, settings.replica), sharing, news=self._judge
            )
        )
        self.watchdog = Watchdog(self.history, self.keeper, self.counters, heard=self._heard)
        self.syncer = Syncer(own, changed=self._watch)
        exits.callback(
            self.counters.ask(
                self._states,
                lambda: self.chair.waiting,
                lambda: self.cluster.is_degraded,
                lambda: len(sharing.mine(self.targets)),
                lambda: len(sharing.replicas),
            )
        )
        self.server = self._make_server()
        self.server.start()
        exits.callback(self.server.stop)
        exits.callback(self.watchdog.stop)
        exits.callback(self.syncer.stop)
        self.syncer.use(settings.svn, settings.defaults)
        if self.exchange is not None:
            exits.callback(self.exchange.stop)
            self.exchange.start()
        self._watch_targets()
        exits.callback(self.cluster.stop)
        self.cluster.start(self.chair, {"url": self.url})

    def _make_server(self) -> Server:
        app = make_app(
            lambda: self.targets,
            self.voices,
            self.chair.ledger,
            self.health,
            lambda: self.cluster.show(self.targets),
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
            checks["zookeeper"] = lambda: "; ".join(self.cluster.complaints) or None
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
        names = [target.name for target in targets]
        self.voices.keep(self.cluster.sharing.replicas, names)
        self.watchdog.watch(self.cluster.sharing.mine(targets))
        self.chair.watch(names)

    def _heard(self, target: Target) -> None:
        """There is a new result of ours."""
        self.voices.heard(target.name)
        if self.exchange is not None:
            self.exchange.heard(target)
        self.chair.heard(target)

    def _judge(self, names: set[str]) -> None:
        """There are new results of others."""
        for target in self.targets:
            if target.name in names:
                self.chair.heard(target)

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
        self.cluster.use(new.quorum)
        self._watch_targets()
        log.info("configuration read again, watching %d targets", len(self.targets))

    def _states(self) -> list[State]:
        return [self.voices.state(target) for target in self.targets]

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
        complaints += self.cluster.complaints
        if self.exchange is not None:
            complaints += self.exchange.complaints
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
            "judge": self.cluster.status(),
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
