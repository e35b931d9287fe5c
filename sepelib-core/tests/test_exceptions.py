"""The root of the error tree."""

import copy
import pickle

import pytest

from sepelib.core.exceptions import Error, LogicalError


class LockTimeout(Error):
    def __init__(self, path: str, waited: float) -> None:
        super().__init__(path, waited, node="n-1")
        self.path = path
        self.waited = waited

    def __str__(self) -> str:
        return f"{self.path}: not acquired in {self.waited:.1f} s"


def test_the_text_is_the_first_argument_unformatted() -> None:
    assert str(Error("100% of %s", "x")) == "100% of %s"
    assert str(Error({"code": 1})) == "{'code': 1}"
    assert str(Error()) == ""


def test_details_are_kept_beside_the_arguments() -> None:
    error = Error("no answer", 7, host="h", port=80)

    assert error.args == ("no answer", 7)
    assert error.details == {"host": "h", "port": 80}
    assert Error("x").details == {}


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
)
@pytest.mark.parametrize(
    "error",
    [Error("what", 1, host="h"), LogicalError("bug", state="x"), LockTimeout("/lock", 1.5)],
    ids=["Error", "LogicalError", "subclass"],
)
def test_an_error_survives_pickle_and_copy_with_its_details(error: Error, again) -> None:  # type: ignore[no-untyped-def]
    other = again(error)

    assert type(other) is type(error)
    assert (str(other), other.args, other.details) == (str(error), error.args, error.details)
    assert other.__dict__ == error.__dict__


def test_the_details_of_a_copy_are_its_own() -> None:
    error = Error("x", hosts=["a"])

    copy.deepcopy(error).details["hosts"] = []

    assert error.details == {"hosts": ["a"]}


def test_a_logical_error_is_an_error_but_no_error_of_the_world() -> None:
    assert issubclass(LogicalError, Error)
    assert not issubclass(LogicalError, OSError | ValueError)
