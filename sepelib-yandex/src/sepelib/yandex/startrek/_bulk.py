"""Changes of many issues at once, which the tracker makes in its own time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sepelib.util.deadline import Deadline
from sepelib.yandex.errors import NotFound

from ._models import BulkChange, Issue, Transition, plain
from ._part import Part, id_of, key_of

__all__ = ["Bulk"]

_HIDDEN = 10.0  # seconds; so long a change that was just made may not be found


class Bulk(Part):
    """What starts a change returns at once: see `wait`. *issues*: many, or a single one."""

    __slots__ = ()

    def update(
        self,
        issues: str | Issue | Iterable[str | Issue],
        values: Mapping[str, Any],
        *,
        notify: bool | None = None,
    ) -> BulkChange:
        """Give all of them these *values*, as in `issues.update`."""
        return self._start("bulk.update", issues, {"values": values}, notify)

    def transition(
        self,
        issues: str | Issue | Iterable[str | Issue],
        transition: str | Transition,
        *,
        values: Mapping[str, Any] | None = None,
        notify: bool | None = None,
    ) -> BulkChange:
        """Let all of them take the *transition*, with the *values* of its screen."""
        body: dict[str, Any] = {"transition": id_of(transition)}
        if values is not None:
            body["values"] = values
        return self._start("bulk.transition", issues, body, notify)

    def move(
        self,
        issues: str | Issue | Iterable[str | Issue],
        queue: str,
        *,
        move_all_fields: bool | None = None,
        initial_status: bool | None = None,
        notify: bool | None = None,
    ) -> BulkChange:
        """Move all of them to the *queue*."""
        body: dict[str, Any] = {"queue": queue}
        if move_all_fields is not None:
            body["moveAllFields"] = move_all_fields
        if initial_status is not None:
            body["initialStatus"] = initial_status
        return self._start("bulk.move", issues, body, notify)

    def get(self, change: str | int | BulkChange) -> BulkChange:
        """How far it is; NotFound, for a few seconds, when it was just made."""
        answer = self._ask("bulk.get", "GET", {"change": id_of(change)})
        return BulkChange.from_dict(answer.data)

    def wait(
        self,
        change: str | int | BulkChange,
        *,
        timeout: float | None = 300.0,
        interval: float = 1.0,
    ) -> BulkChange:
        """The change once it is over; look at `failed`.

        It is asked for every *interval* seconds; that it is not found is believed after 10 s.
        Raises WaitTimeout, with the last status, when it is not over in *timeout* seconds.
        """
        name = id_of(change)
        hidden: Deadline | None = Deadline.after(_HIDDEN, clock=self._client._clock)

        def ask() -> BulkChange:
            nonlocal hidden
            try:
                found = self.get(name)
            except NotFound:
                if hidden is None or hidden.remaining() <= 0:
                    raise
                return BulkChange.from_dict({"status": "not found yet"})
            hidden = None
            return found

        return self._client.wait_for(
            "bulk.get",
            ask,
            lambda found: found.over,
            timeout=timeout,
            interval=interval,
            factor=1.0,
            state=lambda found: found.status or "",
        )

    def _start(
        self,
        op: str,
        issues: str | Issue | Iterable[str | Issue],
        body: Mapping[str, Any],
        notify: bool | None,
    ) -> BulkChange:
        # A key and an issue could be walked over as well, letter by letter, field by field.
        several = [issues] if isinstance(issues, str | Issue) else issues
        keys = [key_of(issue) for issue in several]
        answer = self._ask(
            op, "POST", {}, params={"notify": notify}, json=plain({**body, "issues": keys})
        )
        return BulkChange.from_dict(answer.data)
