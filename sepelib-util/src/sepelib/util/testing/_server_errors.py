"""What a ServerProcess can fail with."""

from __future__ import annotations

__all__ = ["ServerNotReady", "SupervisorLost"]


class ServerNotReady(RuntimeError):
    """A server ended, or time did, before it was ready. *log* is the tail of what it wrote."""

    def __init__(self, name: str, why: str, log: str) -> None:
        super().__init__(name, why, log)
        self.name = name
        self.why = why
        self.log = log
        self.add_note(f"the end of its log:\n{log}" if log else "its log is empty")

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


class SupervisorLost(RuntimeError):
    """Somebody killed the supervisor *pid* of *server*; the server is dead, its folder removed."""

    def __init__(self, server: str, pid: int) -> None:
        super().__init__(server, pid)
        self.server = server
        self.pid = pid

    def __str__(self) -> str:
        return f"{self.server}: its supervisor, process {self.pid}, is gone and the server with it"
