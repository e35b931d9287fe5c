"""Inflicts a schedule on the workers and the servers, and undoes all of it at the end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sepelib.zookeeper.testing import ZookeeperServer
from soak.history import HARNESS, Event
from soak.schedule import Fault
from soak.slot import Slot, holder

__all__ = ["Nemesis"]

_TICK = 0.05
_WATCH = 0.5
_LATE = 0.25  # seconds by which a sleep of one tick must be late to tell that the machine stalled


class Nemesis:
    """What goes on at once: several workers' faults, each worker one, and one server's.

    A fault whose target has one already goes to the next worker, or is left out.
    """

    def __init__(
        self, slots: Sequence[Slot], servers: Sequence[ZookeeperServer], recipes: Sequence[str]
    ) -> None:
        self.events: list[Event] = []
        self._slots = slots
        self._servers = servers
        self._recipes = recipes
        self._choosing = threading.Lock()
        self._server_busy = threading.Lock()
        self._over = threading.Event()
        self._armed: dict[int, list[Any]] = {}
        self._watched = 0.0

    def note(self, kind: str, t: float | None = None, **fields: object) -> None:
        self.events.append(Event(time.monotonic() if t is None else t, HARNESS, kind, fields))

    def inflict(self, plan: Sequence[Fault], seconds: float) -> None:
        """Returns after *seconds*, with nothing wrong any more."""
        running: list[Future[None]] = []
        began = time.monotonic()
        with ThreadPoolExecutor(16, "nemesis") as pool:
            try:
                for fault in plan:
                    self._wait(began + fault.at, running)
                    running.append(pool.submit(self._one, fault))
                self._wait(began + seconds, running)
            finally:
                self._over.set()
        for future in running:
            future.result()
        for slot in self._slots:
            for proxy in slot.proxies:
                proxy.heal()
        self.note("healed")

    def watch(self) -> None:
        """Look for workers that ended by themselves, and put others in their place."""
        if time.monotonic() < self._watched + _WATCH:
            return
        self._watched = time.monotonic()
        for slot in self._slots:
            with self._holding(slot) as free:
                if free and not slot.process.running:
                    tail = slot.process.log_tail(5)
                    status = slot.process.returncode
                    self.note("died", hit=slot.index, status=status, log=tail)
                    slot.start()

    def sleep(self) -> None:
        """One tick, and a note when the machine made more of it."""
        began = time.monotonic()
        time.sleep(_TICK)
        late = time.monotonic() - began - _TICK
        if late > _LATE:
            self.note("stalled", seconds=late)

    def _wait(self, until: float, running: Sequence[Future[None]]) -> None:
        while time.monotonic() < until:
            self.sleep()
            self.watch()
            for future in running:
                if future.done():
                    future.result()

    def _one(self, fault: Fault) -> None:
        if fault.server:
            if self._server_busy.acquire(blocking=False):
                try:
                    self._hit_server(fault, self._servers[fault.target])
                finally:
                    self._server_busy.release()
            return
        slot = self._choose(fault)
        if slot is not None:
            try:
                self._hit_worker(fault, slot)
            finally:
                slot.busy = False

    def _choose(self, fault: Fault) -> Slot | None:
        """A worker without a fault, marked as having one."""
        wanted = None
        if fault.holder_of is not None:
            wanted = holder(self._slots, self._recipes[fault.holder_of])
        first = fault.target if wanted is None else wanted.index
        with self._choosing:
            for slot in [*self._slots[first:], *self._slots[:first]]:
                if not slot.busy:
                    slot.busy = True
                    return slot
        return None

    @contextlib.contextmanager
    def _holding(self, slot: Slot) -> Iterator[bool]:
        """Whether the worker is free of faults; it stays so in the block."""
        with self._choosing:
            free, slot.busy = not slot.busy, True
        try:
            yield free
        finally:
            if free:
                slot.busy = False

    def _hit_worker(self, fault: Fault, slot: Slot) -> None:
        t = time.monotonic()
        match fault.kind:
            case "kill":
                slot.process.kill()
                self._over.wait(fault.seconds)
                slot.start()
            case "pause":
                slot.process.pause()
                self._over.wait(fault.seconds)
                slot.process.resume()
            case "cut":
                for proxy in slot.proxies:
                    proxy.cut()
            case "silence":
                for proxy in slot.proxies:
                    proxy.hold()
                self._over.wait(fault.seconds)
                for proxy in slot.proxies:
                    proxy.resume()
            case "mute":
                for proxy in slot.proxies:
                    proxy.hold_replies()
                self._over.wait(fault.seconds)
                for proxy in slot.proxies:
                    proxy.resume()
            case "refuse":
                for proxy in slot.proxies:
                    proxy.refuse()
                    proxy.cut()
                self._over.wait(fault.seconds)
                for proxy in slot.proxies:
                    proxy.accept()
            case "lose":
                for loss in self._armed.pop(slot.index, []):
                    loss.cancel()
                self._armed[slot.index] = [
                    proxy.lose_answer_to(fault.detail) for proxy in slot.proxies
                ]
            case "expire":
                self._expire(fault, slot)
                return
        self._note_fault(fault, t, hit=slot.index)

    def _expire(self, fault: Fault, slot: Slot) -> None:
        """End the worker's session by way of a server that can."""
        session = slot.session()
        if session is None:
            return
        for server in self._servers:
            t = time.monotonic()
            try:
                server.expire(session, timeout=1.0)
            except (LookupError, ConnectionRefusedError):
                continue  # it is over already, or this server is down
            except (OSError, EOFError):
                # Done or not, nobody knows: a fault that excuses what it may have caused.
                self._note_fault(fault, t, hit=slot.index)
                continue
            self._note_fault(fault, t, hit=slot.index)
            return

    def _note_fault(self, fault: Fault, t: float, **target: int) -> None:
        lasted = time.monotonic() - t
        self.note("fault", t, name=fault.kind, detail=fault.detail, lasted=lasted, **target)

    def _hit_server(self, fault: Fault, server: ZookeeperServer) -> None:
        t = time.monotonic()
        if fault.kind == "kill":
            server.kill()
            server.start()
        else:
            server.pause()
            self._over.wait(fault.seconds)
            server.resume()
            server.wait_ready()
        self._note_fault(fault, t, server=fault.target)
