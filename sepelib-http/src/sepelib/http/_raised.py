"""What an InstrumentedSession raises beyond requests' own exceptions, all of them of that tree.

requests.RequestException
├── requests.Timeout
│   ├── DeadlineExceeded       (util's DeadlineExceeded) the total time is over
│   └── NoFreeSlot             `max_concurrency` requests were in flight for too long
└── ResponseTooLarge           more decoded bytes than `max_body`
"""

from __future__ import annotations

from typing import Any

import requests

from sepelib.util import deadline

__all__ = ["DeadlineExceeded", "NoFreeSlot", "ResponseTooLarge", "RetryableStatus"]


class _OneSentence(requests.RequestException):
    maybe_sent: bool
    """Whether the server may have got the request; False is a promise."""

    def __init__(self, *args: object, maybe_sent: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.maybe_sent = maybe_sent

    def __reduce__(self) -> tuple[Any, ...]:
        # The request and its hooks, body and response may not pickle: they stay here.
        fields = {**vars(self), "request": None, "response": None}
        return type(self), self.args, fields


class DeadlineExceeded(_OneSentence, requests.Timeout, deadline.DeadlineExceeded):
    """The total time is over: `total_timeout`, or a deadline from above."""


class NoFreeSlot(_OneSentence, requests.Timeout):
    """`max_concurrency` requests were in flight all through `concurrency_timeout`. Nothing sent."""


class ResponseTooLarge(_OneSentence):
    """The body is longer than `max_body`, once decoded, or says so. The connection is closed."""


class RetryableStatus(requests.HTTPError):
    """An answer that asks to come again; inside of the retries only, the caller gets the answer."""

    def __init__(self, text: str, answer: requests.Response, retry_after: float | None) -> None:
        super().__init__(text, response=answer)
        self.answer = answer
        self.retry_after = retry_after
