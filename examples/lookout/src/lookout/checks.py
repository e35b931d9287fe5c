"""What a value of the configuration must be: each function gives it, typed, or raises ValueError.

`get_value` puts the key and the place before what they complain of; none repeats the value, which
may be a secret.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args
from urllib.parse import urlsplit

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from sepelib.core import config as core_config
from sepelib.util.secrets import Secret
from sepelib.util.smtp import build_message

__all__ = [
    "NAME",
    "Expected",
    "Protocol",
    "Transport",
    "address",
    "arguments",
    "count",
    "directory",
    "expected",
    "file_name",
    "host_and_port",
    "http_status",
    "http_url",
    "level",
    "mongo_database",
    "mongo_uri",
    "name_for",
    "one_or_more",
    "password",
    "port",
    "protocol",
    "replica",
    "seconds",
    "svn_file",
    "svn_url",
    "tags",
    "thrift_method",
    "tls",
    "transport",
    "untrusted",
    "url_to_post_to",
    "user",
    "watchable",
    "xmlrpc_method",
    "zookeeper_hosts",
    "zookeeper_path",
]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

Transport: TypeAlias = Literal["buffered", "framed", "http"]
Protocol: TypeAlias = Literal["binary", "compact"]
Scalar: TypeAlias = str | int | float | bool
Expected: TypeAlias = Scalar | tuple[tuple[str, Scalar], ...]  # these members among others


def seconds(value: object) -> float:
    with suppress(ValueError):  # its text holds the value
        if 0 < (number := core_config.duration(value)) < 1e7:
            return number
    raise ValueError("a time such as 5s, 250ms or 1m30s, more than none")


def count(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("a whole number from 1")
    return value


def port(value: object) -> int:
    if type(value) is not int or not 0 <= value <= 65535:
        raise ValueError("a whole number up to 65535")
    return value


def replica(value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError("a name of letters, digits, dots, dashes and underscores")  # of a file too
    return value


def zookeeper_hosts(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[^\s,/]+(,[^\s,/]+)*(/\S*)?", value):
        raise ValueError("hosts such as zk1:2181,zk2:2181")
    return value


def zookeeper_path(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(/[A-Za-z0-9._-]*[A-Za-z0-9_-])+", value):
        raise ValueError("a path such as /lookout")
    return value


def mongo_uri(value: object) -> Secret[str]:
    """*value* if it is a URI of MongoDB, else ValueError."""
    if isinstance(value, str) and value.startswith(("mongodb://", "mongodb+srv://")):
        # As a plain one: the name server would be asked for the hosts of the other kind.
        with suppress(PyMongoError, ValueError):  # their texts may hold the password
            parse_uri(value.replace("mongodb+srv://", "mongodb://", 1), validate=False)
            return Secret(value)
    raise ValueError(
        "a URI such as mongodb://host1,host2/?replicaSet=rs0, with user and password of URLs"
    )


def mongo_database(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,38}", value):
        raise ValueError("a name of letters, digits, dashes and underscores, 38 at most")
    return value


def http_status(value: object) -> int:
    if type(value) is not int or not 200 <= value <= 599:
        raise ValueError("a whole number from 200 to 599")
    return value


def directory(value: object) -> Path:
    """*value* if programs may be run from there, else ValueError."""
    if not isinstance(value, str) or not os.path.isabs(value):
        raise ValueError("the full path of a directory")
    if reason := untrusted(Path(value)):
        raise ValueError(f"a directory that only root and the user of lookout can change; {reason}")
    return Path(value)


def untrusted(path: Path) -> str | None:
    """Why others could change what is in the directory *path*, None when they cannot.

    Who may write in a directory above may put another one in its place: they count as well, but
    for those where each may move only what is his own, such as /tmp.
    """
    try:
        path = path.resolve(strict=True)
        for folder in (path, *path.parents):
            found = folder.stat()
            if not stat.S_ISDIR(found.st_mode):
                return "not a directory"
            if found.st_uid not in (0, os.geteuid()):
                return f"in the hands of another user ({folder})"
            sticky = folder != path and found.st_mode & stat.S_ISVTX
            if found.st_mode & 0o022 and not sticky:
                return f"writable by others ({folder})"
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return f"not to be found ({getattr(error, 'strerror', None) or 'a circle of links'})"
    return None


def file_name(value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError("the name of a file in probes.exec_dir, without a path")
    return value


def arguments(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(text, str) and "\0" not in text for text in value
    ):
        raise ValueError("a list of texts; numbers in quotes")
    return tuple(value)


def tls(value: object) -> str:
    if value not in ("none", "starttls", "tls"):
        raise ValueError("none, starttls or tls")
    return str(value)


def password(value: object) -> Secret[str]:
    return Secret(str(value))


def address(value: object) -> str:
    """*value* if it is one address of a mail, else ValueError."""
    with suppress(ValueError, TypeError):
        build_message(str(value), (), "", "")
        return str(value)
    raise ValueError("one address, such as ann@example.org or Ann <ann@example.org>")


def level(value: object) -> str:
    if value not in LEVELS:
        raise ValueError(f"one of {', '.join(LEVELS)}")
    return str(value)


def watchable(value: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list with at least one target in it, else there is nothing to watch")
    return value


def tags(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(
        isinstance(tag, str) and NAME.fullmatch(tag) for tag in value
    ):
        raise ValueError("a list of names, such as [db, moscow]")
    return frozenset(value)


def http_url(value: object) -> str:
    """*value* if it is a URL that can be probed, else ValueError."""
    refused = ValueError("a URL that starts with http:// or https:// and names a host")
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        raise refused
    try:
        parts = urlsplit(value)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise refused from None  # its text holds the URL
    if not fits:
        raise refused
    return value


def url_to_post_to(value: object) -> str:
    """*value* if a call can be posted to it, else ValueError."""
    url = http_url(value)
    if "#" in url or not url.isascii():
        raise ValueError("a URL without a #fragment, and percent-encoded where it is not ASCII")
    return url


def host_and_port(value: object) -> str:
    """*value* if it is a host and a port of TCP, else ValueError."""
    refused = ValueError("a host and a port, such as shop.example:9090 or [::1]:9090")
    if not isinstance(value, str) or not re.fullmatch(r"[^\s/?#@,]+:[0-9]+", value):
        raise refused
    try:
        parts = urlsplit(f"//{value}")
        fits = parts.hostname and parts.port
    except ValueError:
        raise refused from None
    if not fits:
        raise refused
    return value


def one_or_more(value: object) -> str | list[Any]:
    if not isinstance(value, str | list) or not value:
        raise ValueError("a text, or a list of at least one")
    return value


def thrift_method(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]{0,99}", value):
        raise ValueError("the name of a method, without its service and arguments")
    return value


def xmlrpc_method(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.:/]{1,100}", value):
        raise ValueError("the name of a method, such as supervisor.getState")
    return value


def transport(value: object) -> Transport:
    for known in get_args(Transport):
        if value == known:
            return cast(Transport, known)
    raise ValueError("buffered, framed or http")


def protocol(value: object) -> Protocol:
    for known in get_args(Protocol):
        if value == known:
            return cast(Protocol, known)
    raise ValueError("binary or compact")


def expected(value: object) -> Expected | None:
    """None for a null: nothing in particular."""
    if value is None or isinstance(value, Scalar):
        return value
    if (
        isinstance(value, Mapping)
        and value
        and all(isinstance(n, str) and isinstance(v, Scalar) for n, v in value.items())
    ):
        return tuple(value.items())
    raise ValueError("a text, a number, true, false, or members with such values")


def user(value: object) -> str:
    if not isinstance(value, str) or not value or ":" in value:
        raise ValueError("a name without a ':'")
    return value


def svn_url(value: object) -> str:
    """*value* if it may be the URL of a directory in a repository, else ValueError."""
    refused = ValueError("a URL with a host, of svn://, svn+ssh://, https:// or http://")
    if not isinstance(value, str) or not value.isprintable():
        raise refused
    try:
        parts = urlsplit(value)
        fits = parts.scheme in ("svn", "svn+ssh", "https", "http") and parts.hostname
    except ValueError:
        raise refused from None  # its text holds the URL
    if not fits:
        raise refused
    if parts.password is not None:
        raise ValueError("without a password; there is svn.password for that")
    return value


def svn_file(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", value):
        raise ValueError("the name of a file, of letters, digits, '.', '_', '-' and '/'")
    return value


def name_for(url: str, taken: Collection[str]) -> str:
    """A name for a target of which only the URL is known: its host, numbered if need be."""
    host = re.sub(r"[^A-Za-z0-9.-]+", "-", urlsplit(url).hostname or "")[:50].strip(".-") or "url"
    names = (host if n == 1 else f"{host}-{n}" for n in itertools.count(1))
    return next(name for name in names if name not in taken)
