"""Send the mails of the outbox, oldest first, by one greenlet that a dead server cannot hold up.

    queued with its incident ──► on disk ──► sent ──┬── taken ─────────────────► removed, on disk
                                   ▲                ├── refused for good ──────► given up, ERROR
                                   └── a while later ──── anything else

A mail is sent at least once: where the answer to it was lost, or a `kill -9` came between the
answer and the disk, it is sent again with the same Message-ID, by whichever replica judges then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from gevent.event import Event

from lookout.counters import Counters, count
from lookout.ledger import MAX_OUTBOX, Ledger
from lookout.records import Incident, Mail
from lookout.settings import MailSettings
from lookout.store import Keeper
from lookout.view import duration
from sepelib.gevent import GreenThread
from sepelib.util.exceptions import format_exception
from sepelib.util.retry import Backoff
from sepelib.util.smtp import MailError, RecipientsRefused, build_message

__all__ = ["Postman", "sentence"]

log = logging.getLogger(__name__)

Reply = tuple[int, bytes]
BACKOFF = Backoff(base=0.5, cap=60.0)

# Here a server refuses this mail. Before, at the login say, it refuses any: the operator will
# mend that, and no mail should be lost until then.
ABOUT_THE_MAIL = ("MAIL", "RCPT", "DATA", "TEXT")


class Postman:
    """The thread. *settings*: None sends nothing and drops what waits: nobody wants it.

    allowed: asked before each mail and before each save; no ends the thread, and what waits is left
    for the next judge.

    It never blocks the hub: the process is patched, so a socket waits in its greenlet only.
    """

    def __init__(
        self,
        ledger: Ledger,
        keeper: Keeper,
        settings: MailSettings | None,
        counters: Counters,
        *,
        allowed: Callable[[], bool] = lambda: True,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self.error: str | None = None  # why the last try failed, None when it worked
        self._counters = counters
        self._last_refusal = ""
        self._ledger = ledger
        self._allowed = allowed
        self._keeper = keeper
        self._backoff = backoff
        self._wake = Event()
        # A daemon: it is for `stop()` to end it, when its turn has come.
        self._thread = GreenThread(self._run, "mail", daemon=True)
        self.use(settings)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Say that there is a new mail in the outbox."""
        self._wake.set()

    def use(self, settings: MailSettings | None) -> None:
        """Send like this from now on; what waits is tried at once."""
        self._settings = settings
        self._ledger.mailing = settings is not None
        self._given_up_before = count(self._counters.given_up)
        if settings is None:
            self.error = None
            if self._ledger.outbox:
                log.warning("mail is off: %d that waited are dropped", len(self._ledger.outbox))
                self._ledger.outbox.clear()
                self._keeper.touch()
        self._wake.set()

    def stop(self, timeout: float = 1.0) -> None:
        """Finish the mail under way, if that is quick; what is left waits for the next start."""
        self._thread.request_stop()
        self._wake.set()
        self._thread.stop(timeout)

    @property
    def complaints(self) -> list[str]:
        """One sentence for each thing that is wrong."""
        said = []
        if self.error is not None:
            said.append(f"Mail cannot be sent, {len(self._ledger.outbox)} waiting: {self.error}")
        if len(self._ledger.outbox) >= MAX_OUTBOX:
            said.append(f"Only the last {MAX_OUTBOX} mails are kept, older ones are lost")
        if given_up := count(self._counters.given_up) - self._given_up_before:
            said.append(f"Mails given up: {given_up}, the last one: {self._last_refusal}")
        return said

    def _run(self) -> None:
        delays = self._backoff.delays()
        while not self._thread.stopping:
            self._wake.clear()
            settings, outbox = self._settings, self._ledger.outbox
            if settings is None or not outbox:
                self._wake.wait()
                continue
            mail = outbox[0]
            self._keeper.flush()  # nobody gets a mail about an incident that a kill -9 would undo
            if not self._allowed():
                return
            if settings is not self._settings or mail not in outbox:
                continue  # other settings came meanwhile, or mail is off now
            again = self._deliver(mail, settings)
            if not self._allowed():
                return
            self._settle(mail, again)
            if again is None:
                delays = self._backoff.delays()
            else:
                self._wake.wait(next(delays))

    def _deliver(self, mail: Mail, settings: MailSettings) -> Mail | None:
        """Send *mail*; give what is to be sent later, None for nothing."""
        to = mail.to or settings.recipients
        try:
            refused = _send(mail, settings, to)
        except RecipientsRefused as error:
            refused = error.refused
        except MailError as error:
            if error.stage not in ABOUT_THE_MAIL or error.retryable or error.maybe_sent:
                self._failed(str(error))
                return mail
            self._worked()  # the server does: it is this mail that it does not like
            self._give_up(mail, str(error))
            return None
        except Exception as error:  # a mistake of ours, which shall not stop the other mails
            self._give_up(mail, format_exception(error))
            return None
        self._counters.sent.inc(len(refused) < len(to))
        late = tuple(who for who, (code, _) in refused.items() if 400 <= code < 500)
        if gone := [who for who in refused if who not in late]:
            self._give_up(mail, _words(refused, gone))
        if late:
            self._failed(_words(refused, late))
            # All of them: then whoever is to get mails by the time it works.
            return mail if len(late) == len(to) else replace(mail, to=late)
        self._worked()
        return None

    def _worked(self) -> None:
        if self.error is not None:
            log.info("mail is sent again")
        self.error = None

    def _failed(self, why: str) -> None:
        if self.error is None:
            log.error("mail not sent, trying on: %s", why)
        self.error = why

    def _give_up(self, mail: Mail, why: str) -> None:
        self._counters.given_up.inc()
        self._last_refusal = f"{mail.incident.id} {mail.kind}: {why}"
        log.error("mail given up: %s", self._last_refusal)

    def _settle(self, mail: Mail, again: Mail | None) -> None:
        """Take *mail* out of the outbox, in memory and on disk, or put *again* in its place."""
        outbox = self._ledger.outbox
        if again is mail or mail not in outbox:  # one too many meanwhile, or mail is off now
            return
        index = outbox.index(mail)
        outbox[index : index + 1] = [] if again is None else [again]
        self._keeper.flush()


