"""Read and commit single files of a Subversion repository, without a working copy.

    client = SvnClient(username="robot", password=secret)
    targets = SvnFile("svn://svn.example.org/ops/trunk/targets.yml", client)
    text = targets.read()
    targets.write(text + b"- new\n", "one more")      # OutOfDate if somebody was quicker

Runs the `svn` and `svnmucc` of the system (1.10 or later; Debian: subversion), one process for a
read, two for a commit. Nothing is kept between calls: no connection, no cache, no password.

URLs: percent-encoded, or as they are read with spaces and letters outside ASCII; '@' is a letter
like others, '%' is written as %25. For names from elsewhere there is `sepelib.util.url.expand`.
Revisions: a number or "HEAD".
Units: seconds on a monotonic clock, bytes, aware UTC.
Errors: SvnError and its kinds, by svn's own codes; ValueError for what is refused before svn runs.
Nothing is tried twice: after SvnTimeout or NetworkError a commit may have been made or not.
Sharing: a client never changes, any thread or greenlet may use it; a SvnFile is of one at a time.
Waiting is that of `sepelib.util.processes.run`, cooperative once gevent has patched `select`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from sepelib.util.processes import Runner
from sepelib.util.secrets import Secret
from sepelib.vcs import _answers, _commit
from sepelib.vcs._answers import ChangedPath, Entry, Info, Kind, LogEntry
from sepelib.vcs._command import Commands, Limits
from sepelib.vcs._commit import Action, Copy, Delete, Mkdir, Move, Put, Question
from sepelib.vcs._errors import (
    AlreadyExists,
    AnswerTooLarge,
    AuthFailed,
    NetworkError,
    NotFound,
    OutOfDate,
    SvnError,
    SvnNotInstalled,
    SvnTimeout,
    codes_in,
    failure,
    one_line,
)
from sepelib.vcs._url import canonical, target

if TYPE_CHECKING:
    import logging

__all__ = [
    "Action",
    "AlreadyExists",
    "AnswerTooLarge",
    "AuthFailed",
    "ChangedPath",
    "Copy",
    "Delete",
    "Entry",
    "Info",
    "Kind",
    "LogEntry",
    "Mkdir",
    "Move",
    "NetworkError",
    "NotFound",
    "OutOfDate",
    "Put",
    "Revision",
    "SvnClient",
    "SvnError",
    "SvnFile",
    "SvnNotInstalled",
    "SvnTimeout",
]

Revision: TypeAlias = int | Literal["HEAD"]

_TRUSTED = ("unknown-ca", "cn-mismatch", "expired", "not-yet-valid", "other")
_LONGEST_MESSAGE = 4096  # bytes
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_COMMITTED = re.compile(rb"^r(\d+) committed.*$", re.MULTILINE)
# Some targets of several are not there: the answer holds the others.
_SOME_MISSING = {"200009", "170000", "160013"}


class SvnClient:
    """Reads and commits files by their URLs.

    *timeout*: seconds for one method, cut by the current deadline; a svn that hangs in the network
    takes no notice of SIGTERM, and is killed a second later. *max_output*: bytes of one
    answer. *config_dir*: a folder with svn's settings; None is none at all, neither ~/.subversion
    nor its stored passwords. *trust_server_cert*: which failures of a TLS certificate are accepted,
    of "unknown-ca", "cn-mismatch", "expired", "not-yet-valid", "other". *schemes*: of the URLs it
    takes; "file" must be written, since it reads what the process may read. *runner* runs the
    programs; None is `sepelib.util.processes.run`.
    """

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | Secret[str] | None = None,
        svn: str = "svn",
        svnmucc: str = "svnmucc",
        timeout: float = 60.0,
        config_dir: str | os.PathLike[str] | None = None,
        trust_server_cert: Sequence[str] = (),
        max_output: int = 64 << 20,
        schemes: Sequence[str] = ("https", "http", "svn", "svn+ssh"),
        runner: Runner | None = None,
    ) -> None:
        if password is not None and username is None:
            raise ValueError("a password without username=")
        secret = None if password is None else Secret(password)
        for text in (username or "", secret.reveal() if secret else ""):
            if re.search(r"[\x00-\x1f\x7f]", text):
                raise ValueError("a control character in username= or password=")
        if isinstance(trust_server_cert, str) or not set(trust_server_cert) <= set(_TRUSTED):
            raise ValueError(f"trust_server_cert= is a list of some of {_TRUSTED}")
        if not 0 <= timeout < float("inf"):
            raise ValueError(f"timeout= is a finite number of seconds, not {timeout!r}")
        self._timeout = timeout
        self._schemes = tuple(schemes)
        self._commands = Commands(
            username=username,
            password=secret,
            svn=svn,
            svnmucc=svnmucc,
            config_dir=config_dir,
            trust_server_cert=trust_server_cert,
            max_output=max_output,
            runner=runner,
        )

    # Read. `peg` is the revision in which the URL names the thing: with another `revision` its
    # history is followed through moves, as svn does.

    def cat(self, url: str, revision: Revision = "HEAD", peg: Revision | None = None) -> bytes:
        """The content of a file; keywords are not expanded, svn:eol-style is applied."""
        options = ["--ignore-keywords", f"--revision={_revision(revision)}"]
        return self._read("cat", url, options, peg)

    def info(self, url: str, revision: Revision = "HEAD", peg: Revision | None = None) -> Info:
        """What is at *url*. Raises NotFound when nothing is."""
        what = self._what("info", url)
        xml = self._read("info", url, ["--xml", f"--revision={_revision(revision)}"], peg)
        found = _answers.infos(what, xml)
        if len(found) != 1:
            raise SvnError(f"{what}: its answer has {len(found)} entries")
        return found[0]

    def exists(self, url: str, revision: Revision = "HEAD", peg: Revision | None = None) -> bool:
        """Whether something is at *url*. A repository that cannot be reached is NetworkError."""
        try:
            self.info(url, revision, peg)
        except NotFound:
            return False
        return True

    def list(
        self,
        url: str,
        depth: Literal["immediates", "infinity"] = "immediates",
        revision: Revision = "HEAD",
        peg: Revision | None = None,
    ) -> Iterator[Entry]:
        """What is in a directory, or all below it; of a file, the file. Asked before it returns."""
        if depth not in ("immediates", "infinity"):
            raise ValueError(f"depth is immediates or infinity, not {depth!r}")
        options = ["--xml", f"--depth={depth}", f"--revision={_revision(revision)}"]
        xml = self._read("list", url, options, peg)
        return iter(_answers.entries(self._what("list", url), xml))

    def log(
        self,
        url: str,
        *,
        start: Revision = "HEAD",
        end: Revision = 1,
        limit: int | None = None,
        paths: bool = False,
        peg: Revision | None = None,
    ) -> Iterator[LogEntry]:
        """The commits that changed what is at *url* or below. Asked before it returns.

        All of them by default, the newest first, from *peg* on if it is given.
        """
        options = ["--xml"] + ["--verbose"] * paths
        # The default is svn's own too, which knows of repositories without a revision 1.
        if (start, end) != ("HEAD", 1):
            options.append(f"--revision={_revision(start)}:{_revision(end)}")
        if limit is not None:
            if limit < 1:
                raise ValueError(f"limit is at least 1, not {limit}")
            options.append(f"--limit={limit}")
        xml = self._read("log", url, options, peg)
        return iter(_answers.log_entries(self._what("log", url), xml))

    def diff(self, url: str, old: Revision, new: Revision, peg: Revision | None = None) -> bytes:
        """A unified diff, in the encodings of the files; b"" when nothing has changed."""
        revisions = f"--revision={_revision(old)}:{_revision(new)}"
        return self._read("diff", url, ["--internal-diff", revisions], peg)

    def export(
        self,
        url: str,
        path: str | os.PathLike[str],
        revision: Revision = "HEAD",
        peg: Revision | None = None,
    ) -> None:
        """Write a file or a tree to *path*, where nothing may be: all of it or nothing.

        Keywords and svn:eol-style are applied, externals are left out, a symbolic link stays one.
        FileExistsError when something is there. Needs as much room as the tree has: *max_output*
        does not bound it.
        """
        from tempfile import TemporaryDirectory

        path = os.path.abspath(path)
        if os.path.lexists(path):
            raise FileExistsError(f"{path}: exists, export makes it")
        # Relative to a folder of its own: svn would read an '@' in the path.
        with TemporaryDirectory(prefix=".svn-export-", dir=os.path.dirname(path)) as folder:
            options = ["--quiet", "--ignore-externals", f"--revision={_revision(revision)}"]
            self._read("export", url, options, peg, "exported", cwd=folder)
            os.rename(os.path.join(folder, "exported"), path)

    # Commit. Each is one revision, and its number is returned.

    def put(self, url: str, data: bytes, message: str, *, base_revision: int | None) -> int:
        """Write a file which was read in *base_revision*; None creates it.

        Raises OutOfDate when it was changed or deleted since, replaced by an older copy of itself,
        or created in this very moment; AlreadyExists when it was to be created and is there;
        NotFound when it was not there in *base_revision*, or its directory is not there now.
        """
        return self.commit([Put(url, data, base_revision)], message)

    def delete(self, url: str, message: str, *, base_revision: int | None = None) -> int:
        """Delete a file or a whole directory; with a *base_revision* only if unchanged since."""
        return self.commit([Delete(url, base_revision)], message)

    def mkdir(self, url: str, message: str) -> int:
        """Make a directory in one that is there. AlreadyExists when something is at *url*."""
        return self.commit([Mkdir(url)], message)

    def copy(self, source: str, url: str, message: str, *, revision: int | None = None) -> int:
        """Copy *source*, as of *revision* or as it is now, to *url*, where nothing may be."""
        return self.commit([Copy(source, url, revision)], message)

    def move(self, source: str, url: str, message: str, *, base_revision: int | None = None) -> int:
        """Move *source* to *url*, where nothing may be."""
        return self.commit([Move(source, url, base_revision)], message)

    def commit(self, actions: Sequence[Action], message: str) -> int:
        """Make all *actions* in one revision, or none of them.

        Each is compared as `put` and the others say, with a base revision of its own. A URL stands
        there once, and nothing below it but what a Mkdir before has made room for. *message* is
        required; control characters are taken out, and it is cut to 4096 bytes.

        Raises OutOfDate also when somebody commits to these URLs meanwhile.
        """
        text = _message(message)
        actions = [self._canonical(action) for action in actions]
        _commit.check_shape(actions)
        limits = Limits.of(self._timeout)
        what = f"svnmucc {actions[0].url}"
        if len(actions) > 1:
            what += f" and {len(actions) - 1} more"
        against = _commit.compare(actions, self._ask(limits, what, _commit.questions(actions)))
        return self._send(limits, what, actions, text, against)

    # Inside.

    def _read(
        self,
        command: str,
        url: str,
        options: Sequence[str],
        peg: Revision | None,
        *targets: str,
        cwd: str | None = None,
    ) -> bytes:
        url = self._url(url)
        at = target(url, None if peg is None else _revision(peg))
        what = self._what(command, url)
        limits = Limits.of(self._timeout)
        done = self._commands.svn(limits, what, command, options, [at, *targets], cwd=cwd)
        if done.returncode != 0:
            raise failure(what, done.stderr.decode(errors="replace"))
        return done.stdout

    def _ask(
        self, limits: Limits, what: str, questions: Sequence[Question]
    ) -> dict[Question, Info]:
        targets = [target(question.url, question.revision) for question in questions]
        done = self._commands.svn(limits, what, "info", ["--xml"], targets)
        stderr = done.stderr.decode(errors="replace")
        codes = codes_in(stderr)
        if done.returncode != 0 and not (codes and codes <= _SOME_MISSING):
            raise failure(what, stderr)
        return _commit.match(what, questions, _answers.infos(what, done.stdout))

    def _send(
        self, limits: Limits, what: str, actions: Sequence[Action], message: bytes, against: int
    ) -> int:
        from tempfile import TemporaryDirectory

        # In files, since stdin has the password. Relative names: they hold no '@' and no "-".
        with TemporaryDirectory(prefix="sepelib-svn-") as folder:
            files = {str(n): a.data for n, a in enumerate(actions) if isinstance(a, Put)}
            for name, data in {"message": message, **files}.items():
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(data)
            options = ["--file=message", f"--revision={against}"]
            arguments = _commit.arguments(actions, against)
            done = self._commands.svnmucc(limits, what, options, arguments, folder)
        stderr = done.stderr.decode(errors="replace")
        if committed := _COMMITTED.search(done.stdout):
            rest = done.stdout[committed.end() :].decode(errors="replace") + stderr
            if rest.strip():  # a hook that came too late to refuse
                _log().warning("%s: committed, but: %s", what, one_line(rest))
            return int(committed[1])
        error = failure(what, stderr)
        if type(error) is NotFound:  # it was there a moment ago
            raise OutOfDate(*error.args) from error
        raise error

    def _url(self, url: str) -> str:
        return canonical(url, self._schemes)

    def _what(self, command: str, url: str) -> str:
        return f"svn {command} {self._url(url)}"

    def _canonical(self, action: Action) -> Action:
        for name in ("revision", "base_revision"):
            if getattr(action, name, None) is not None:
                _number(getattr(action, name))
        if isinstance(action, Copy | Move):
            return action._replace(source=self._url(action.source), url=self._url(action.url))
        return action._replace(url=self._url(action.url))


class SvnFile:
    """One file, and the revision in which it was read: what it writes is based on that.

    `revision` is None until `read()` has found the file, and again when it has not: `write()`
    creates it then. After OutOfDate read it again and make the change anew.
    """

    def __init__(self, url: str, client: SvnClient) -> None:
        self.url = url
        self._client = client
        self._revision: int | None = None
        self._last_changed: int | None = None

    @property
    def revision(self) -> int | None:
        return self._revision

    def read(self) -> bytes:
        """The content as of now. Raises NotFound, and forgets what was read, when it is gone."""
        try:
            info = self._client.info(self.url)
            data = self._client.cat(self.url, info.revision, info.revision)
        except NotFound:
            self._revision = self._last_changed = None
            raise
        self._revision, self._last_changed = info.revision, info.last_changed_revision
        return data

    def changed(self) -> bool:
        """Whether it is another one than was read or written here last, or is gone, or is new."""
        try:
            last_changed: int | None = self._client.info(self.url).last_changed_revision
        except NotFound:
            last_changed = None
        return last_changed != self._last_changed

    def write(self, data: bytes, message: str) -> int:
        """Commit *data* if nobody has changed the file since; the new revision.

        Raises OutOfDate, or AlreadyExists when it was not there before.
        """
        revision = self._client.put(self.url, data, message, base_revision=self._revision)
        self._revision = self._last_changed = revision
        return revision

    def __repr__(self) -> str:
        return f"<SvnFile {self.url} in revision {self._revision}>"


def _revision(revision: Revision) -> Revision:
    return revision if revision == "HEAD" else _number(revision)


def _number(revision: object) -> int:
    if isinstance(revision, bool) or not isinstance(revision, int) or revision < 0:
        raise ValueError(f"a revision is a number from 0 or 'HEAD', not {revision!r}")
    return revision


def _message(message: str) -> bytes:
    text = _CONTROLS.sub("", message.replace("\r\n", "\n")).strip()
    if not text:
        raise ValueError("a commit needs a message")
    return text.encode()[:_LONGEST_MESSAGE].decode(errors="ignore").encode()


def _log() -> logging.Logger:
    import logging  # milliseconds, for a line that is rarely written

    return logging.getLogger(__name__)
