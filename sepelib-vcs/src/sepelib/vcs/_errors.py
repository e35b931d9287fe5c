"""What can go wrong, told by the codes that svn writes to stderr and never by its words.

    Error
    └── SvnError             any of these; a hook that refuses, a corrupt repository
        ├── NotFound             nothing at this URL in this revision
        ├── OutOfDate            changed since the base revision: read again
        │   └── AlreadyExists        it was to be created, and is there
        ├── AuthFailed           no or wrong credentials, or not allowed
        ├── NetworkError         no connection, or no repository at the other end
        ├── SvnTimeout           (TimeoutError) svn was ended when its time was over
        ├── AnswerTooLarge       svn was ended when it had written too much
        └── SvnNotInstalled      there is no svn or no svnmucc

Source: svn_error_codes.h of Subversion 1.14.
"""

from __future__ import annotations

import re

from sepelib.core.exceptions import Error

# What is said, the output of a hook for one, may have several lines.
_TOLD = re.compile(
    r"^(?:svn|svnmucc): (?:warning: )?[EW](\d{6}): (.*?)(?=^(?:svn|svnmucc): |\Z)",
    re.MULTILINE | re.DOTALL,
)
_LONGEST = 400
_SUMMARIES = {"200009"}  # "could not do it for all targets": the line before it says why


class SvnError(Error):
    """*what* (the command and its URL) failed; *code* as in "E160013", "" when svn gave none.

    *stderr* is all that svn wrote there: words of the server and of its hooks.
    """

    def __init__(self, what: str, code: str = "", stderr: str = "", /) -> None:
        super().__init__(what, code, stderr)
        self.what = what
        self.code = code
        self.stderr = stderr

    def __str__(self) -> str:
        told = [f"E{code}: {words.strip()}" for code, words in _told(self.stderr)]
        reason = one_line("; ".join(dict.fromkeys(told)) or self.stderr)
        return f"{self.what}: {reason or self.code}" if reason or self.code else self.what


class NotFound(SvnError):
    """Nothing is at this URL in this revision. (No such revision is a plain SvnError.)"""


class OutOfDate(SvnError):
    """Changed or deleted since the base revision. Nothing was committed; read it again."""


class AlreadyExists(OutOfDate):
    """It was to be created, and somebody has done so. Nothing was committed."""


class AuthFailed(SvnError):
    """The server wants a name and a password, does not take these, or forbids it to their owner."""


class NetworkError(SvnError):
    """No connection to the server, no trust in its certificate, or no repository at its URL."""


class SvnTimeout(SvnError, TimeoutError):
    """Not done within *timeout* seconds, svn was ended with its children.

    Whether a commit took place is not known then.
    """

    def __init__(self, what: str, timeout: float = 0.0, /) -> None:
        Error.__init__(
            self, f"{what}: not done within {timeout:.3g} s, svn was ended with its children"
        )
        self.what = what
        self.code = ""
        self.stderr = ""
        self.timeout = timeout

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[SvnTimeout], tuple[str, float]]:
        return type(self), (self.what, self.timeout)


class AnswerTooLarge(SvnError):
    """svn wrote more than *limit* bytes and was ended: give SvnClient a larger `max_output`."""

    def __init__(self, what: str, limit: int = 0, /) -> None:
        super().__init__(what)
        self.args = (what, limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.what}: more than {self.limit} bytes, see max_output of SvnClient"


class SvnNotInstalled(SvnError):
    """There is no such *program*."""

    def __init__(self, program: str, /) -> None:
        super().__init__(program)
        self.args = (program,)
        self.program = program

    def __str__(self) -> str:
        return f"{self.program}: no such program: apt-get install subversion, or give its path"


# The first that fits wins: svn tells of a wrong password below "unable to connect", and a
# repository that cannot be reached must not pass for a file which is not there.
_KINDS: tuple[tuple[type[SvnError], frozenset[str]], ...] = (
    (SvnError, frozenset({"165001"})),  # a hook refused: its words may look like codes of svn
    # Not authorized; no credentials left to try; forbidden by DAV; not readable, not writable.
    (AuthFailed, frozenset({"170001", "215001", "215003", "215004", "175013", "220001", "220004"})),
    (AlreadyExists, frozenset({"160020", "175005"})),
    # Transaction, working copy, repository access, conflict, DAV precondition.
    (OutOfDate, frozenset({"160028", "155011", "170004", "160024", "175014"})),
    # Unable to connect; connection closed; DAV timeout; an untrusted certificate.
    (NetworkError, frozenset({"170013", "210002", "175012", "230001"})),
    # Path; URL; below a file; DAV path; no such line of history. Not E160006, no such revision: a
    # repository that has lost its data says so of all revisions.
    (NotFound, frozenset({"160013", "170000", "160016", "175007", "195012"})),
)


def failure(what: str, stderr: str) -> SvnError:
    """The error that *stderr* tells of."""
    codes = [code for code, _ in _told(stderr)]
    for kind, known in _KINDS:
        for code in codes:
            if code in known:
                return kind(what, f"E{code}", stderr)
    return SvnError(what, f"E{codes[0]}" if codes else "", stderr)


def codes_in(stderr: str) -> set[str]:
    """Codes of errors and warnings, without their letters."""
    return {code for code, _ in _told(stderr)}


def one_line(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text)
    line = " ".join(printable.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _told(stderr: str) -> list[tuple[str, str]]:
    told = _TOLD.findall(stderr)
    return [pair for pair in told if pair[0] not in _SUMMARIES] or told
