"""Golden samples: how they are read, and what their shape demands."""

import json
from pathlib import Path
from typing import Any

import pytest

import sepelib.yandex.testing
from sepelib.yandex.contract import SERVICES
from sepelib.yandex.testing import FakeService, check_shape, sample, samples

MARKS = {"public-doc", "public-code", "3rd-party"}
GOLDEN = Path(sepelib.yandex.testing.__file__).parent / "golden"


def test_each_sample_lies_with_a_service_and_says_where_it_is_from() -> None:
    for path in GOLDEN.glob("*"):
        assert path.suffix == ".json" and path.stem in SERVICES
        found = samples(path.stem)
        names = [one.name for one in found]
        assert found and len(set(names)) == len(names)
        for one in found:
            assert one.mark in MARKS and one.source and one.fact, (path.stem, one.name)
            assert sample(path.stem, one.name).reply.body == one.reply.body


def test_no_sample_is_read_from_nowhere() -> None:
    assert samples("nowhere") == []
    with pytest.raises(KeyError, match=r"golden/nowhere\.json has no sample 'x'"):
        sample("nowhere", "x")


class FakeNothing(FakeService[None]):
    service = "nothing"

    def new_state(self) -> None:
        return None


def test_a_sample_is_played_as_it_is_written() -> None:
    fake = FakeNothing()
    entry = {"name": "n", "mark": "public-doc", "source": "S", "fact": "f"}
    from sepelib.yandex.testing._golden import _sample

    for more in ({"body": {"a": "ж"}}, {"text": "<doc/>", "status": 500}):
        fake.faults.play(_sample("nothing", {**entry, "headers": {"X-A": "b"}, **more}).reply)

    first, second = (fake.session().get(fake.url + "/x") for _ in range(2))
    assert (first.status_code, first.json(), first.headers["X-A"]) == (200, {"a": "ж"}, "b")
    assert (second.status_code, second.text) == (500, "<doc/>")


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 7}),
        ({"a": 1.5}, {"a": 7}),
        ({"a": "x"}, {"a": None}),
        ([], [{"a": 1}]),
        ([1, "x", None], []),
        ([{"a": 1, "b": 1}, {"a": 2}], [{"a": 3}]),
        ({"a": True, "b": "", "c": {}}, {"a": False, "b": "x", "c": {}}),
        ("x", "y"),
    ],
)
def test_more_and_other_values_fit_a_shape(actual: object, expected: object) -> None:
    check_shape(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        ({"b": 2}, {"a": 7}, "the answer has no 'a'"),
        ({"a": "1"}, {"a": 7}, "the answer.a is '1', not as 7"),
        ({"a": None}, {"a": 7}, "the answer.a is None, not as 7"),
        ({"a": True}, {"a": 7}, "the answer.a is True, not as 7"),
        ({"a": 1}, {"a": True}, "the answer.a is 1, not as True"),
        ([{"a": 1}, {}], [{"a": 1}], r"the answer\[1\] has no 'a'"),
        ({"a": 1}, [1], "not a list"),
        ([1], {"a": 1}, "not an object"),
    ],
)
def test_less_and_other_kinds_do_not(actual: object, expected: object, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_shape(actual, expected)


def test_a_file_of_samples_is_json_that_a_person_can_read() -> None:
    for path in GOLDEN.glob("*.json"):
        text: Any = path.read_text("utf-8")
        assert list(json.loads(text)) == ["samples"] and max(map(len, text.splitlines())) < 320
