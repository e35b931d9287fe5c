"""What `lookout dev` runs: equal replicas as child processes, which share one database.

lookout dev ──┬── ZooKeeper ◄──── who judges? ────┬── r1 ──┬── probes ──► the targets
  (parent)    ├── targets, mail server            ├── r2   └── mails, if it judges
              └── reads incidents ◄── MongoDB ◄──writes── the judge

Each is a `lookout serve` as on a host of its own. All end with the parent, after `kill -9` too.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

import gevent

from lookout.database import Away
from lookout.ledger import Ledger, LedgerStore
from lookout.records import Incident
from lookout.service import CannotStart
from lookout.settings import SHIPPED, MongoSettings
from sepelib.util.testing import ServerNotReady, ServerProcess, SupervisorLost

__all__ = ["News", "Replica", "Replicas"]

START_TIMEOUT = 60.0
ASK_TIMEOUT = 5.0
PROBES = re.compile(r"^lookout_probes_total\{.*\} (\d+)", re.MULTILINE)


class Replica:
    """One of them, with a state directory of its own.

    values: fill in the template of the shipped configuration. mongo: is told by the environment,
    which none but the user of the process can read.
    """

    def __init__(self, name: str, values: Mapping[str, object], mongo: MongoSettings) -> None:
        self.name = name
        own = {**values, "replica": name, "state": f"{values['state']}/{name}"}
        place = {
            "LOOKOUT_MONGO__URI": mongo.uri.reveal(),
            "LOOKOUT_MONGO__DATABASE": mongo.database,
        }
        self.process = ServerProcess(
            lambda process: _serve({**own, "port": process.port}),
            ready=lambda _: self.get("ping") == "pong",
            name=name,
            env={**os.environ, **place},
            start_timeout=START_TIMEOUT,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.process.port}/"

    def get(self, path: str) -> str:
        """The answer to GET. OSError when there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.process.port, timeout=ASK_TIMEOUT)
        try:
            connection.request("GET", f"/{path}")
            return connection.getresponse().read().decode()
        except http.client.HTTPException as error:
            raise OSError(f"{self.url}{path}: {error!r}") from error
        finally:
            connection.close()

    def probes(self) -> int:
        """How many it has made since its start; 0 when it does not answer."""
        try:
            return sum(map(int, PROBES.findall(self.get("metrics"))))
        except OSError:
            return 0

    def start(self) -> str | None:
        """Start and wait until it serves; why it does not, None when it does."""
        try:
            self.process.start()
        except ServerNotReady as error:
            return f"{self.name} cannot start: {self.last_words() or error}"
        return None

    def stop(self) -> str | None:
        """SIGTERM, and wait; None when all was well, else how it has ended."""
        try:
            status = self.process.stop()
        except SupervisorLost as error:  # whoever ends all processes at once ends that one, too
            return str(error)
        return (
            f"{self.name} has ended with status {status}: {self.last_words()}" if status else None
        )

    def last_words(self) -> str:
        return self.process.log_tail(1).removeprefix("lookout: ")


class Replicas:
    """*number* of them, started and stopped side by side; to be used in a `with` block."""

    def __init__(self, number: int, values: Mapping[str, object], mongo: MongoSettings) -> None:
        self.all = [Replica(f"r{n}", values, mongo) for n in range(1, number + 1)]

    def __iter__(self) -> Iterator[Replica]:
        return iter(self.all)

    def __enter__(self) -> Self:
        try:
            if troubles := self._side_by_side(Replica.start):
                raise CannotStart(troubles[0])
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def revive(self) -> Iterator[str]:
        """Start again those that have ended; before that a sentence. Raises CannotStart."""
        for replica in self.all:
            if not replica.process.running:
                status = replica.process.returncode
                yield f"{replica.name} has ended with status {status}, starting it again"
                if trouble := replica.start():
                    raise CannotStart(trouble)

    def probes(self) -> int:
        return sum(replica.probes() for replica in self.all)

    def stop(self) -> list[str]:
        """End all; what went wrong with that."""
        return self._side_by_side(Replica.stop)

    def _close(self) -> None:
        self._side_by_side(lambda replica: replica.process.close())

    def _side_by_side(self, do: Callable[[Replica], str | None]) -> list[str]:
        """What they say, but for None."""
        greenlets = [gevent.spawn(do, replica) for replica in self.all]
        gevent.joinall(greenlets)
        return [said for greenlet in greenlets if (said := greenlet.get())]


class News:
    """What the ledger in the database tells that it did not tell before."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._epoch = Ledger().epoch
        self._known: dict[str, Incident] = {}
        self.opened = self.closed = 0

    def look(self) -> list[str | Incident]:
        """A sentence for a new judge, an Incident for each that has opened or closed."""
        try:
            ledger = self._store.read()
        except Away:  # the replicas complain of it
            return []
        news = list[str | Incident]()
        if ledger.epoch != self._epoch:
            news.append(f"{ledger.judge} judges")
            self._epoch = ledger.epoch
        for incident in ledger.incidents:
            known = self._known.get(incident.id)
            if known is None:
                news.append(replace(incident, closed_at=None, closed_because=None))
                self.opened += 1
            if not incident.is_open and (known is None or known.is_open):
                news.append(incident)
                self.closed += 1
            self._known[incident.id] = incident
        return news


def _serve(values: Mapping[str, object]) -> list[str]:
    options = [f"-V{name}={json.dumps(value)}" for name, value in values.items()]
    return [sys.executable, "-m", "lookout", "serve", "-c", str(SHIPPED), *options]