def sentence(incident: Incident) -> str:
    """What has happened, in one line."""
    if incident.closed_at is None:
        return f"{incident.id} opened: {incident.target}: {incident.cause}"
    lasted = duration(incident.duration(incident.closed_at))
    return f"{incident.id} closed: {incident.target}: {incident.closed_because} after {lasted}"


def _send(mail: Mail, settings: MailSettings, to: Sequence[str]) -> Mapping[str, Reply]:
    """Over a connection of its own; what the server refused, by recipient."""
    incident = mail.incident
    lines = [
        sentence(incident),
        "",
        f"target  {incident.target}",
        f"cause   {incident.cause}",
        f"opened  {incident.opened_at:%Y-%m-%d %H:%M:%S} UTC",
    ]
    if incident.closed_at is not None:
        lines.append(f"closed  {incident.closed_at:%Y-%m-%d %H:%M:%S} UTC")
    message = build_message(
        settings.sender,
        settings.recipients,
        f"{incident.target} is {'down' if incident.is_open else 'no longer down'} ({incident.id})",
        "\n".join(lines) + "\n",
        message_id=mail.message_id,
        headers={"Auto-Submitted": "auto-generated"},  # so that no holiday is announced to us
    )
    with settings.mailer() as mailer:
        return mailer.send(message, settings.sender, to)


def _words(refused: Mapping[str, Reply], who: Iterable[str]) -> str:
    said = "; ".join(
        f"{one}: {refused[one][0]} {refused[one][1].decode(errors='replace')}" for one in who
    )
    return "".join(c if c.isprintable() else " " for c in said)
