"""The command line for operators.

    python -m sepelib.zookeeper locks /app/locks            what is held by whom, how many wait
    python -m sepelib.zookeeper holders /app/locks/nightly  everybody at one lock
    python -m sepelib.zookeeper break /app/locks/nightly --token 0x2a
    python -m sepelib.zookeeper gc /app/locks               what would go; with --delete it goes

Servers: `--hosts` or ZOOKEEPER_HOSTS. Credentials (digest, `user:password`): in ZOOKEEPER_AUTH or a
file, never among the arguments, which every user of the machine can see.

Exit status: 0 done; 1 not done: nobody holds it, no such node, refused by the servers; 2 wrong
arguments, or not confirmed; 3 no contact with the servers; 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from logging import NullHandler, getLogger
from typing import TYPE_CHECKING, Any

from sepelib.zookeeper._cli_commands import break_one, collect, holders, locks
from sepelib.zookeeper._cli_output import Failure, Output, Status, escaped
from sepelib.zookeeper._identity import normal_path

if TYPE_CHECKING:
    from sepelib.zookeeper.client import Client

__all__ = ["main"]

_PROGRAM = "python -m sepelib.zookeeper"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 3650 * 86400.0
_LONGEST_SESSION = 86400.0
"""Seconds; on the wire it is a number of milliseconds with a sign and 31 bits."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what *arguments* say; the exit status, but for argparse's own SystemExit(2)."""
    options = _parser().parse_args(arguments)
    # What the client logs for a daemon is told here in one sentence.
    for name in ("sepelib", "kazoo"):
        getLogger(name).addHandler(NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths may have any letter
    try:
        status = _run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except Failure as failure:
        return _end(failure.status, escaped(failure.sentence, 1000))
    except KeyboardInterrupt:
        _drop_output()
        return _end(Status.INTERRUPTED, "interrupted")
    except BrokenPipeError:  # `| head` has seen enough
        _drop_output()
        return Status.DONE
    except OSError as error:
        _drop_output()
        return _end(Status.REFUSED, f"the output cannot be written: {error}")


def _end(status: Status, sentence: str) -> int:
    if sys.stderr is not None:
        with suppress(OSError):  # nobody can be told
            print(f"{_PROGRAM}: {sentence}", file=sys.stderr, flush=True)
    return status


def _drop_output() -> None:
    """Let the interpreter's end not wait for, nor fail at, what is not written yet."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(options: argparse.Namespace) -> int:
    from kazoo.exceptions import KazooException

    from sepelib.core.exceptions import Error, LogicalError
    from sepelib.util.deadline import DeadlineExceeded
    from sepelib.zookeeper._contender import UNANSWERED

    client = _client(options)
    try:
        with _interruptible():
            client.start(options.timeout)
            status: int = options.run(client, options, Output(options.json))
            return status
    except (DeadlineExceeded, *UNANSWERED) as error:
        raise Failure(Status.UNREACHABLE, str(error)) from error
    except (Error, LogicalError, KazooException) as error:
        raise Failure(Status.REFUSED, str(error) or type(error).__name__) from error
    finally:
        client.stop()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C strike here: by itself it strikes any greenlet, and is printed by the hub."""
    import gevent

    here, loop = gevent.getcurrent(), gevent.get_hub().loop

    def interrupt(*_: object) -> None:
        if gevent.getcurrent() is here:  # it computes, or writes to one who does not read
            raise KeyboardInterrupt
        loop.run_callback_threadsafe(here.throw, KeyboardInterrupt)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield  # it is ignored, or somebody else's
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _client(options: argparse.Namespace) -> Client:
    from sepelib.zookeeper.client import Client

    if not options.hosts:
        raise Failure(Status.USAGE, "which servers? give --hosts or set ZOOKEEPER_HOSTS")
    credentials = _credentials(options.auth_file)
    try:
        return Client(
            options.hosts,
            options.timeout,
            request_timeout=options.timeout,
            auth_data=credentials and [("digest", credentials)],
        )
    except ValueError as error:
        raise Failure(Status.USAGE, f"--hosts {options.hosts}: {error}") from error


def _credentials(file: str | None) -> str | None:
    credentials, source = os.environ.get("ZOOKEEPER_AUTH"), "ZOOKEEPER_AUTH"
    if file is not None:
        source = file
        try:
            with open(file, encoding="utf-8") as stream:
                credentials = stream.read(4096).strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(Status.USAGE, f"--auth-file: {error}") from error
    if credentials and not re.fullmatch("[^:\n]+:[^\n]+", credentials):
        raise Failure(Status.USAGE, f"{source} is to be one line, user:password")
    return credentials or None


def _parser() -> argparse.ArgumentParser:
    assert __doc__
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_common(parser, {"hosts": os.environ.get("ZOOKEEPER_HOSTS"), "timeout": 10.0})
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        _add_common(sub)
        sub.set_defaults(run=run)
        return sub

    sub = command("locks", locks, "What is held below ROOT, by whom, and how many wait.")
    sub.add_argument("roots", metavar="ROOT", nargs="*", type=_root, default=["/"])
    _add_depth(sub)
    sub = command("holders", holders, "Everybody who holds the lock PATH or waits for it.")
    sub.add_argument("path", metavar="PATH", type=_path)
    sub = command("break", break_one, "Take the lock PATH away from the holder with that token.")
    sub.add_argument("path", metavar="PATH", type=_path)
    sub.add_argument("--token", type=_token, required=True, help="as `holders` shows it")
    sub.add_argument("--yes", action="store_true", help="do not ask")
    sub = command(
        "gc",
        collect,
        "What the collector of unused parents would delete below ROOT, or with --delete deletes. "
        "Not where kazoo's own locks are in use: they fail when their parent is gone.",
    )
    sub.add_argument("roots", metavar="ROOT", nargs="+", type=_path)
    do = sub.add_mutually_exclusive_group()
    do.add_argument("--dry-run", action="store_true", help="delete nothing, as without --delete")
    do.add_argument("--delete", action="store_true", help="look, wait for --idle, and delete")
    sub.add_argument(
        "--idle",
        metavar="TIME",
        type=_seconds,
        default=600.0,
        help="for which a parent has to be unused, while this waits: 90, 10m, 2h (10m)",
    )
    sub.add_argument(
        "--max-age",
        metavar="TIME",
        type=_positive,
        help="delete contenders too that are not ephemeral and unchanged for so long",
    )
    sub.add_argument(
        "--matching",
        metavar="REGEX",
        type=_regex,
        default=".*",
        help="to which identifiers --max-age applies (all)",
    )
    sub.add_argument(
        "--rate", metavar="N", type=_number, default=50.0, help="deletes a second (50)"
    )
    _add_depth(sub)
    return parser


def _add_common(parser: argparse.ArgumentParser, defaults: dict[str, Any] | None = None) -> None:
    """Before the command and behind it: there without defaults, which would win."""
    missing = argparse.SUPPRESS
    given: dict[str, Any] = dict.fromkeys(("hosts", "timeout", "auth_file", "json"), missing)
    if defaults is not None:
        given |= {"auth_file": None, "json": False, **defaults}
    parser.add_argument(
        "--hosts", metavar="H:P,...", default=given["hosts"], help="the servers, and a chroot"
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=_session_timeout,
        default=given["timeout"],
        help="of the session and of each request (10)",
    )
    parser.add_argument(
        "--auth-file", metavar="FILE", default=given["auth_file"], help="holds user:password"
    )
    parser.add_argument(
        "--json", action="store_true", default=given["json"], help="one document on stdout"
    )


def _add_depth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--depth", metavar="N", type=int, choices=range(1, 65), default=8, help="levels down (8)"
    )


def _path(text: str) -> str:
    try:
        return normal_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _root(text: str) -> str:
    return "/" if text == "/" else _path(text)


def _token(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no token, such as 0x2a") from None


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    return text


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time, such as 90, 10m, 2h or 7d")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text:.50} is more than {_LONGEST / 86400:.0f} days")
    return seconds


def _number(text: str) -> float:
    """Of deletes a second."""
    match = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text)
    if match is None or float(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return float(text)


def _positive(text: str) -> float:
    seconds = _seconds(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError(f"{text:.50} is not positive")
    return seconds


def _session_timeout(text: str) -> float:
    seconds = _positive(text)
    if seconds > _LONGEST_SESSION:
        raise argparse.ArgumentTypeError(f"{text:.50} is more than a day")
    return seconds
