"""The commands that look at what replicas share in MongoDB, and change it."""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lookout import checks
from lookout.catalogue import Changes, Conflict, Row, put, read_catalogue, written
from lookout.database import Away, Database, Refused
from lookout.options import add_configuration, configuration
from lookout.settings import MAX_LIST, Settings
from lookout.silences import LONGEST, Silence, end_silence, read_silences, set_silence
from lookout.targets import Target
from sepelib.core.config import ConfigError
from sepelib.util.fs import read_file

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add them, each with `run`, a function that takes the options and gives the exit code."""
    add = _adder(commands)

    importing = add("import", _import, "put the targets of FILE into the database")
    importing.add_argument("file", metavar="FILE", type=Path)
    importing.add_argument("--dry-run", action="store_true", help="only say what would be done")
    importing.add_argument(
        "--prune",
        action="store_true",
        help="remove those that FILE does not have; it has to be of the last export",
    )
    _add_by(importing)

    add("export", _export, "print the targets of the database for `import`, with their passwords")

    silence = add("silence", _silence, "have no mails about targets for a while")
    silence.add_argument("targets", metavar="TARGET", nargs="*", type=_name)
    silence.add_argument(
        "--tag",
        dest="tags",
        metavar="TAG",
        action="append",
        type=_name,
        default=[],
        help="about all targets that have it; may be given more than once",
    )
    silence.add_argument(
        "--for",
        dest="seconds",
        metavar="TIME",
        type=_while,
        required=True,
        help=f"such as 2h or 1d12h, {LONGEST.days} days at most",
    )
    silence.add_argument("--reason", metavar="TEXT", type=_line, required=True)
    _add_by(silence)

    add("silences", _silences, "list the silences that have not ended")

    unsilence = add("unsilence", _unsilence, "end a silence now")
    unsilence.add_argument("id", metavar="ID", help="such as SIL-7")


def _adder(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> Callable[..., argparse.ArgumentParser]:
    def add(
        name: str, run: Callable[[argparse.Namespace], int], said: str
    ) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=said)
        add_configuration(parser)
        parser.set_defaults(run=run)
        return parser

    return add


def _add_by(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by", metavar="NAME", type=_line, default=_user(), help="default: %(default)s"
    )


def _import(options: argparse.Namespace) -> int:
    settings = configuration(options).load()
    try:
        text = read_file(options.file, max_bytes=MAX_LIST)
    except OSError as error:
        raise ConfigError(f"{options.file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="lookout-") as folder:
        wanted = written(text, Path(folder) / "check", str(options.file), settings.defaults)
    with _database(settings) as database:
        try:
            changes = put(database, wanted, by=options.by, prune=options.prune, dry=options.dry_run)
        except Conflict as error:
            print(f"lookout: {options.file}: nothing imported: {error}", file=sys.stderr)
            return 1
    _say_changes(changes)
    for target in settings.targets:
        if target.name in wanted.rows:
            _warn(f"{target.name} is in the configuration, too, which wins")
    done = "nothing was written (--dry-run)" if options.dry_run else "done"
    print(f"{options.file}: {done}")
    return 0


def _say_changes(changes: Changes) -> None:
    for what, names in changes._asdict().items():
        if names:
            print(f"{what:8} {' '.join(names)}")


def _export(options: argparse.Namespace) -> int:
    with _database(configuration(options).load(), changes=False) as database:
        listed = read_catalogue(database)
    print(listed.to_yaml(), end="")
    return 0


def _silence(options: argparse.Namespace) -> int:
    if not options.targets and not options.tags:
        raise ConfigError("silence: give a TARGET, or a --tag")
    settings = configuration(options).load()
    with _database(settings) as database:
        silence = set_silence(
            database,
            targets=options.targets,
            tags=options.tags,
            seconds=options.seconds,
            by=options.by,
            reason=options.reason,
        )
        print(_row(silence))
        listed = read_catalogue(database)
    watched: list[Target | Row] = [*settings.targets, *listed.rows.values()]
    known, tags = {each.name for each in watched}, {tag for each in watched for tag in each.tags}
    elsewhere = ", only svn may have it" if settings.svn else ""
    for name in sorted(silence.targets - known):
        _warn(f"no target is called {name}{elsewhere}")
    for tag in sorted(silence.tags - tags):
        _warn(f"no target has the tag {tag}{elsewhere}")
    return 0


def _silences(options: argparse.Namespace) -> int:
    with _database(configuration(options).load(), changes=False) as database:
        silences = read_silences(database)
    for silence in silences:
        print(_row(silence))
    return 0


def _unsilence(options: argparse.Namespace) -> int:
    with _database(configuration(options).load()) as database:
        if end_silence(database, options.id) is None:
            raise ConfigError(f"there is no silence {options.id}, or it has ended")
    print(f"{options.id} has ended")
    return 0


@contextmanager
def _database(settings: Settings, *, changes: bool = True) -> Iterator[Database]:
    # Its error is the sentence with which the command ends, and not for stderr as well.
    logging.getLogger(Database.__module__).addHandler(logging.NullHandler())
    database = Database(settings.mongo)
    try:
        yield database
    except Refused as error:
        raise Refused(f"MongoDB refuses that: {error}") from error
    except Away as error:
        in_doubt = ", and may have done it" if changes else ""
        raise Away(f"MongoDB does not answer{in_doubt}: {error}") from error
    finally:
        database.close()


def _row(silence: Silence) -> str:
    what = [*sorted(silence.targets), *(f"tag:{tag}" for tag in sorted(silence.tags))]
    left = silence.until.astimezone()
    return (
        f"{silence.id}  {' '.join(what)}  until {left:%Y-%m-%d %H:%M %Z}  "
        f"by {silence.by}: {silence.reason}"
    )


def _warn(text: str) -> None:
    print(f"lookout: {text}", file=sys.stderr)


def _user() -> str:
    """Who is at the keyboard, also behind sudo."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):  # no such user, in a container
        return f"uid {os.getuid()}"


def _name(text: str) -> str:
    if not checks.NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("must be letters, digits, '.', '_' and '-', 63 at most")
    return text


def _while(text: str) -> float:
    try:
        seconds = checks.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {error}") from None
    if seconds > LONGEST.total_seconds():
        raise argparse.ArgumentTypeError(f"must be {LONGEST.days} days at most")
    return seconds


def _line(text: str) -> str:
    line = text.strip()
    if not line or not line.isprintable() or len(line) > 200:
        raise argparse.ArgumentTypeError("must be one line of 1 to 200 characters")
    return line
