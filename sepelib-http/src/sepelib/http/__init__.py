"""InstrumentedSession, a requests.Session with deadlines, limits and metrics, and REST utilities.

    session = InstrumentedSession("staff", base_url="https://staff.example/api")
    keys = session.get("/users/{id}/keys", path={"id": login}).json()

What it raises is requests', and `sepelib.http.session` has three more of that tree.

    client = RestClient(session, "https://staff.example/api")
    user = client.get("/users/{login}", login=login)    # parsed JSON

What it raises is the tree of `sepelib.http.errors`. DeadlineExceeded, NoFreeSlot and
ResponseTooLarge are in both trees, so they are not here: take them from the module you mean.
"""

from .errors import (
    ClientError,
    Conflict,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    Forbidden,
    HttpError,
    InvalidResponse,
    LinkRefused,
    NotFound,
    RateLimited,
    ReadTimeout,
    RestError,
    ServerError,
    TooManyRedirects,
    TransportError,
    Unauthorized,
    UnexpectedStatus,
)
from .rest import RestClient
from .session import InstrumentedSession

__all__ = [
    "ClientError",
    "Conflict",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "Forbidden",
    "HttpError",
    "InstrumentedSession",
    "InvalidResponse",
    "LinkRefused",
    "NotFound",
    "RateLimited",
    "ReadTimeout",
    "RestClient",
    "RestError",
    "ServerError",
    "TooManyRedirects",
    "TransportError",
    "Unauthorized",
    "UnexpectedStatus",
]
