"""The daemon: take what it needs, run until it is told to stop, give everything back.

lock the state directory ─► load the history ─► open the port ─► watch ─► judge ─► wait
unlock ◄── save the history ◄── drain the server ◄── stop watching ◄── stop judging ◄── a signal

Its share of the targets and the judging end first: other replicas go on with them while this one
still answers. Nothing waits for MongoDB or ZooKeeper: it watches without them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gevent.lock import RLock
from gevent.threadpool import ThreadPool

from lookout import store
from lookout.catalogue import Catalogue
from lookout.chair import Chair
from lookout.cluster import Cluster, OfOne, OfSeveral
from lookout.counters import Counters, count
from lookout.database import Database
from lookout.judge import State
from lookout.models import ALIAS
from lookout.records import Incident
from lookout.results import Exchange, PublishedResults
from lookout.settings import Configuration, Settings, make_server
from lookout.silences import Silences
from lookout.syncer import Syncer
from lookout.targets import Target
from lookout.voices import Voices
from lookout.watchdog import Watchdog
from lookout.web import make_app
from sepelib.core.config import ConfigError
from sepelib.flask.server import Server
from sepelib.metrics import Registry
from sepelib.mongo import mongo_check
from sepelib.util.fs import FileLock, FileLockTimeout

__all__ = ["CannotStart", "Service"]

log = logging.getLogger(__name__)

NAMED = {"configuration": "the configuration", "svn": "svn", "database": "the database"}


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
        path = _state_file(settings.state, exits)
        try:
            self.history = store.load(path, max_results=settings.max_results)
        except (OSError, store.NewerHistory) as error:
            raise CannotStart(f"the history cannot be read: {error}") from error
        try:
            # A full disk is to be heard of now, and not when the first incident is to be kept.
            store.save(path, store.encode(self.history))
        except OSError as error:
            raise CannotStart(f"the history cannot be saved: {error}") from error
        self.database = Database(settings.mongo)
        exits.callback(self.database.close)
        self.cluster: Cluster = (
            OfOne(settings.replica)
            if settings.zookeeper is None
            else OfSeveral(
                settings.zookeeper, settings.replica, quorum=settings.quorum, changed=self._watch
            )
        )
        sharing = self.cluster.sharing
        disk = ThreadPool(1)  # not the hub's, all of whose threads may wait for a name server
        self.keeper = store.Keeper(
            # On the hub the `fsync` would stop every probe.
            lambda: disk.apply(store.save, (path, store.encode(self.history))),
            every=settings.save_every,
        )
        self.voices = Voices(self.history, settings.replica, sharing.sharers)
        self.silences = Silences(self.database)
        self.chair = Chair(
            self.voices,
            self.keeper,
            self.database,
            self.counters,
            replica=settings.replica,
            announce=self._announce,
            mail=settings.mail,
            max_incidents=settings.max_incidents,
            save_every=settings.save_every,
            silenced=self._silenced,
        )
        exits.callback(self._close_keeper)
        self.exchange = (
            None
            if settings.zookeeper is None
            else Exchange(
                self.voices,
                PublishedResults(self.database, settings.replica),
                sharing,
                news=self._judge,
            )
        )
        self.watchdog = Watchdog(self.history, self.keeper, self.counters, heard=self._heard)
        self.syncer = Syncer(settings.state, changed=self._watch)
        self.catalogue = Catalogue(self.database, settings.state, changed=self._watch)
        exits.callback(
            self.counters.ask(
                self._states,
                lambda: self.chair.waiting,
                lambda: self.cluster.is_degraded or self.database.error is not None,
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
        self.catalogue.use(settings.defaults)
        for part in (self.catalogue, self.silences):
            exits.callback(part.stop)
            part.start()
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
            silences=self.silences.valid,
            origins=self.origins,
        )
        server = make_server(
            self._configuration.config,
            app,
            version=self._version,
            metrics=self._registry,
            **self._options,
        )
        checks: dict[str, Callable[[], str | None]] = {
            "history can be saved": lambda: self.keeper.error,
            "incidents can be saved": lambda: self._unsaved_incidents,
            "configuration taken": lambda: self._refused,
            "mail can be sent": lambda: self.chair.postman.error if self.chair.postman else None,
        }
        if self._settings.zookeeper is not None:
            checks["zookeeper"] = lambda: "; ".join(self.cluster.complaints) or None
        # None is critical: a lookout that cannot save, mail or judge still watches, and shows it.
        for name, problem in checks.items():
            server.add_check(name, partial(_check, problem), critical=False, cache=0.0)
        server.add_check("mongo", mongo_check(ALIAS), critical=False)
        return server

    @property
    def targets(self) -> tuple[Target, ...]:
        """Of two with the same name that of the configuration, then that of svn."""
        targets = dict[str, Target]()
        for _, found in self._sources():
            for target in found:
                targets.setdefault(target.name, target)
        return tuple(targets.values())

    def origins(self) -> dict[str, str]:
        """Where each target is from, by its name."""
        origins = dict[str, str]()
        for origin, found in reversed(self._sources()):
            origins |= {target.name: origin for target in found}
        return origins

    def _sources(self) -> list[tuple[str, Sequence[Target]]]:
        return [
            ("configuration", self._settings.targets),
            ("svn", self.syncer.targets),
            ("database", self.catalogue.targets),
        ]

    def _silenced(self, name: str) -> bool | None:
        if not (self.silences.is_known and self.catalogue.is_known):
            return None
        gone = Target(name, "")  # its tags are not known any more
        return self.silences.silenced(next((t for t in self.targets if t.name == name), gone))

    def _watch(self) -> None:
        with self._changing:
            if self._is_open:
                self._watch_targets()

    def _watch_targets(self) -> None:
        targets = self.targets
        names = [target.name for target in targets]
        self.voices.keep(self.cluster.sharing.replicas, names)
        self.watchdog.watch(self.cluster.sharing.mine(targets))
        are_known = self.syncer.is_known and self.catalogue.is_known
        self.chair.watch(names if are_known else None)

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
    def _unsaved_incidents(self) -> str | None:
        """Why they cannot be saved, though the database is there."""
        return None if self.database.error else self.chair.error

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
            mongo=old.mongo,
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
        self.catalogue.use(new.defaults)
        self.cluster.use(new.quorum)
        self._watch_targets()
        log.info("configuration read again, watching %d targets", len(self.targets))

    def _states(self) -> list[State]:
        return [self.voices.state(target) for target in self.targets]

    def _clashes(self) -> list[str]:
        """Sentences about targets that are not taken, for their names are."""
        said = []
        taken = dict[str, str]()
        for origin, found in self._sources():
            for by in dict.fromkeys(taken.values()):
                names = [target.name for target in found if taken.get(target.name) == by]
                if names:
                    said.append(
                        f"Not taken from {NAMED[origin]}, {NAMED[by]} has targets of these names: "
                        f"{', '.join(names)}"
                    )
            taken = {target.name: origin for target in found} | taken
        return said

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
        if self.keeper.error:
            complaints.append(f"The history cannot be saved: {self.keeper.error}")
        if self._unsaved_incidents:
            complaints.append(f"Incidents cannot be saved: {self._unsaved_incidents}")
        if self.database.error is not None:
            complaints.append(
                "MongoDB is away: probing goes on, incidents and mails wait until they can be "
                f"saved: {self.database.error}"
            )
        complaints += self.cluster.complaints
        if self.exchange is not None:
            complaints += self.exchange.complaints
        if faults := count(self.counters.faults):
            complaints.append(f"lookout itself failed in {faults} probes; its log says how")
        complaints += self.syncer.complaints
        complaints += self.catalogue.complaints
        complaints += self.silences.complaints
        complaints += self._clashes()
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
        "mongo": (old.mongo, new.mongo),
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
