"""What a fake was asked so far."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from typing import Any, overload
from urllib.parse import quote

from ._request import FakeRequest, Reply

__all__ = ["Call", "Calls"]

_ATTEMPT = re.compile(r"(.+)-(\d{1,4})")
_SECRET_HEADERS = ("X-Ya-Service-Ticket", "X-Ya-User-Ticket", "X-Scroll-Token")
_SECRET_NAME = re.compile(
    r"(?:oauth_|access_|refresh_)?token|(?:device_)?code|code_verifier|(?:client|jwt)_secret"
    r"|passw(?:or)?d|sess.*|sslsessionid|(?:user_)?ticket|scrolltoken|accesstoken",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 6


class Call:
    """One request and what became of it; what `FakeRequest` has is here as well."""

    def __init__(self, request: FakeRequest, time: float, *, retry: bool) -> None:
        self.request = request
        self.time = time
        """By the clock of the fake."""
        self.retry = retry
        """Whether the request was here before, by its id, with another number of an attempt."""
        self.applied = False
        """Whether the service did what it was asked; a refusal counts."""
        self.reply: Reply | None = None
        """What was answered, None: the connection was reset instead."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.request, name)

    @property
    def status(self) -> int | None:
        return None if self.reply is None else self.reply.status

    @property
    def attempt(self) -> int | None:
        """The number at the end of the request id."""
        return _attempt(self.request.request_id)[1]

    def __repr__(self) -> str:
        return f"Call({self.request.method} {self.request.path} -> {self.status or 'reset'})"


class Calls(Sequence[Call]):
    """The requests that reached a fake, in their order, faults or not.

    assert fake.calls.of("issues.create")[-1].json == {"queue": "TEST", "summary": "x"}
    assert [call.attempt for call in fake.calls] == [1, 2]
    """

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._attempts: dict[str, int] = {}

    def of(self, op: str) -> list[Call]:
        """Those of one operation."""
        return [call for call in self._calls if call.request.op == op]

    @property
    def ops(self) -> list[str]:
        """The operation of each call; "" where there is no such one."""
        return [call.request.op for call in self._calls]

    @property
    def retries(self) -> list[Call]:
        """Those that repeat an earlier one, by the request id."""
        return [call for call in self._calls if call.retry]

    def clear(self) -> None:
        self._calls, self._attempts = [], {}

    def secrets(self) -> set[str]:
        """The credentials in all requests and answers so far.

        By the names of headers, parameters and fields, and at least six characters long.
        """
        found: set[str] = set()
        for call in self._calls:
            request = call.request
            found.update(_credentials(request.headers.get("Authorization", "")))
            found.update(request.headers.get(name, "") for name in _SECRET_HEADERS)
            for cookie in request.headers.get("Cookie", "").split("; "):
                found.add(cookie.partition("=")[2])
            named = [*request.pairs, *request.form.items(), *_leaves(request.json)]
            if call.reply is not None:
                # A "code" in an answer is that of an error.
                named += [leaf for leaf in _leaves(call.reply.json) if leaf[0] != "code"]
            found.update(value for name, value in named if _SECRET_NAME.fullmatch(name))
        return {secret for secret in found if len(secret) >= _SHORTEST_SECRET}

    def assert_no_secret_in(self, text: str) -> None:
        """AssertionError when *text*, say a log, has a credential of any call, quoted or not."""
        for secret in self.secrets():
            if secret in text or quote(secret, safe="") in text:
                at = text.find(secret)
                around = text[max(0, at - 40) : at] if at >= 0 else "a URL"
                raise AssertionError(f"a credential of {len(secret)} characters after {around!r}")

    def add(self, request: FakeRequest, time: float) -> Call:
        """For the fake."""
        whole, attempt = _attempt(request.request_id)
        retry = False
        if whole is not None and attempt is not None:
            retry = self._attempts.get(whole, attempt) != attempt
            self._attempts[whole] = attempt
        call = Call(request, time, retry=retry)
        self._calls.append(call)
        return call

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> list[Call]: ...
    def __getitem__(self, index: int | slice) -> Call | list[Call]:
        return self._calls[index]

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls))

    def __repr__(self) -> str:
        return f"Calls({self._calls!r})"


def _attempt(request_id: str | None) -> tuple[str | None, int | None]:
    match = _ATTEMPT.fullmatch(request_id or "")
    return (match[1], int(match[2])) if match else (request_id, None)


def _credentials(authorization: str) -> list[str]:
    scheme, _, credential = authorization.partition(" ")
    if scheme != "Basic":
        return [credential or scheme]
    try:
        _, _, password = b64decode(credential).decode().partition(":")
    except ValueError:
        password = ""
    return [credential, password]


def _leaves(value: object, name: str = "") -> list[tuple[str, str]]:
    """The texts in a JSON value, each with the name of the nearest field around it."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, str(key))]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner, name)]
    return [(name, value)] if isinstance(value, str) else []
