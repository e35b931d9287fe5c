"""The command line: `serve`, `dev`, `check-config`, `probe`.

Exit codes: 0 well, 1 cannot start or ended badly (for `probe`: the target is not fine), 2 wrong
arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gevent

from lookout import checks
from lookout.checks import http_url, seconds
from lookout.counters import count, measured
from lookout.demo import DemoTargets
from lookout.logs import start_logging
from lookout.mail import sentence
from lookout.probe import probe
from lookout.records import Incident
from lookout.service import CannotStart, Service
from lookout.settings import SHIPPED, Configuration, LogSettings, Settings
from lookout.targets import Target, target_at
from sepelib.core.config import ConfigError, parse_context
from sepelib.flask.server import CannotListen, reopen_logs
from sepelib.gevent import GreenThread, GreenThreads, run_service
from sepelib.util.testing import SmtpServer

__all__ = ["main"]

DEV_PORT = 8080
DEV_STATE = Path(".lookout")
PATIENCE = 3600.0  # seconds; each part ends in its own time, the drain in what `web` says

log = logging.getLogger("lookout")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit code. Every foreseen trouble is one line on stderr."""
    options = _parser().parse_args(arguments)
    return _reported(lambda: int(options.run(options)))


def _reported(run: Callable[[], int]) -> int:
    try:
        return run()
    except (ConfigError, CannotStart, CannotListen) as error:
        print(f"lookout: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lookout", description="An uptime watchdog.")
    parser.add_argument("--version", action="version", version=f"lookout {version('lookout')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="watch what the configuration says")
    serve.add_argument("-c", "--config", metavar="FILE", type=Path, required=True)
    _add_layers(serve)
    serve.set_defaults(run=_serve)

    dev = commands.add_parser("dev", help="a demo: watch targets that fail on a timetable")
    dev.add_argument(
        "urls", metavar="URL", nargs="*", type=_checked(http_url), help="to be watched as well"
    )
    dev.add_argument(
        "--port", type=_checked(checks.port, int), help=f"default: {DEV_PORT}, or a free one"
    )
    dev.add_argument("--state", metavar="DIR", type=Path, default=DEV_STATE)
    dev.add_argument(
        "--for",
        dest="seconds",
        metavar="TIME",
        type=_checked(seconds),
        help="stop after TIME, such as 20 or 1m30s",
    )
    dev.set_defaults(run=_dev)

    check = commands.add_parser("check-config", help="say whether FILE would do for `serve -c`")
    check.add_argument("config", metavar="FILE", type=Path)
    _add_layers(check)
    check.set_defaults(run=_check_config)

    once = commands.add_parser("probe", help="probe URL once, now")
    once.add_argument("target", metavar="URL", type=_checked(target_at))
    once.add_argument("--timeout", metavar="TIME", type=_checked(seconds), default=5.0)
    once.set_defaults(run=_probe)
    return parser


def _serve(options: argparse.Namespace) -> int:
    configuration = _configuration(options)
    settings = configuration.load()
    _start_logging(settings, configuration)
    with measured(settings.name) as registry:
        service = Service(settings, configuration, registry, announce=_log_incident)

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


def _wait_for_the_end(seconds: float | None = None) -> None:
    thread = GreenThread.current()
    assert thread is not None  # the one of `_run`
    if seconds is not None:
        thread.wait(seconds)
        return
    while not thread.wait(3600.0):
        pass


def _configuration(options: argparse.Namespace) -> Configuration:
    return Configuration(
        options.config,
        overlays=options.overlays,
        context=dict(options.values),
        overrides=dict(options.overrides),
    )


def _dev(options: argparse.Namespace) -> int:
    return _run(lambda: _demo(options))


def _demo(options: argparse.Namespace) -> int:
    with contextlib.ExitStack() as exits:
        demo, mailbox = exits.enter_context(DemoTargets()), exits.enter_context(SmtpServer())
        targets = demo.targets
        for url in options.urls:
            name = checks.name_for(url, [target["name"] for target in targets])
            targets.append({"name": name, "url": url, "interval": 5})
        context = {
            "state": str(options.state.absolute()),
            "port": DEV_PORT if options.port is None else options.port,
            "drain_delay": 0,
            "save_every": 2,
            "log_level": "WARNING",
            "targets": targets,
            "mail_port": mailbox.port,
            "recipients": ["you@demo.example"],
        }
        configuration = Configuration(SHIPPED, context=context)
        settings = configuration.load()
        _start_logging(settings, configuration)
        registry = exits.enter_context(measured(settings.name))
        service = Service(settings, configuration, registry, announce=_say_incident)
        started = time.monotonic()
        try:
            exits.enter_context(service)
        except CannotListen as error:
            if options.port is not None or not _is_in_use(error):
                raise
            service = Service(settings, configuration, registry, announce=_say_incident, port=0)
            exits.enter_context(service)
            print(
                f"lookout: port {DEV_PORT} is in use, port {service.server.port} will do",
                file=sys.stderr,
            )
        _say_welcome(service.url, settings)
        _wait_for_the_end(options.seconds)
        _say(f"\n{_account(service, settings, time.monotonic() - started)}")
    if not service.counters.probes:
        print("lookout: nothing was probed", file=sys.stderr)
        return 1
    return _ended(service)


def _is_in_use(error: CannotListen) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE


def _ended(service: Service) -> int:
    if service.failed is None:
        return 0
    print(f"lookout: {service.failed}", file=sys.stderr)
    return 1


def _check_config(options: argparse.Namespace) -> int:
    settings = _configuration(options).load()
    _say(f"{options.config}: fine, {_plural(len(settings.targets), 'target')}")
    return 0


def _probe(options: argparse.Namespace) -> int:
    start_logging(LogSettings("WARNING"))
    target: Target = replace(options.target, timeout=options.timeout)
    result = probe(target)
    tries = "" if result.tries == 1 else f", {result.tries} tries"
    _say(f"{target.shown_url}: {result.error or 'fine'} ({result.latency * 1000:.0f} ms{tries})")
    return 0 if result.ok else 1


def _say_welcome(url: str, settings: Settings) -> None:
    names = ", ".join(target.name for target in settings.targets)
    _say(
        f"lookout watches {len(settings.targets)} targets: {names}\n"
        f"\n"
        f"  page     {url}\n"
        f"  JSON     curl {url}api/v1/status\n"
        f"  metrics  {url}metrics\n"
        f"  health   curl '{url}ping?verbose=1'\n"
        f"  history  {settings.state} (survives restarts)\n"
        f"  mail     goes to a mail server of the demo, which keeps it to itself\n"
        f"  stop     Ctrl-C\n"
        f"\n"
        f"Three of the targets fail on a timetable; the first incident comes within ten seconds."
    )


def _say_incident(incident: Incident) -> None:
    at = (incident.closed_at or incident.opened_at).astimezone()
    _say(f"{at:%H:%M:%S}  {sentence(incident)}")


def _log_incident(incident: Incident) -> None:
    log.log(logging.ERROR if incident.is_open else logging.INFO, "%s", sentence(incident))


def _account(service: Service, settings: Settings, elapsed: float) -> str:
    counters = service.counters
    return (
        f"{elapsed:.0f} s: {_plural(counters.probes, 'probe')} of "
        f"{_plural(len(settings.targets), 'target')}, "
        f"{_plural(count(counters.opened), 'incident')} opened, {count(counters.closed)} closed, "
        f"{_plural(count(counters.sent), 'mail')} sent"
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


def _add_layers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overlay",
        dest="overlays",
        metavar="FILE",
        action="append",
        type=Path,
        default=[],
        help="what differs from the configuration; may be given more than once",
    )
    parser.add_argument(
        "-V",
        dest="values",
        metavar="NAME=VALUE",
        action="append",
        type=_pair,
        default=[],
        help="a name for the template of the configuration; the value is read as YAML",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        type=_pair,
        default=[],
        help="another value for a key of the configuration, such as web.port=80",
    )


def _pair(text: str) -> tuple[str, Any]:
    try:
        ((name, value),) = parse_context([text]).items()
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name, value


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
