"""Send the mails of the outbox, oldest first, by one greenlet that a dead server cannot hold up.

    queued with its incident ──► saved ──► sent ──┬── taken ─────────────────► removed, saved
                                   ▲              ├── refused for good ──────► given up, ERROR
                                   └─ a while later ──── anything else

A mail is sent at least once: where the answer to it was lost, or a `kill -9` came between the
answer and the save, it is sent again with the same Message-ID, by whichever replica judges then.
None is sent that is not saved: another judge would tell of the same outage in another mail.
While a target is silenced the mail about it waits, and is dropped once its incident is closed.
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
LOOK = 1.0  # seconds, while mails are held back, are not ours or cannot be saved
BACKOFF = Backoff(base=0.5, cap=60.0)

# Here a server refuses this mail. Before, at the login say, it refuses any: the operator will
# mend that, and no mail should be lost until then.
ABOUT_THE_MAIL = ("MAIL", "RCPT", "DATA", "TEXT")


class Postman:
    """The thread. *settings*: None sends nothing and drops what waits: nobody wants it.

    saved: whether a mail is saved, with its incident.
    silenced: whether no mail shall go out about the target of this name; None: it is not known yet.
    allowed: asked before each mail; as long as it says no, none is sent.

    It never blocks the hub: the process is patched, so a socket waits in its greenlet only.
    """

    def __init__(
        self,
        ledger: Ledger,
        keeper: Keeper,
        settings: MailSettings | None,
        counters: Counters,
        *,
        saved: Callable[[Mail], bool],
        silenced: Callable[[str], bool | None] = lambda target: False,
        allowed: Callable[[], bool] = lambda: True,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self.error: str | None = None  # why the last try failed, None when it worked
        self._counters = counters
        self._last_refusal = ""
        self._ledger = ledger
        self._saved = saved
        self._silenced = silenced
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
            mail = self._next()
            if mail is None:
                self._wake.wait(LOOK)
                continue
            if not self._saved(mail):
                self._keeper.flush()
                # With its number it is another one by now.
                self._wake.wait(0.0 if mail not in outbox or self._saved(mail) else LOOK)
                continue
            if not self._allowed():
                # Perhaps for a moment only, while the lease is renewed late: the end is `stop()`.
                self._wake.wait(LOOK)
                continue
            again = self._deliver(mail, settings)
            self._settle(mail, again)  # which the database refuses if another one judges by now
            if again is None:
                delays = self._backoff.delays()
            else:
                self._wake.wait(next(delays))

    def _next(self) -> Mail | None:
        """The oldest one that may be sent; what nobody is to hear of any more is dropped."""
        outbox = self._ledger.outbox
        silenced = {name: self._silenced(name) for name in {m.incident.target for m in outbox}}
        going_on = {i.number for i in self._ledger.incidents if i.is_open}
        kept = [
            mail
            for mail in outbox
            if not silenced[mail.incident.target] or mail.incident.number in going_on
        ]
        if len(kept) < len(outbox):
            log.info("silenced, and over: mails dropped: %d", len(outbox) - len(kept))
            outbox[:] = kept
            self._keeper.touch()
        return next((mail for mail in kept if silenced[mail.incident.target] is False), None)

    def _deliver(self, mail: Mail, settings: MailSettings) -> Mail | None:
        """Send *mail*; give what is to be sent later, None for nothing."""
        to = sorted(mail.to) or settings.recipients
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
            return mail if len(late) == len(to) else replace(mail, to=frozenset(late))
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
        """Take *mail* out of the outbox, and save that, or put *again* in its place."""
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
