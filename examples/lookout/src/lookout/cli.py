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

import yaml

from lookout import settings as _settings
from lookout.demo import DemoTargets
from lookout.probe import probe
from lookout.records import Incident
from lookout.service import CannotStart, PortInUse, Service, listen, stop_signals
from lookout.settings import SHIPPED, Settings, Target, http_url, seconds
from lookout.view import duration
from sepelib.core.config import ConfigError

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
    _add_values(serve)
    serve.set_defaults(run=_serve)

    dev = commands.add_parser("dev", help="a demo: watch three targets that fail on a timetable")
    dev.add_argument(
        "urls", metavar="URL", nargs="*", type=_checked(http_url), help="to be watched as well"
    )
    dev.add_argument(
        "--port", type=_checked(_settings.port, int), help=f"default: {DEV_PORT}, or a free one"
    )
    dev.add_argument("--state", metavar="DIR", type=Path, default=DEV_STATE)
    dev.add_argument(
        "--for",
        dest="seconds",
        metavar="S",
        type=_checked(seconds, float),
        help="stop after S seconds",
    )
    dev.set_defaults(run=_dev)

    check = commands.add_parser("check-config", help="say whether FILE would do for `serve -c`")
    check.add_argument("config", metavar="FILE", type=Path)
    _add_values(check)
    check.set_defaults(run=_check_config)

    once = commands.add_parser("probe", help="probe URL once, now")
    once.add_argument("url", metavar="URL", type=_checked(http_url))
    once.add_argument("--timeout", metavar="S", type=_checked(seconds, float), default=5.0)
    once.set_defaults(run=_probe)
    return parser


def _serve(options: argparse.Namespace) -> int:
    settings = _settings.read(options.config, dict(options.values))
    _start_logging(settings.log_level)
    with stop_signals() as stop, Service(settings, announce=_log_incident) as service:
        log.info("watching %d targets; %s", len(settings.targets), service.url)
        stop.wait()
        log.info("stopping")
    return _ended(service)


def _dev(options: argparse.Namespace) -> int:
    with stop_signals() as stop, DemoTargets() as demo:
        targets = demo.targets
        for url in options.urls:
            name = _settings.name_for(url, [target["name"] for target in targets])
            targets.append({"name": name, "url": url, "interval": 5})
        context = {
            "state": str(options.state.absolute()),
            "port": DEV_PORT if options.port is None else options.port,
            "save_every": 2,
            "log_level": "WARNING",
            "targets": targets,
        }
        settings = _settings.read(SHIPPED, context)
        _start_logging(settings.log_level)
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
            stop.wait(options.seconds)
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
    settings = _settings.read(options.config, dict(options.values))
    _say(f"{options.config}: fine, {_plural(len(settings.targets), 'target')}")
    return 0


def _probe(options: argparse.Namespace) -> int:
    _start_logging("WARNING")
    target = Target(_settings.name_for(options.url, ()), options.url, timeout=options.timeout)
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
        f"  stop     Ctrl-C\n"
        f"\n"
        f"Two of the targets fail on a timetable; the first incident comes within ten seconds."
    )


def _say_incident(incident: Incident) -> None:
    at = (incident.closed_at or incident.opened_at).astimezone()
    _say(f"{at:%H:%M:%S}  {_sentence(incident)}")


def _log_incident(incident: Incident) -> None:
    log.log(logging.ERROR if incident.is_open else logging.INFO, "%s", _sentence(incident))


def _sentence(incident: Incident) -> str:
    if incident.closed_at is None:
        return f"{incident.id} opened: {incident.target}: {incident.cause}"
    lasted = duration(incident.duration(incident.closed_at))
    return f"{incident.id} closed: {incident.target}: {incident.closed_because} after {lasted}"


def _account(service: Service, settings: Settings, elapsed: float) -> str:
    watchdog = service.watchdog
    return (
        f"{elapsed:.0f} s: {_plural(watchdog.probes, 'probe')} of "
        f"{_plural(len(settings.targets), 'target')}, "
        f"{_plural(watchdog.opened, 'incident')} opened, {watchdog.closed} closed"
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


def _start_logging(level: str) -> None:
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # A retried probe is daily life here, and its result says how many tries it took.
    logging.getLogger("sepelib.util.retry").setLevel(logging.ERROR)
    # Its DEBUG quotes paths and queries, tokens included.
    logging.getLogger("urllib3").setLevel(logging.INFO)


def _add_values(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-V",
        dest="values",
        metavar="NAME=VALUE",
        action="append",
        type=_value,
        default=[],
        help="a name for the template of the configuration; the value is read as YAML",
    )


def _value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError("write NAME=VALUE, where NAME is a name of the template")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"the value of {name} is not YAML") from None


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
