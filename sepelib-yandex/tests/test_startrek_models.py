"""What is answered, in whatever form it comes."""

import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from sepelib.yandex import startrek
from sepelib.yandex.model import Record
from sepelib.yandex.startrek import BulkChange, Change, Comment, Issue, Queue, Reference

RECORDS = [
    found
    for name in startrek.__all__
    if isinstance(found := getattr(startrek, name), type) and issubclass(found, Record)
]
STRANGE: list[Any] = [None, True, 7, "text", [], ["text"], {}, {"unknown": 1}]


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("value", STRANGE, ids=repr)
def test_a_record_takes_whatever_comes(kind: type[Record], value: Any) -> None:
    names = ["id", "key", "version", "createdAt", "summonees", "fields", "to", "object", "type"]

    whole, parts = kind.from_dict(value), kind.from_dict(dict.fromkeys(names, value))

    assert whole.raw == (value if isinstance(value, dict) else {"value": value})
    assert parts.raw == dict.fromkeys(names, value)


@pytest.mark.parametrize("value", STRANGE, ids=repr)
def test_an_issue_takes_whatever_comes(value: Any) -> None:
    accessors = [name for name, one in vars(Issue).items() if isinstance(one, property)]
    fields = ["queue", "status", "followers", "aliases", "tags", "createdAt", "version", "parent"]

    issue = Issue.from_dict(dict.fromkeys(fields, value))

    assert len(accessors) > 15 and [getattr(issue, name) for name in accessors]
    assert Issue.from_dict(value).raw == (value if isinstance(value, dict) else {"value": value})


def test_the_attributes_of_an_issue() -> None:
    issue = Issue.from_dict(
        {
            "key": "T-7",
            "previousStatus": {"key": "open"},
            "updatedBy": "ann",
            "createdAt": "2017-06-11T05:16:01.339+0000",
            "updatedAt": "yesterday",
            "room": "B12",
        }
    )

    assert issue.previous_status == Reference.from_dict({"key": "open"})
    assert issue.updated_by == Reference.from_dict("ann") and issue.updated_by.raw == {
        "value": "ann"
    }
    assert issue.created_at == datetime(2017, 6, 11, 5, 16, 1, 339000, tzinfo=UTC)
    assert issue.updated_at == "yesterday" and issue.last_comment_updated_at is None
    assert issue["room"] == "B12" and "priority" not in issue and issue.get("priority") is None
    with pytest.raises(KeyError):
        issue["priority"]
    with pytest.raises(AttributeError):
        issue.room  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(TypeError):
        issue["room"] = "B13"  # type: ignore[index]


def test_an_issue_is_copied_pickled_and_compared_as_a_mapping() -> None:
    issue = Issue.from_dict({"key": "T-7", "tags": ["a"]})

    assert pickle.loads(pickle.dumps(issue)) == copy.deepcopy(issue) == issue
    assert issue == {"key": "T-7", "tags": ["a"]} and repr(issue) == "<Issue T-7>"
    issue.tags.append("b")
    assert issue.tags == ["a"]


def test_records_have_what_is_published_about_them() -> None:
    comment = Comment.from_dict({"id": 626, "longId": "5fa1", "summonees": [{"display": "Bob"}]})
    change = Change.from_dict({"fields": [{"field": {"id": "tags"}}], "updatedBy": {"id": "11"}})

    assert (comment.id, comment.long_id, comment.summonees[0].display) == (626, "5fa1", "Bob")
    assert change.fields == ({"field": {"id": "tags"}},)
    assert change.author is not None and change.author.id == "11"
    assert Queue.from_dict({"key": "T", "version": "five"}).version == "five"
    over = {status: BulkChange.from_dict({"status": status}).over for status in ("CREATED", "X")}
    assert over == {"CREATED": False, "X": False}
