"""A real repository for tests and demos, served by the svn of the system.

with Repository() as repository:                    # file://, in a folder of its own
    repository.commit({"trunk/a.yml": b"a: 1\n"})   # somebody else, without a working copy
    with repository.serve("bob", "secret") as server:
        SvnClient(username="bob", password="secret").cat(f"{server.url}/trunk/a.yml")
"""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from sepelib.util.processes import run
from sepelib.util.testing import ServerProcess, missing

__all__ = ["Repository", "SvnServer"]

_PROGRAMS = ("svn", "svnadmin", "svnlook", "svnmucc", "svnserve")
_TIMEOUT = 30.0


class Repository:
    """A new and empty repository, named "repository", below *folder*.

    Without *folder* it is in a temporary one, and `close()`, or the end of a ``with``, removes it.
    Needs Subversion: `sepelib.util.testing.missing` otherwise. All paths are of the repository's
    root, as they are read, without quoting.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        import shutil
        from tempfile import TemporaryDirectory

        if not all(shutil.which(program) for program in _PROGRAMS):
            missing("Subversion", "subversion")
        self._own = TemporaryDirectory(prefix="sepelib-svn-") if folder is None else None
        self.folder = Path(self._own.name if self._own else os.path.abspath(folder or "."))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "repository"
        _run("svnadmin", "create", str(self.path))
        self._drafts = 0

    @property
    def url(self) -> str:
        """file://, of the root."""
        return f"file://{quote(str(self.path))}"

    @property
    def youngest(self) -> int:
        """The newest revision; 0 is the empty repository."""
        return int(_run("svnlook", "youngest", str(self.path)))

    def cat(self, path: str, revision: int | None = None) -> bytes:
        """The bytes that are stored. RuntimeError when there is no such file."""
        options = [] if revision is None else [f"--revision={revision}"]
        return _run("svnlook", "cat", *options, "--", str(self.path), path)

    def paths(self) -> list[str]:
        """All files, and all directories with a '/' at the end."""
        listing = _run("svnlook", "tree", "--full-paths", str(self.path)).decode()
        return sorted(line for line in listing.splitlines() if line != "/")

    def commit(self, files: Mapping[str, bytes | None], message: str = "somebody else") -> int:
        """Commit as somebody else; the new revision. None deletes; directories are made."""
        done = _run(*self._svnmucc(files, message))
        return int(done.split()[0].removeprefix(b"r"))

    def before_next_commit(
        self, files: Mapping[str, bytes | None], message: str = "somebody else, quicker"
    ) -> None:
        """Let somebody else commit once the next commit has begun, and be quicker than it."""
        hook = self.hook("start-commit", "")
        command = shlex.join(self._svnmucc(files, message))
        hook.write_text(f'#!/bin/sh\nrm -f -- "$0"\nexec {command} >/dev/null\n', "utf-8")

    def hook(self, name: str, script: str) -> Path:
        """Install a shell script as the hook *name*; its path. It has no environment."""
        path = self.path / "hooks" / name
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)
        return path

    def serve(self, user: str | None = None, password: str | None = None) -> SvnServer:
        """A server of it on 127.0.0.1, to be started by ``with``.

        For *user* with *password* alone; without them for everybody, who may commit too.
        """
        return SvnServer(self, user, password)

    def close(self) -> None:
        """Remove the repository if its folder was made for it. Idempotent."""
        if self._own is not None:
            self._own.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _svnmucc(self, files: Mapping[str, bytes | None], message: str) -> list[str]:
        there = {path.rstrip("/") for path in self.paths()}
        drafts = self.folder / "drafts"
        drafts.mkdir(exist_ok=True)
        actions: list[str] = []
        for path, data in files.items():
            if data is None:
                actions += ["rm", self._at(path)]
                continue
            for above in reversed(Path(path).parents[:-1]):
                if str(above) not in there:
                    there.add(str(above))
                    actions += ["mkdir", self._at(str(above))]
            self._drafts += 1
            draft = drafts / str(self._drafts)
            draft.write_bytes(data)
            actions += ["put", str(draft), self._at(path)]
        import shutil

        svnmucc = shutil.which("svnmucc")
        assert svnmucc is not None
        return [svnmucc, "--non-interactive", f"--message={message}", "--", *actions]

    def _at(self, path: str) -> str:
        return f"{self.url}/{quote(path)}"


class SvnServer(ServerProcess):
    """`svnserve` for one repository: all of ServerProcess (`pause()`, `kill()`...), and `url`."""

    def __init__(self, repository: Repository, user: str | None, password: str | None) -> None:
        self._repository = repository
        self._user = user
        self._password = password
        super().__init__(self._start, ready=_greets, name="svnserve")

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    @property
    def url(self) -> str:
        """svn://, of the repository's root."""
        return f"svn://127.0.0.1:{self.port}/{self._repository.path.name}"

    def _start(self, server: ServerProcess) -> list[str]:
        access = "anon-access = write" if self._user is None else "anon-access = none"
        settings = f"[general]\n{access}\nauth-access = write\npassword-db = passwd\n"
        settings_folder = self._repository.path / "conf"
        (settings_folder / "svnserve.conf").write_text(settings, "utf-8")
        users = "[users]\n" if self._user is None else f"[users]\n{self._user} = {self._password}\n"
        passwords = settings_folder / "passwd"
        passwords.touch(0o600)
        passwords.write_text(users, "utf-8")
        return [
            *("svnserve", "--daemon", "--foreground", "--listen-host=127.0.0.1"),
            *(f"--listen-port={server.port}", f"--root={self._repository.folder}"),
        ]


def _greets(server: ServerProcess) -> bool:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5.0) as connection:
        return connection.recv(64).startswith(b"( success ")


def _run(*args: str) -> bytes:
    done = run(args, timeout=_TIMEOUT)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode(errors="replace").strip() or f"{args[0]} failed")
    return done.stdout
