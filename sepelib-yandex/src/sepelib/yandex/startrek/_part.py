"""What the parts of the client have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar

from sepelib.yandex.base import ApiClient, Response
from sepelib.yandex.paging import LinkHeader, Pager, Strategy

from ._models import Attachment, BulkChange, Comment, Issue, Link, Transition

__all__ = ["Part", "Times", "id_of", "key_of"]

T = TypeVar("T")

_LINKS = LinkHeader()


class Times(TypedDict, total=False):
    """In place of the client's own, as in `ApiClient.request`: seconds, None for no limit."""

    timeout: float | tuple[float | None, float | None] | None
    total_timeout: float | None


class Part:
    """Some operations of a client. Costs nothing to make, may be shared as the client may."""

    __slots__ = ("_client", "_version")

    def __init__(self, client: ApiClient, version: str) -> None:
        self._client = client
        self._version = version

    def _at(self, at: Mapping[str, str | int]) -> dict[str, str | int]:
        return {"v": self._version, **at}

    def _ask(self, op: str, method: str, at: Mapping[str, str | int], **request: Any) -> Response:
        response: Response = self._client.request(op, method, at=self._at(at), **request)
        return response

    def _listed(
        self,
        op: str,
        at: Mapping[str, str | int],
        *,
        of: Callable[[Any], T],
        strategy: Strategy = _LINKS,
        **request: Any,
    ) -> Pager[T]:
        return self._client.pager(strategy, op, of=of, at=self._at(at), **request)


def key_of(issue: str | Issue) -> str:
    """Its key, or its id."""
    if isinstance(issue, str):
        return issue
    found = issue.key or issue.id
    if not found:
        raise ValueError("the issue has neither key nor id")
    return found


def id_of(one: str | int | Comment | Link | Attachment | Transition | BulkChange) -> str | int:
    """Its id, as it was given or answered."""
    found = one if isinstance(one, str | int) else one.id
    if found is None or found == "":
        raise ValueError(f"the {type(one).__name__} has no id")
    return found
