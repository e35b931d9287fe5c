"""How `svn` and `svnmucc` are called: no shell, no terminal, no settings of the user, no secrets.

The password goes through stdin, so it is in no process list, no environment and no file; it lives
as long as the call. An error names the command and its URL.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sepelib.util.processes import Completed, OutputTooLarge, ProcessTimeout, Runner
from sepelib.vcs._errors import AnswerTooLarge, SvnNotInstalled, SvnTimeout

if TYPE_CHECKING:
    from sepelib.util.secrets import Secret

# A folder that nobody can make: svn reads no settings then and, unlike in an empty one, writes
# none. (Below /dev/null it would do without as well, and complain each time.)
_NO_SETTINGS = "/proc/no-svn-settings"


class Limits(NamedTuple):
    """Of one method of a client, which may take several calls: all end before *until*."""

    seconds: float
    until: float

    @classmethod
    def of(cls, seconds: float) -> Limits:
        return cls(seconds, time.monotonic() + seconds)


class Commands:
    """Calls the two programs with what all their calls have in common."""

    def __init__(
        self,
        *,
        username: str | None,
        password: Secret[str] | None,
        svn: str,
        svnmucc: str,
        config_dir: str | os.PathLike[str] | None,
        trust_server_cert: Sequence[str],
        max_output: int,
        runner: Runner | None,
    ) -> None:
        self._svn = svn
        self._svnmucc = svnmucc
        self._max_output = max_output
        self._runner = runner
        settings = os.path.abspath(config_dir or _NO_SETTINGS)
        self._options = ["--non-interactive", "--no-auth-cache", f"--config-dir={settings}"]
        if trust_server_cert:
            self._options.append(f"--trust-server-cert-failures={','.join(trust_server_cert)}")
        if username is not None:
            self._options.append(f"--username={username}")
        if password is not None:
            self._options.append("--password-from-stdin")
        self._password = password

    def svn(
        self,
        limits: Limits,
        what: str,
        command: str,
        options: Sequence[str],
        targets: Sequence[str],
        *,
        cwd: str | None = None,
    ) -> Completed:
        args = [self._svn, command, *self._options, *options, "--", *targets]
        return self._call(limits, what, args, cwd)

    def svnmucc(
        self, limits: Limits, what: str, options: Sequence[str], actions: Sequence[str], cwd: str
    ) -> Completed:
        return self._call(
            limits, what, [self._svnmucc, *self._options, *options, "--", *actions], cwd
        )

    def _call(self, limits: Limits, what: str, args: list[str], cwd: str | None) -> Completed:
        from sepelib.util.processes import run

        left = limits.until - time.monotonic()
        if left <= 0:
            raise SvnTimeout(what, limits.seconds)
        environ = {name: value for name, value in os.environ.items() if name != "LANGUAGE"}
        # Under LC_ALL=C names outside ASCII fail; any other language would translate messages.
        environ["LC_ALL"] = "C.UTF-8"
        password = None if self._password is None else f"{self._password.reveal()}\n".encode()
        try:
            return (self._runner or run)(
                args,
                timeout=left,
                input=password,
                env=environ,
                cwd=cwd,
                max_output=self._max_output,
            )
        except ProcessTimeout as e:
            raise SvnTimeout(what, e.timeout) from e
        except OutputTooLarge as e:
            raise AnswerTooLarge(what, e.limit) from e
        except FileNotFoundError as e:
            raise SvnNotInstalled(args[0]) from e
