"""The URI of a server without the database in it, and with another one.

mongoengine prefers the database of the URI to the name it is given, so it must not be there.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from pymongo.errors import InvalidURI
from pymongo.uri_parser import parse_uri

__all__ = ["naming", "options_of", "without_database", "without_password"]

_PARTS = re.compile(
    r"(?P<hosts>mongodb(?:\+srv)?://[^/?]*)/?(?P<database>[^?]*)(?:\?(?P<query>.*))?"
)
_EXTERNAL = ("GSSAPI", "MONGODB-AWS", "MONGODB-OIDC", "MONGODB-X509")


def without_database(uri: str) -> str:
    """The same server and user: whom the database authenticated is named as `authSource`.

    ValueError for what is no URI of MongoDB.
    """
    parsed = _parsed(uri)
    hosts, query = _parts(uri)
    options = options_of(uri)
    if parsed["username"] is not None and "authsource" not in options:
        mechanism = options.get("authmechanism")
        source = parsed["database"] or "admin"
        if mechanism in _EXTERNAL or (mechanism == "PLAIN" and not parsed["database"]):
            source = "$external"
        query = f"{query}&authSource={quote(source)}" if query else f"authSource={quote(source)}"
    return f"{hosts}/?{query}" if query else f"{hosts}/"


def naming(uri: str, database: str) -> str:
    """*uri*, which is one of `without_database`, with *database*."""
    hosts, query = _parts(uri)
    return f"{hosts}/{database}?{query}" if query else f"{hosts}/{database}"


def without_password(uri: str) -> str:
    """For a message: hosts only, without user and options."""
    hosts, _ = _parts(uri)
    scheme, _, rest = hosts.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def options_of(uri: str) -> dict[str, Any]:
    """The options in *uri*, by lower-case names."""
    return {name.lower(): value for name, value in _parsed(uri)["options"].items()}


def _parsed(uri: str) -> dict[str, Any]:
    try:
        return parse_uri(uri)
    except InvalidURI as error:
        raise ValueError(f"no URI of a MongoDB server: {error}") from error


def _parts(uri: str) -> tuple[str, str]:
    found = _PARTS.fullmatch(uri)
    assert found is not None  # pymongo takes less than this
    return found["hosts"], found["query"] or ""
