"""Lists of targets that do not come with the configuration, and are checked as it is.

The last one that was fine is kept in the state directory: a restart goes on with it, whether the
place where it is from is there or not. A list that is wrong changes nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import gevent

from lookout.targets import Defaults, Target, targets_in
from sepelib.core.config import Config, ConfigError
from sepelib.util.fs import atomic_write

__all__ = ["KeptList", "loaded", "read_list"]

log = logging.getLogger(__name__)

TEMPLATE_SIGNS = re.compile(r"\{[{%#]")


@contextmanager
def loaded(
    text: str,
    scratch: Path,
    name: str,
    *,
    keys: Collection[str] = ("targets",),
    ambiguous: Literal["warn", "error"] = "warn",
) -> Iterator[Config]:
    """*text* as a configuration of no other than these *keys*, no template.

    Each ConfigError leaves the block with *name* as the file. *scratch*: a file to be overwritten
    and removed. *ambiguous*: see `Config.load`.
    """
    # A template is code, and reads the files of this machine: whoever may write such a list is to
    # have no say in that. So its signs are given to it as texts; lines stay the lines they are.
    escaped = TEMPLATE_SIGNS.sub(lambda sign: f"{{{{ '{sign[0]}' }}}}", text)
    try:
        scratch.touch(0o600)  # URLs have passwords
        scratch.write_text(escaped, "utf-8")
        config = Config().load(scratch, ambiguous=ambiguous)
        for key in config.get():
            if key not in keys:
                only = " and ".join(repr(known) for known in keys)
                raise ConfigError(f"{name}: has the key {only} and no other")
        yield config
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(scratch), name)) from None
    finally:
        scratch.unlink(missing_ok=True)


def read_list(text: str, scratch: Path, name: str, defaults: Defaults) -> tuple[Target, ...]:
    """The targets of *text*; see `loaded`."""
    with loaded(text, scratch, name) as config:
        return targets_in(config, defaults)


class KeptList:
    """The `targets` of the last list that was fine, which is kept in a file of *state*.

    source: where they are from, a word for sentences and files.
    changed: called when `targets` are other ones, or known for the first time.
    is_known: False until there was a list that was fine: others may know of more targets.
    """

    def __init__(self, source: str, state: Path, *, changed: Callable[[], object]) -> None:
        self.targets: tuple[Target, ...] = ()
        self.is_known = False
        self._source = source
        self._kept = state / f"{source.lower()}-targets.yml"
        self._scratch = state / f"{source.lower()}-targets.check"
        self._changed = changed
        self._defaults = Defaults()
        self._text: str | None = None  # of the last list that was fine
        self._refused: str | None = None  # what is wrong with the newest list
        self._unsaved: str | None = None  # why it is not kept

    @property
    def complaints(self) -> list[str]:
        """Sentences for the page, none when all is well."""
        said = {
            f"The list of targets in {self._source} was not taken, the last one stays": (
                self._refused
            ),
            f"The list of targets from {self._source} cannot be kept": self._unsaved,
        }
        return [f"{what}: {why}" for what, why in said.items() if why]

    def begin(self, defaults: Defaults) -> None:
        """Go on with the list that is known, or was kept, judged by these *defaults*."""
        self._defaults = defaults
        self._refused = self._unsaved = None
        self.targets, self.is_known = (), False
        try:
            text = self._kept.read_text("utf-8") if self._text is None else self._text
            self.targets, self.is_known = self._read(text, str(self._kept)), True
            self._text = text
        except FileNotFoundError:
            pass
        except (OSError, ValueError, ConfigError) as error:
            self._refused = str(error)
            log.error("the list of targets that was kept is not taken: %s", error)

    def forget(self) -> None:
        """There are none any more."""
        self._text = self._refused = self._unsaved = None
        with suppress(OSError):
            self._kept.unlink()  # else an old list would come back one day
        self._use(())

    def take(self, data: bytes, name: str) -> None:
        """Go on with the list *data*, if it is fine. *name*: what to call it."""
        try:
            text = data.decode()
            targets = self._read(text, name)
        except (ValueError, ConfigError) as error:
            said = str(error) if isinstance(error, ConfigError) else f"{name}: not UTF-8"
            if said != self._refused:
                log.error(
                    "the list of targets in %s was not taken, the last one stays: %s",
                    self._source,
                    said,
                )
            self._refused = said
            return
        self._refused = None
        self._text = text
        if self._use(targets):
            log.info("%s: %d targets", name, len(targets))
        self._keep(text)

    def _use(self, targets: tuple[Target, ...]) -> bool:
        if self.is_known and targets == self.targets:
            return False
        self.targets, self.is_known = targets, True
        self._changed()
        return True

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
                log.error("the list of targets from %s cannot be kept: %s", self._source, error)
            self._unsaved = str(error)
        else:
            self._unsaved = None
