"""Answers of the services written by hand from published facts, with where they are from.

They lie in `golden/SERVICE.json`:

    {"samples": [{"name": "issue", "mark": "public-doc", "source": "TRK-DOC",
                  "fact": "what this shows, in words",
                  "status": 200, "headers": {"Link": "…"}, "body": {"key": "T-7"}}]}

with `"text": "…"` instead of `"body"` where the answer is not JSON. The values are ours. A client
is tested by playing a sample, a fake by the shape of its answer:

    fake.faults.play(sample("startrek", "issue").reply)
    assert client.issues.get("T-7").key == "T-7"

    check_shape(fake_answer.json(), sample("startrek", "issue").json)
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, NamedTuple

from ._request import Reply

__all__ = ["Sample", "check_shape", "sample", "samples"]


class Sample(NamedTuple):
    """One answer; *mark* and *source* say how sure it is and who published it."""

    service: str
    name: str
    mark: str
    source: str
    fact: str
    reply: Reply

    @property
    def json(self) -> Any:
        """The body as JSON, None when it is none."""
        return self.reply.json


def samples(service: str) -> list[Sample]:
    """All samples of a service; none when nothing about it is public."""
    file = files(__package__) / "golden" / f"{service}.json"
    if not file.is_file():
        return []
    return [_sample(service, entry) for entry in json.loads(file.read_text("utf-8"))["samples"]]


def sample(service: str, name: str) -> Sample:
    """The sample of that name. KeyError when there is none."""
    for found in samples(service):
        if found.name == name:
            return found
    raise KeyError(f"golden/{service}.json has no sample {name!r}")


def check_shape(actual: object, expected: object, *, where: str = "the answer") -> None:
    """AssertionError unless *actual* has all that *expected* has, of the same kind.

    All keys of objects, in *actual* maybe more; each item of a list as the first expected one; an
    expected null, and an empty list, allow any.
    """
    if expected is None:
        return
    if isinstance(expected, dict):
        _require(isinstance(actual, dict), f"{where} is {actual!r}, not an object")
        assert isinstance(actual, dict)
        for key, value in expected.items():
            _require(key in actual, f"{where} has no {key!r}")
            check_shape(actual[key], value, where=f"{where}.{key}")
    elif isinstance(expected, list):
        _require(isinstance(actual, list), f"{where} is {actual!r}, not a list")
        assert isinstance(actual, list)
        for number, item in enumerate(actual if expected else []):
            check_shape(item, expected[0], where=f"{where}[{number}]")
    else:
        kind = (int, float) if type(expected) in (int, float) else type(expected)
        same = isinstance(actual, kind) and isinstance(actual, bool) is isinstance(expected, bool)
        _require(same, f"{where} is {actual!r}, not as {expected!r}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _sample(service: str, entry: dict[str, Any]) -> Sample:
    status, headers = entry.get("status", 200), entry.get("headers", {})
    if "text" in entry:
        reply = Reply(status, body=entry["text"], headers=headers)
    else:
        reply = Reply(status, json=entry["body"], headers=headers)
    return Sample(service, entry["name"], entry["mark"], entry["source"], entry["fact"], reply)
