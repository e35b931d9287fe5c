"""Change or remove one document and get it, in one atomic step of the server.

`QuerySet.modify` of mongoengine with what it leaves out: transactions, pipelines, sort, hint and
the other options of the command, errors that can be retried. What cannot be honoured is refused
before anything is sent, never dropped.

Like `modify` it goes around the document: no validation of the whole, no signals, no field
defaults. A document that an upsert makes holds the equalities of the query and what the update
sets; what only a new one shall get is said so:

    find_and_modify(
        Counter, {"name": "page"}, {"inc__hits": 1, "set_on_insert__since": now},
        upsert=True, new=True,
    )

A flaw of the embedded test server (0.5.3-beta.165) shows: with new=False and several writers, a
document may come back as it was some changes earlier. The change itself is atomic there, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mongoengine import Document
from mongoengine.base import UPDATE_OPERATORS
from mongoengine.errors import InvalidQueryError, LookUpError, NotUniqueError, OperationError
from mongoengine.queryset import transform
from mongoengine.queryset.base import BaseQuerySet
from mongoengine.queryset.visitor import Q, QNode
from pymongo.errors import DuplicateKeyError, OperationFailure
from pymongo.write_concern import WriteConcern

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession
    from pymongo.collation import Collation
    from pymongo.collection import Collection
    from pymongo.synchronous.mongo_client import MongoClient

    _Dict = dict[str, Any]

__all__ = ["find_and_modify"]

# A lost race is repeated at once: the winner's document is there by then.
_UPSERT_RETRIES = 3


def find_and_modify(
    model: Any,
    query: Mapping[str, Any] | Any | None = None,
    update: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    *,
    sort: str | Sequence[str | tuple[str, int]] | None = None,
    fields: str | Iterable[str] | Mapping[str, int] | None = None,
    upsert: bool = False,
    new: bool = False,
    remove: bool = False,
    array_filters: Sequence[Mapping[str, Any]] | None = None,
    hint: str | Sequence[tuple[str, int]] | None = None,
    collation: Mapping[str, Any] | Collation | None = None,
    let: Mapping[str, Any] | None = None,
    comment: Any = None,
    max_time_ms: int | None = None,
    session: ClientSession | None = None,
    write_concern: Mapping[str, Any] | WriteConcern | None = None,
    raw: bool = False,
) -> Any:
    """The first matching document as it was before, or with *new* is after, the change.

    None when nothing matched, and from an upsert that inserted with new=False. The document is
    clean, of its own subclass, and `save()` updates it; with raw=True it is the dict as stored.

    *model* is a Document class, meaning its whole collection without any manager's filter or
    `meta["ordering"]`, or a queryset, which brings its filter, `order_by`, `only`, `exclude`,
    `hint`, `collation`, `comment`, `max_time_ms`, `as_pymongo` and `no_dereference`; keywords win.
    *query* is a dict in mongoengine's syntax or a Q, in addition to the queryset's.
    *update* has keys of mongoengine (`inc__n`, `set__a`; a bare `a` sets), or operators with
    names of the database (`{"$inc": {"n": 1}}`), or is a list, the stages of a pipeline, also with
    names of the database; so are *hint*, *array_filters* and *let*.
    *sort* ("a", "-a", several, pairs) and *fields* (names, or {name: 0 or 1}) use names of the
    model. A *write_concern* of type dict is laid over the collection's, a WriteConcern replaces it.

    Raises InvalidQueryError or ValueError, with nothing sent, for what cannot be right, and
    ValidationError for a value that its field refuses; NotUniqueError and OperationError for what
    the server refuses, with pymongo's error as the cause. Errors of the network are pymongo's own,
    and so is **every** error inside a transaction, so that `session.with_transaction()` sees the
    labels and tries again.

    Racing upserts make one document and lose no update if a unique index covers what the query
    compares: a duplicate key is tried again 3 times, outside of a transaction. Without the
    index each may insert its own. mongoengine makes the indexes at the first use of a model,
    outside of any session, and lets others pass meanwhile: call its `ensure_indexes()` at the
    start. Greenlets and threads may share everything but *session*.
    """
    if remove:
        if update is not None or upsert or new or array_filters is not None:
            raise ValueError("remove=True excludes an update, upsert, new and array_filters")
    elif not update:
        raise ValueError("neither an update nor remove=True: nothing to do")
    queryset = _queryset(model, query)
    collection = _collection(queryset, write_concern)
    # The one bound to the context too: pymongo would use it, in its transaction.
    session = session or collection.database.client._get_bound_session()
    in_transaction = session is not None and session.in_transaction
    if in_transaction and write_concern is not None:
        raise ValueError("no write_concern inside a transaction: it has its own, for its commit")
    raw = raw or queryset._as_pymongo
    options: dict[str, Any] = {
        "projection": _projection(queryset, fields, raw=raw),
        "sort": _order(queryset, sort),
        "hint": _first(hint, None if queryset._hint == -1 else queryset._hint),
        "collation": _first(collation, queryset._collation),
        "comment": _first(comment, queryset._comment),
        "let": let,
        "session": session,
    }
    if (limit := _first(max_time_ms, queryset._max_time_ms)) is not None:
        options["maxTimeMS"] = limit
    if update is not None:
        options["update"] = _change(queryset, update, upsert=upsert)
        options["array_filters"] = array_filters
        options["return_document"] = bool(new)
    if queryset._none:
        if upsert:
            raise InvalidQueryError("none() matches nothing, and nothing can be inserted for it")
        return None

    def send(query: _Dict, *, upsert: bool = upsert) -> _Dict | None:
        if remove:
            return collection.find_one_and_delete(query, **options)
        return collection.find_one_and_update(query, upsert=upsert, **options)

    try:
        if upsert and not in_transaction:
            found = _upsert(send, queryset._query, collection.database.client)
        else:
            found = send(queryset._query)
    except OperationFailure as error:
        if in_transaction:
            raise
        kind = NotUniqueError if isinstance(error, DuplicateKeyError) else OperationError
        raise kind(f"find_and_modify on {collection.full_name}: {error}") from error
    if found is None or raw:
        return found
    return queryset._document._from_son(found, _auto_dereference=queryset._auto_dereference)


class _Send(Protocol):
    def __call__(self, query: _Dict, *, upsert: bool = ...) -> _Dict | None: ...


def _upsert(send: _Send, query: _Dict, client: MongoClient[Any]) -> _Dict | None:
    one_by_one = _is_embedded(client)
    retries = 0
    while True:
        try:
            return _update_or_insert(send, query) if one_by_one else send(query)
        except DuplicateKeyError:
            if retries == _UPSERT_RETRIES:
                raise
            retries += 1


def _is_embedded(client: MongoClient[Any]) -> bool:
    # SecantusDB, by the name of its replica set: that is known here without asking the server.
    # Of several upserts that race to insert one document it answers some with "null, inserted"
    # though it has updated for them: with new=True a document is missing, without it two callers
    # believe to be the first. Seen in 0.5.3-beta.165 and in 0.7.0b3. Not told apart and thus not
    # helped: a server started with --standalone.
    servers = client.topology_description.server_descriptions().values()
    return any(server.replica_set_name == "secantus" for server in servers)


def _update_or_insert(send: _Send, query: _Dict) -> _Dict | None:
    found = send(query, upsert=False)
    if found is not None:
        return found
    # Every document has an _id: this one can but insert, or meet the duplicate key of the winner.
    return send({"$and": [query, {"_id": {"$exists": False}}]}, upsert=True)


def _queryset(model: Any, query: Mapping[str, Any] | Any | None) -> Any:
    queryset: Any = model
    if not isinstance(model, BaseQuerySet):
        if not _has_a_collection(model):
            raise TypeError(f"neither a queryset nor a document class with a collection: {model!r}")
        queryset = BaseQuerySet(model, model._get_collection())
    refused = {
        "skip": queryset._skip is not None,
        "limit": queryset._limit is not None,
        "slice": queryset._empty,
        "where": queryset._where_clause,
        "scalar": queryset._scalar,
    }
    if any(refused.values()):
        names = ", ".join(name for name, used in refused.items() if used)
        raise InvalidQueryError(f"a queryset with {names} cannot find and modify")
    if query is None:
        return queryset
    if isinstance(query, Mapping):
        query = Q(**query)
    elif not isinstance(query, QNode):
        raise InvalidQueryError(f"the query is neither a dict nor a Q: {query!r}")
    return queryset(query)


def _has_a_collection(model: Any) -> bool:
    is_document = isinstance(model, type) and issubclass(model, Document)
    return is_document and model._get_collection_name() is not None


def _collection(
    queryset: Any, write_concern: Mapping[str, Any] | WriteConcern | None
) -> Collection[Any]:
    collection: Collection[Any] = queryset._collection
    if write_concern is None:
        return collection
    if not isinstance(write_concern, WriteConcern):
        write_concern = WriteConcern(**{**collection.write_concern.document, **write_concern})
    return collection.with_options(write_concern=write_concern)


def _first(wanted: Any, else_this: Any) -> Any:
    return else_this if wanted is None else wanted


def _change(queryset: Any, update: Any, *, upsert: bool) -> Any:
    document = queryset._document
    if isinstance(update, Mapping) and list(update) == ["__raw__"]:
        update = update["__raw__"]
    change: Any
    if isinstance(update, list):
        change = update
    elif not isinstance(update, Mapping) or not all(isinstance(key, str) for key in update):
        raise InvalidQueryError(
            f"the update is neither a dict with names nor a list of stages: {update!r}"
        )
    elif all(key.startswith("$") for key in update):
        change = dict(update)
    elif any(key.startswith("$") or key == "__raw__" for key in update):
        raise InvalidQueryError(f"operators and names of fields in one update: {', '.join(update)}")
    else:
        change = transform.update(document, **{_with_operator(key): update[key] for key in update})
        # Two keys for one path under one operator: mongoengine would keep the last.
        if sum(len(paths) for paths in change.values()) != len(update):
            raise InvalidQueryError(f"two keys of the update change the same: {', '.join(update)}")
    if not change:
        raise ValueError("an empty update: nothing to do")
    return _with_class(queryset, change) if upsert else change


def _with_operator(key: str) -> str:
    # mongoengine takes a bare path of three names for an operator, and a field "max" for $max.
    operator, separator, _ = key.partition("__")
    return key if separator and operator in UPDATE_OPERATORS else f"set__{key}"


def _with_class(queryset: Any, change: Any) -> Any:
    """*change* so that a document it inserts is found as one of the queryset's class again."""
    document = queryset._document
    if not document._meta.get("allow_inheritance"):
        return change
    # $setOnInsert, as $set would turn a subclass document that is found into one of this class.
    for query in (queryset._cls_query, queryset._query_obj.to_query(document)):
        if isinstance(query.get("_cls"), str):
            return change  # the server stores what the query compares for equality
    name = document._class_name
    if isinstance(change, list):
        return [*change, {"$set": {"_cls": {"$ifNull": ["$_cls", name]}}}]
    if any("_cls" in paths for paths in change.values()):
        return change
    return {**change, "$setOnInsert": {**change.get("$setOnInsert", {}), "_cls": name}}


