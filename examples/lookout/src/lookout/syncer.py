"""More targets from a list in a Subversion repository, which is looked at again and again.

The last list that was fine is kept in the state directory: a restart goes on with it, whether the
repository is there or not. A list that is wrong, or not to be had, changes nothing.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import gevent

from lookout.settings import SvnSettings
from lookout.targets import Defaults, Target, targets_in
from sepelib.core.config import Config, ConfigError
from sepelib.gevent import GreenThread
from sepelib.util.fs import atomic_write
from sepelib.util.url import redact_text, redact_url
from sepelib.vcs.svnfile import SvnError, SvnFile

__all__ = ["Syncer", "read_list"]

log = logging.getLogger(__name__)

TEMPLATE_SIGNS = re.compile(r"\{[{%#]")


def read_list(text: str, scratch: Path, name: str, defaults: Defaults) -> tuple[Target, ...]:
    """The targets of *text*, checked as those of the configuration are.

    Raises ConfigError, with *name* as the file. *scratch*: a file to be overwritten and removed.
    """
    # A template is code, and reads the files of this machine: whoever may commit targets is to
    # have no say in that. So its signs are given to it as texts; lines stay the lines they are.
    escaped = TEMPLATE_SIGNS.sub(lambda sign: f"{{{{ '{sign[0]}' }}}}", text)
    try:
        scratch.touch(0o600)  # URLs have passwords
        scratch.write_text(escaped, "utf-8")
        config = Config().load(scratch)
        for key in config.get():
            if key != "targets":
                raise ConfigError(f"{name}: has the key 'targets' and no other")
        return targets_in(config, defaults)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(scratch), name)) from None
    finally:
        scratch.unlink(missing_ok=True)


class Syncer:
    """A thread that looks at the list, and `targets`, those of the last one that was fine.

    changed: called when `targets` are other ones, from the thread.
    """

    def __init__(self, state: Path, *, changed: Callable[[], object]) -> None:
        self.targets: tuple[Target, ...] = ()
        self._kept = state / "svn-targets.yml"
        self._scratch = state / "svn-targets.check"
        self._changed = changed
        self._used: tuple[SvnSettings | None, Defaults] | None = None
        self._defaults = Defaults()
        self._text: str | None = None  # of the last list that was fine
        self._refused: str | None = None  # what is wrong with the newest list
        self._outage: str | None = None  # why it cannot be had
        self._unsaved: str | None = None  # why it is not kept
        self._thread: GreenThread | None = None

    @property
    def complaints(self) -> list[str]:
        """Sentences for the page, none when all is well."""
        said = {
            "The list of targets cannot be had from svn, the last one stays": self._outage,
            "The list of targets in svn was not taken, the last one stays": self._refused,
            "The list of targets from svn cannot be kept": self._unsaved,
        }
        return [f"{what}: {why}" for what, why in said.items() if why]

    def use(self, svn: SvnSettings | None, defaults: Defaults) -> None:
        """Begin with these, or go on with them. `targets` are those that were kept."""
        if (svn, defaults) == self._used:
            return
        self.stop()
        self._used, self._defaults = (svn, defaults), defaults
        self._refused = self._outage = self._unsaved = None
        self.targets = ()
        if svn is None:
            self._text = None
            with suppress(OSError):
                self._kept.unlink()  # else an old list would come back with svn
            return
        try:
            text = self._kept.read_text("utf-8") if self._text is None else self._text
            self.targets = self._read(text, str(self._kept))
            self._text = text
        except FileNotFoundError:
            pass
        except (OSError, ValueError, ConfigError) as error:
            self._refused = str(error)
            log.error("the list of targets that was kept is not taken: %s", error)
        self._thread = GreenThread(self._run, "svn", args=(svn,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and the svn that it may have started."""
        if self._thread is not None:
            self._thread.kill(timeout=3.0)  # svn takes a second when its server hangs
            self._thread = None

    def _run(self, svn: SvnSettings) -> None:
        while True:
            file = SvnFile(svn.url, svn.client())
            try:
                while True:
                    self._look(file)
                    self._reached()
                    gevent.sleep(svn.poll)
            except Exception as error:  # whatever it is, the next look may work again
                self._missed(error)
                gevent.sleep(svn.poll)

    def _reached(self) -> None:
        if self._outage is not None:
            log.info("the list of targets can be had from svn again")
        self._outage = None

    def _missed(self, error: Exception) -> None:
        foreseen = isinstance(error, SvnError | OSError | ValueError)
        said = redact_text(str(error) if foreseen else traceback.format_exc())
        if self._outage is None:
            log.error("no list of targets from svn, the last one stays: %s", said)
        self._outage = said if foreseen else f"lookout itself failed ({type(error).__name__})"

    def _look(self, file: SvnFile) -> None:
        # A file that was never there has not changed either, so it is asked for anew.
        if file.revision is not None and not file.changed():
            return
        data = file.read()
        name = f"{redact_url(file.url)}@{file.revision}"
        try:
            text = data.decode()
            targets = self._read(text, name)
        except (ValueError, ConfigError) as error:
            said = str(error) if isinstance(error, ConfigError) else f"{name}: not UTF-8"
            if said != self._refused:
                log.error("the list of targets in svn was not taken, the last one stays: %s", said)
            self._refused = said
            return
        self._refused = None
        self._text = text
        self._keep(text)
        if targets != self.targets:
            self.targets = targets
            log.info("%s: %d targets", name, len(targets))
            self._changed()

    def _read(self, text: str, name: str) -> tuple[Target, ...]:
        return read_list(text, self._scratch, name, self._defaults)

    def _keep(self, text: str) -> None:
        def save() -> None:
            with atomic_write(self._kept, perms=0o600) as file:
                file.write(text)

        try:
            gevent.get_hub().threadpool.apply(save)  # an fsync on the hub would stop every probe
        except OSError as error:
            if self._unsaved is None:
                log.error("the list of targets from svn cannot be kept: %s", error)
            self._unsaved = str(error)
        else:
            self._unsaved = None
