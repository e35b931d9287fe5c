"""Which server can be started here, and how its program is spoken to.

The order of "auto": mongod, SecantusDB's Rust server, its Python server. SecantusDB is
GPL-2.0-only: it is run as a program and never imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from .errors import MongoNotInstalled

__all__ = ["ENGINES", "Engine", "find_engine"]


class Engine(NamedTuple):
    """A program found on this machine. *ready_port* reads the port out of its ready line."""

    name: str
    program: tuple[str, ...]
    arguments: Callable[[Launch], list[str]]
    ready_port: Callable[[str], int | None]


class Launch(NamedTuple):
    """How one server is started: *port* 0 lets it choose, *config* is an empty file."""

    data: Path
    config: Path
    port: int
    replica_set: bool
    durable: bool


def find_engine(wanted: str = "auto") -> Engine:
    """The engine *wanted*, or the first of all that is there. Raises MongoNotInstalled."""
    tried: list[str] = []
    for name, find in ENGINES.items():
        if wanted in ("auto", name):
            found = find(tried)
            if found is not None:
                return found
    raise MongoNotInstalled(tried)


def _find_mongod(tried: list[str]) -> Engine | None:
    named = os.environ.get("SEPELIB_MONGOD")
    program = shutil.which(named or "mongod")
    if program is None:
        where = f"SEPELIB_MONGOD={named} (no such program)" if named else "mongod (not on PATH)"
        tried.append(where)
        if named:  # whoever names one does not want another one
            raise MongoNotInstalled(tried)
        return None
    return Engine("mongod", (os.path.abspath(program),), _mongod_arguments, _mongod_port)


def _mongod_arguments(launch: Launch) -> list[str]:
    arguments = ["--dbpath", str(launch.data), "--port", str(launch.port)]
    arguments += ["--bind_ip", "127.0.0.1", "--nounixsocket"]
    return [*arguments, "--replSet", "rs0"] if launch.replica_set else arguments


def _mongod_port(line: str) -> int | None:
    if '"id":23016,' not in line:  # "Waiting for connections"
        return None
    try:
        return int(json.loads(line)["attr"]["port"])
    except (ValueError, KeyError, TypeError):  # not the entry itself, or not all of it yet
        return None


def _find_secantus_rs(tried: list[str]) -> Engine | None:
    folder = sysconfig.get_path("scripts")
    for name, arguments in (
        ("secantusd-rs", _secantus_rs_arguments),
        ("secantusd-mdb", _secantus_mdb_arguments),
    ):
        program = shutil.which(name, path=folder) or shutil.which(name)
        if program is not None:
            return Engine("secantus-rs", (os.path.abspath(program),), arguments, _secantus_port)
        tried.append(f"{name} (neither in {folder} nor on PATH)")
    return None


def _find_secantus_py(tried: list[str]) -> Engine | None:
    if importlib.util.find_spec("secantus") is None:  # finds it, and does not import it
        tried.append("python -m secantus (no such module)")
        return None
    # -P: a folder "secantus" in the current one is not it.
    program = (sys.executable, "-P", "-m", "secantus")
    return Engine("secantus-py", program, _secantus_arguments, _secantus_port)


def _secantus_arguments(launch: Launch) -> list[str]:
    # Without --config the settings of whoever works here would leak in; /dev/null is refused.
    arguments = ["--config", str(launch.config), "--host", "127.0.0.1"]
    arguments += ["--port", str(launch.port), "--storage-path", str(launch.data)]
    arguments += ["--cache-size", "256M"]
    if not launch.replica_set:
        arguments.append("--standalone")
    if launch.durable:  # without it even j:true loses acknowledged writes in a crash
        arguments.append("--sync-on-commit")
    return arguments


def _secantus_rs_arguments(launch: Launch) -> list[str]:
    # The default is a write-ahead log of 2 GB for each server.
    return [*_secantus_arguments(launch), "--log-file-max", "16MB"]


def _secantus_mdb_arguments(launch: Launch) -> list[str]:
    # The name of the program in later wheels; no more options of it are known.
    arguments = ["--port", str(launch.port), "--storage-path", str(launch.data)]
    if not launch.replica_set:
        arguments.append("--standalone")
    return [*arguments, "--sync-on-commit"] if launch.durable else arguments


def _secantus_port(line: str) -> int | None:
    found = re.search(r"secantus\S* listening on 127\.0\.0\.1:(\d+)\s*$", line)
    return int(found[1]) if found else None


ENGINES: Mapping[str, Callable[[list[str]], Engine | None]] = {
    "mongod": _find_mongod,
    "secantus-rs": _find_secantus_rs,
    "secantus-py": _find_secantus_py,
}
