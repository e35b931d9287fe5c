"""Fields, find_and_modify, sequential ids and a real database for tests, on mongoengine.

    from mongoengine import Document
    from sepelib.mongo import EnumField, SequentialIdField, SetField, connect, find_and_modify

    connect("mongodb://db1,db2,db3/?replicaSet=rs0", name="tickets")

Names load at first use: importing this package imports neither mongoengine nor pymongo.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import MongoDeadlineExceeded as MongoDeadlineExceeded
    from .connection import connect as connect
    from .connection import mongo_check as mongo_check
    from .database import MockDatabase as MockDatabase
    from .database import mock_database as mock_database
    from .delta import SetDeltaMixin as SetDeltaMixin
    from .enumfield import EnumField as EnumField
    from .enumfield import UnknownEnumValue as UnknownEnumValue
    from .enumfield import migrate_enum as migrate_enum
    from .errors import AliasTaken as AliasTaken
    from .errors import MongoError as MongoError
    from .errors import MongoMisused as MongoMisused
    from .errors import MongoNotInstalled as MongoNotInstalled
    from .errors import MongoUnavailable as MongoUnavailable
    from .errors import SequenceLostError as SequenceLostError
    from .modify import find_and_modify as find_and_modify
    from .sequence import GaplessSequence as GaplessSequence
    from .sequence import Sequence as Sequence
    from .sequence import SequentialIdField as SequentialIdField
    from .setfield import SetField as SetField
else:
    _HOME = {
        "AliasTaken": "errors",
        "EnumField": "enumfield",
        "GaplessSequence": "sequence",
        "MockDatabase": "database",
        "MongoDeadlineExceeded": "connection",
        "MongoError": "errors",
        "MongoMisused": "errors",
        "MongoNotInstalled": "errors",
        "MongoUnavailable": "errors",
        "Sequence": "sequence",
        "SequenceLostError": "errors",
        "SequentialIdField": "sequence",
        "SetDeltaMixin": "delta",
        "SetField": "setfield",
        "UnknownEnumValue": "enumfield",
        "connect": "connection",
        "find_and_modify": "modify",
        "migrate_enum": "enumfield",
        "mock_database": "database",
        "mongo_check": "connection",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        return value

    def __dir__():
        return sorted(__all__)


__all__ = [
    "AliasTaken",
    "EnumField",
    "GaplessSequence",
    "MockDatabase",
    "MongoDeadlineExceeded",
    "MongoError",
    "MongoMisused",
    "MongoNotInstalled",
    "MongoUnavailable",
    "Sequence",
    "SequenceLostError",
    "SequentialIdField",
    "SetDeltaMixin",
    "SetField",
    "UnknownEnumValue",
    "connect",
    "find_and_modify",
    "migrate_enum",
    "mock_database",
    "mongo_check",
]