def _order(
    queryset: Any, sort: str | Sequence[str | tuple[str, int]] | None
) -> list[tuple[str, int]] | None:
    if sort is None:
        return queryset._ordering or None  # [] after order_by() without a name
    keys = [sort] if isinstance(sort, str) else sort
    if not isinstance(keys, list | tuple):
        raise InvalidQueryError(f"the sort is neither a name nor a list: {sort!r}")
    return [_sort_key(queryset, key) for key in keys] or None


def _sort_key(queryset: Any, key: str | tuple[str, int]) -> tuple[str, int]:
    match key:
        case str():
            name = key[1:] if key[:1] in ("+", "-") else key
            return _db_name(queryset, name), -1 if key[:1] == "-" else 1
        case (str(name), 1 | -1 as direction):
            return _db_name(queryset, name), direction
    raise InvalidQueryError(f'a sort key is "a", "-a" or ("a", 1 or -1), not {key!r}')


def _projection(
    queryset: Any, fields: str | Iterable[str] | Mapping[str, int] | None, *, raw: bool
) -> dict[str, Any] | None:
    if fields is None:
        shown = queryset._loaded_fields
        projection = shown.as_dict() if shown else {}
    else:
        if not isinstance(fields, Mapping):
            fields = dict.fromkeys([fields] if isinstance(fields, str) else fields, 1)
        projection = {_db_name(queryset, name): kind for name, kind in fields.items()}
        kinds = [kind for name, kind in projection.items() if name != "_id"]
        if not all(kind in (0, 1) and kind == kinds[0] for kind in kinds):
            raise InvalidQueryError(f"fields are all shown (1) or all hidden (0), not {fields!r}")
        if queryset._document._meta.get("allow_inheritance"):
            # Or a subclass document would come back as one of the base class.
            projection.pop("_cls", None)
            if 1 in (kinds or projection.values()):
                projection["_cls"] = 1
    if projection.get("_id") == 0 and not raw:
        raise InvalidQueryError(
            "a document without its id could not be saved; hide it with raw=True"
        )
    return projection or None


def _db_name(queryset: Any, name: str) -> str:
    try:
        (path,) = queryset._fields_to_dbfields([name.replace("__", ".")])
    except LookUpError as error:
        raise InvalidQueryError(str(error)) from error
    return str(path)
