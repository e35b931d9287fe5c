"""The command line: `serve`, `dev`, `check-config`, `probe`.

Exit codes: 0 well, 1 cannot start or ended badly (for `probe`: the target is not fine), 2 wrong
arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gevent

from lookout import checks
from lookout.checks import http_url, seconds
from lookout.demo import DemoTargets
from lookout.mail import sentence
from lookout.probe import probe
from lookout.records import Incident
from lookout.service import CannotStart, PortInUse, Service, listen, signals
from lookout.settings import SHIPPED, Configuration, Settings, Target
from sepelib.core.config import ConfigError, RedactingFilter, parse_context
from sepelib.util.testing import SmtpServer

__all__ = ["main"]

DEV_PORT = 8080
DEV_STATE = Path(".lookout")

log = logging.getLogger("lookout")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit code. Every foreseen trouble is one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ConfigError, CannotStart) as error:
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

    dev = commands.add_parser("dev", help="a demo: watch three targets that fail on a timetable")
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
    once.add_argument("url", metavar="URL", type=_checked(http_url))
    once.add_argument("--timeout", metavar="TIME", type=_checked(seconds), default=5.0)
    once.set_defaults(run=_probe)
    return parser


def _serve(options: argparse.Namespace) -> int:
    with signals(reload=True) as asked:
        configuration = _configuration(options)
        settings = configuration.load()
        _start_logging(settings.log_level, configuration)
        with Service(settings, announce=_log_incident) as service:
            log.info("watching %d targets; %s", len(service.targets), service.url)
            while not asked.stop.is_set():
                if asked.reload.is_set():
                    asked.reload.clear()  # before it: the next signal may come during it
                    service.reload(configuration.reload)
                gevent.wait(asked, count=1)
            log.info("stopping")
    return _ended(service)


def _configuration(options: argparse.Namespace) -> Configuration:
    return Configuration(
        options.config,
        overlays=options.overlays,
        context=dict(options.values),
        overrides=dict(options.overrides),
    )


def _dev(options: argparse.Namespace) -> int:
    with signals() as asked, DemoTargets() as demo, SmtpServer() as mailbox:
        targets = demo.targets
        for url in options.urls:
            name = checks.name_for(url, [target["name"] for target in targets])
            targets.append({"name": name, "url": url, "interval": 5})
        context = {
            "state": str(options.state.absolute()),
            "port": DEV_PORT if options.port is None else options.port,
            "save_every": 2,
            "log_level": "WARNING",
            "targets": targets,
            "mail_port": mailbox.port,
            "recipients": ["you@demo.example"],
        }
        configuration = Configuration(SHIPPED, context=context)
        settings = configuration.load()
        _start_logging(settings.log_level, configuration)
        try:
            listener = listen(settings.host, settings.port)
        except PortInUse:
            if options.port is not None:
                raise
            listener = listen(settings.host, 0)
            port = listener.getsockname()[1]
            print(f"lookout: port {DEV_PORT} is in use, port {port} will do", file=sys.stderr)
        started = time.monotonic()
        with Service(settings, announce=_say_incident, listener=listener) as service:
            _say_welcome(service.url, settings)
            asked.stop.wait(options.seconds)
            _say(f"\n{_account(service, settings, time.monotonic() - started)}")
        if not service.watchdog.probes:
            print("lookout: nothing was probed", file=sys.stderr)
            return 1
    return _ended(service)


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
    _start_logging("WARNING")
    target = Target(checks.name_for(options.url, ()), options.url, timeout=options.timeout)
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
        f"  history  {settings.state} (survives restarts)\n"
        f"  mail     goes to a mail server of the demo, which keeps it to itself\n"
        f"  stop     Ctrl-C\n"
        f"\n"
        f"Two of the targets fail on a timetable; the first incident comes within ten seconds."
    )


def _say_incident(incident: Incident) -> None:
    at = (incident.closed_at or incident.opened_at).astimezone()
    _say(f"{at:%H:%M:%S}  {sentence(incident)}")


def _log_incident(incident: Incident) -> None:
    log.log(logging.ERROR if incident.is_open else logging.INFO, "%s", sentence(incident))


def _account(service: Service, settings: Settings, elapsed: float) -> str:
    watchdog = service.watchdog
    return (
        f"{elapsed:.0f} s: {_plural(watchdog.probes, 'probe')} of "
        f"{_plural(len(settings.targets), 'target')}, "
        f"{_plural(watchdog.opened, 'incident')} opened, {watchdog.closed} closed, "
        f"{_plural(service.postman.sent, 'mail')} sent"
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


def _start_logging(level: str, configuration: Configuration | None = None) -> None:
    handler = logging.StreamHandler()
    if configuration is not None:
        handler.addFilter(RedactingFilter(configuration.config))
    logging.basicConfig(
        level=level,
        handlers=[handler],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # A retried probe is daily life here, and its result says how many tries it took.
    logging.getLogger("sepelib.util.retry").setLevel(logging.ERROR)
    # Its DEBUG quotes paths and queries, tokens included.
    logging.getLogger("urllib3").setLevel(logging.INFO)


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
