"""What is kept in MongoDB, as documents on a connection of lookout's own.

    judge       who may write incidents: the fence of every write, see lookout.ledger
    incidents   INC-1, INC-2, ...; a target has one open incident at most, which an index sees to
    outbox      mails that are not sent yet
    results     the last results of each replica, for the others; gone a day after the last of them
    silences    about what nobody wants mails for a while; gone a week after their end
    targets     those that `lookout import` puts there
    catalogue   counts their changes

Importing this connects to nothing: `lookout.database` does, and makes the indexes.
"""

from __future__ import annotations

from enum import Enum

from mongoengine import (
    BinaryField,
    DateTimeField,
    DictField,
    Document,
    IntField,
    ListField,
    StringField,
)

from sepelib.mongo import EnumField, SequentialIdField, SetField

__all__ = [
    "ALIAS",
    "MODELS",
    "Incident",
    "IncidentState",
    "Judge",
    "Kind",
    "Outgoing",
    "Results",
    "Silence",
    "TargetDoc",
    "TargetList",
]

ALIAS = "lookout"
DAY = 86400


class IncidentState(Enum):
    OPEN = "open"
    CLOSED = "closed"


class Kind(Enum):
    """What a mail tells of an incident."""

    OPENED = "opened"
    CLOSED = "closed"


class Judge(Document):  # type: ignore[misc]
    """The only one of its kind. Who finds his own `epoch` and `term` in it still judges.

    term: counts the claims. writes: counts what was written, so that others see that there is news.
    session: in which the judge writes, for the next one to end what it may have left half done.
    """

    meta = {"db_alias": ALIAS, "collection": "judge"}
    ID = "judge"

    id = StringField(primary_key=True)
    epoch = ListField(IntField())
    term = IntField()
    judge = StringField()
    writes = IntField()
    session = BinaryField()


class Incident(Document):  # type: ignore[misc]
    """One outage. epoch: of the judge who wrote it last."""

    meta = {
        "db_alias": ALIAS,
        "collection": "incidents",
        "indexes": [
            {
                "fields": ["target"],
                "unique": True,
                "partialFilterExpression": {"state": IncidentState.OPEN.value},
            }
        ],
    }

    id = SequentialIdField(primary_key=True, format="INC-{}".format)
    target = StringField()
    state = EnumField(IncidentState)
    opened_at = DateTimeField()
    cause = StringField()
    closed_at = DateTimeField()
    closed_because = StringField()
    epoch = ListField(IntField())


class Outgoing(Document):  # type: ignore[misc]
    """A mail by its Message-ID, with its incident as it was then: that one may be forgotten first.

    to: those who have not got it while others have; empty: all who get mails.
    """

    meta = {"db_alias": ALIAS, "collection": "outbox"}

    id = StringField(primary_key=True)
    kind = EnumField(Kind)
    to = SetField(StringField())
    queued_at = DateTimeField()
    incident = StringField()
    target = StringField()
    opened_at = DateTimeField()
    cause = StringField()
    closed_at = DateTimeField()
    closed_because = StringField()


class Results(Document):  # type: ignore[misc]
    """What a replica has found last; written and read as it is, there is much of it."""

    meta = {
        "db_alias": ALIAS,
        "collection": "results",
        "indexes": [{"fields": ["at"], "expireAfterSeconds": DAY}],
    }

    id = StringField(primary_key=True)
    at = DateTimeField()
    version = IntField()
    records = ListField()


class Silence(Document):  # type: ignore[misc]
    """No mails about these *targets*, nor about those with one of these *tags*, until then."""

    meta = {
        "db_alias": ALIAS,
        "collection": "silences",
        "indexes": [{"fields": ["until"], "expireAfterSeconds": 7 * DAY}],
    }

    id = SequentialIdField(primary_key=True, format="SIL-{}".format)
    targets = SetField(StringField())
    tags = SetField(StringField())
    until = DateTimeField(required=True)
    by = StringField()
    reason = StringField()
    created_at = DateTimeField()


class TargetDoc(Document):  # type: ignore[misc]
    """A target by its name. settings: all but its name and its tags, as in the configuration.

    version: the revision of the list with which it became what it is.
    """

    meta = {"db_alias": ALIAS, "collection": "targets"}

    id = StringField(primary_key=True)
    settings = DictField()
    tags = SetField(StringField())
    version = IntField()
    changed_at = DateTimeField()
    by = StringField()


class TargetList(Document):  # type: ignore[misc]
    """The only one of its kind. Each change of the targets is one of its `revision`, too."""

    meta = {"db_alias": ALIAS, "collection": "catalogue"}
    ID = "targets"

    id = StringField(primary_key=True)
    revision = IntField()


MODELS: tuple[type[Document], ...] = (
    Judge,
    Incident,
    Outgoing,
    Results,
    Silence,
    TargetDoc,
    TargetList,
)
