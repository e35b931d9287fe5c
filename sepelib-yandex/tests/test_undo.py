"""What a block has changed is put back, whatever ends it, and never in silence."""

import logging
from contextlib import nullcontext

import gevent
import pytest

from sepelib.util.deadline import Deadline, deadline
from sepelib.yandex._undo import undone
from sepelib.yandex.errors import YandexError

LOG = logging.getLogger("test.undo")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kind", [None, ValueError, Killed, gevent.Timeout, gevent.GreenletExit])
def test_it_is_undone_outside_of_any_deadline(kind: type[BaseException] | None) -> None:
    seen: list[Deadline | None] = []
    with (
        nullcontext() if kind is None else pytest.raises(kind),
        deadline(0.0),
        undone(lambda: seen.append(Deadline.current()), LOG, "left"),
    ):
        if kind is not None:
            raise kind
    assert seen == [None]


@pytest.mark.parametrize("kind", [YandexError, ValueError])
def test_an_error_of_it_is_raised_but_never_in_place_of_another(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def undo() -> None:
        raise kind("no way back")

    with pytest.raises(kind, match="no way back"), undone(undo, LOG, "left"):
        pass
    assert not caplog.records
    with pytest.raises(Killed), undone(undo, LOG, "h1 is held"):
        raise Killed
    assert [record.getMessage() for record in caplog.records] == ["h1 is held: no way back"]


def test_a_second_kill_is_raised_and_told(caplog: pytest.LogCaptureFixture) -> None:
    def undo() -> None:
        raise gevent.GreenletExit

    with pytest.raises(gevent.GreenletExit), undone(undo, LOG, "h1 is held"):
        raise Killed
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == "h1 is held: GreenletExit while that was undone"
