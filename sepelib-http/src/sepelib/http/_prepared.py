"""Prepared requests made from one that was prepared before.

requests spends a fifth of a GET on merging cookie jars, headers and hooks, with the same outcome
each time when neither the call nor the session has anything of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from requests import PreparedRequest, Request
from requests.cookies import RequestsCookieJar
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PreparedRequests", "SessionHeaders"]

_KEPT = 256
_LONGEST_URL = 512


class SessionHeaders(CaseInsensitiveDict[Any]):
    """The headers of a session; `version` tells whether they have changed."""

    def __init__(self, data: Any = None, **kwargs: Any) -> None:
        self.version = 0
        super().__init__(data, **kwargs)

    def __setitem__(self, key: str, value: Any) -> None:
        self.version += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.version += 1
        super().__delitem__(key)


class _Headers(CaseInsensitiveDict[Any]):
    _store: dict[str, Any]  # of requests, unknown to its stubs

    """Those of a template: a copy is one of the dict inside."""

    def copy(self) -> CaseInsensitiveDict[Any]:
        twin = _Headers()
        twin._store = self._store.copy()
        return twin


class _NoCookies(RequestsCookieJar):
    def copy(self) -> RequestsCookieJar:
        return RequestsCookieJar()


class PreparedRequests:
    """Templates by method and URL, of one state of the session's headers."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, str], PreparedRequest] = {}
        self._of: tuple[SessionHeaders, int] | None = None

    def get(
        self,
        method: str,
        url: str,
        headers: SessionHeaders,
        prepare: Callable[[Request], PreparedRequest],
    ) -> PreparedRequest:
        """What *prepare* makes of *method* and *url*, which may be a copy of an earlier one."""
        state = headers, headers.version
        if self._of is None or self._of[0] is not headers or self._of[1] != state[1]:
            self._templates, self._of = {}, state
        templates = self._templates
        template = templates.get((method, url))
        if template is None:
            prepared = prepare(Request(method, url))
            # A query differs from call to call; that and a user may be secret.
            if len(url) <= _LONGEST_URL and "?" not in url and "@" not in url:
                template = prepared.copy()
                template.headers = _Headers(prepared.headers)
                template._cookies = _NoCookies()  # type: ignore[attr-defined]
                if len(templates) >= _KEPT:
                    templates.clear()
                templates[method, url] = template
            return prepared
        twin = template.copy()
        twin.hooks = default_hooks()
        return twin
