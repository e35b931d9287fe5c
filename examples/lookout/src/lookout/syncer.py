"""More targets from a list in a Subversion repository, which is looked at again and again.

The last list that was fine is kept in the state directory: a restart goes on with it, whether the
repository is there or not. A list that is wrong, or not to be had, changes nothing.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import gevent

from lookout.lists import KeptList
from lookout.settings import SvnSettings
from lookout.targets import Defaults, Target
from sepelib.gevent import GreenThread
from sepelib.util.url import redact_text, redact_url
from sepelib.vcs.svnfile import SvnError, SvnFile

__all__ = ["Syncer"]

log = logging.getLogger(__name__)


class Syncer:
    """A thread that looks at the list, and `targets`, those of the last one that was fine.

    changed: called when `targets` are other ones, or known for the first time, from the thread.
    is_known: False until there was a list that was fine.
    """

    def __init__(self, state: Path, *, changed: Callable[[], object]) -> None:
        self._list = KeptList("svn", state, changed=changed)
        self._used: tuple[SvnSettings | None, Defaults] | None = None
        self._outage: str | None = None  # why it cannot be had
        self._thread: GreenThread | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        return self._list.targets

    @property
    def is_known(self) -> bool:
        return self._list.is_known

    @property
    def complaints(self) -> list[str]:
        """Sentences for the page, none when all is well."""
        if self._outage is None:
            return self._list.complaints
        away = f"The list of targets cannot be had from svn, the last one stays: {self._outage}"
        return [away, *self._list.complaints]

    def use(self, svn: SvnSettings | None, defaults: Defaults) -> None:
        """Begin with these, or go on with them. `targets` are those that were kept."""
        if (svn, defaults) == self._used:
            return
        self.stop()
        self._used = svn, defaults
        self._outage = None
        if svn is None:
            self._list.forget()
            return
        self._list.begin(defaults)
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
        self._list.take(file.read(), f"{redact_url(file.url)}@{file.revision}")
