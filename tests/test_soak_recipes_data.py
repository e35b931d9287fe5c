"""The judge of queues, counters and parties: good histories pass, each violation is found."""

from __future__ import annotations

from soak.history import HARNESS
from soak.testing import History

# Queue.


class Items(History):
    def __init__(self) -> None:
        super().__init__("queue")

    def put(self, t: float, item: str, *, stored: bool = True) -> Items:
        self.add(t, 0, "put", item)
        self.add(t + 0.01, 0, "stored" if stored else "unsure", item, error="")
        return self

    def got(
        self, begin: float, end: float, worker: int, item: str, how: str = "acked", node: str = ""
    ) -> Items:
        n = f"{worker}.{begin}"
        self.add(begin - 0.01, worker, "acquire", n, timeout=2.0)
        self.add(begin, worker, "granted", n, token=1, item=item, node=node or f"/queue/{item}")
        for tenth in range(round(begin * 10) + 1, round(end * 10)):
            self.add(tenth / 10, worker, "claim", n, token=1, held=True)
        if how:
            self.add(end, worker, "ack", n)
            self.add(end, worker, "release", n, token=1, took=0.01, how=how)
        return self

    def over(self) -> Items:
        self.add(50.0, HARNESS, "left", names=[])
        return self


def test_items_that_are_got_given_back_and_done_once_are_no_violation() -> None:
    h = Items().put(0.0, "a").put(0.1, "b").put(0.2, "c", stored=False).put(0.3, "d", stored=False)
    h.got(1.0, 1.5, 1, "a").got(1.0, 1.5, 2, "b", "nacked").got(2.0, 2.5, 1, "b", "lost")
    report = h.got(3.0, 3.5, 1, "b").got(4.0, 4.5, 1, "c").over().judged()
    assert report.violations == []
    figures = report.figures["queue"]
    assert (figures["put"], figures["unsure"], figures["done"]) == (2, 2, 3)
    assert figures["redelivered"] == 2


def test_an_item_that_nobody_got_is_lost() -> None:
    assert Items().put(0.0, "a").over().texts() == ["queue: a was put and got by nobody"]
    assert Items().put(0.0, "a", stored=False).over().kinds() == set()
    assert Items().put(0.0, "a").kinds() == set()  # not at its end yet


def test_an_item_that_was_got_and_never_done_is_lost_unless_nobody_knows() -> None:
    assert Items().put(0.0, "a").got(1.0, 1.5, 1, "a", "nacked").over().kinds() == {"lost"}
    assert Items().put(0.0, "a").got(1.0, 1.5, 1, "a", "unsure").over().kinds() == set()
    cut = Items().put(0.0, "a").got(1.0, 1.5, 1, "a", "").fault(1.6, "kill", hit=1).over()
    assert cut.kinds() == {"lost"}
    assert cut.add(1.55, 1, "ack", "1.1.0").kinds() == set()


def test_an_item_that_is_done_twice_is_found() -> None:
    h = Items().put(0.0, "a").got(1.0, 1.5, 1, "a").got(1.0, 1.05, 2, "a").over()
    assert "done twice" in h.kinds()


def test_an_item_that_comes_back_after_it_was_done_is_found() -> None:
    h = Items().put(0.0, "a").got(1.0, 1.5, 1, "a").got(2.0, 2.5, 2, "a", "nacked").over()
    assert h.kinds() == {"again"}
    asked_before = Items().put(0.0, "a").got(1.0, 1.005, 1, "a").over()
    assert asked_before.got(1.011, 1.1, 2, "a", "lost").kinds() == set()


def test_an_item_of_two_holders_is_found_up_to_what_they_believed() -> None:
    h = Items().put(0.0, "a").got(1.0, 2.0, 1, "a", "lost").got(1.6, 2.5, 2, "a").over()
    assert h.texts() == ["queue: a was held by worker 1 for 0.300 s after worker 2 had got it"]
    assert h.fault(1.55, "expire", hit=1).kinds() == set()
    told = Items().put(0.0, "a").got(1.0, 2.0, 1, "a", "lost").got(1.95, 2.5, 2, "a").over()
    assert told.kinds() == set()


def test_an_item_that_is_there_twice_and_one_that_nobody_put_are_found() -> None:
    h = Items().put(0.0, "a").got(1.0, 1.5, 1, "a", "nacked").got(2.0, 2.5, 1, "a", node="/other")
    assert h.over().kinds() == {"doubled"}
    assert Items().got(1.0, 1.5, 1, "a").over().kinds() == {"invented"}


# Counter.


class Adds(History):
    def __init__(self) -> None:
        super().__init__("counter")
        self._n = 0

    def plus(self, t: float, value: int, pre: int | None = None, took: float = 0.1) -> Adds:
        """Not answered without *pre*."""
        self._n += 1
        self.add(t, 0, "add", str(self._n), value=value)
        if pre is None:
            self.add(t + took, 0, "unsure", str(self._n), error="")
        else:
            self.add(t + took, 0, "added", str(self._n), pre=pre, post=pre + value)
        return self

    def value(self, value: int) -> Adds:
        self.add(50.0, 0, "value", "v0", asked=49.9, value=value)
        self.add(50.1, 1, "value", "v1", asked=49.8, value=value)
        return self


def test_a_value_of_all_that_was_acknowledged_and_some_of_the_rest_is_no_violation() -> None:
    h = Adds().plus(0.0, 7, 0).plus(1.0, 100).plus(1.1, 23).plus(2.0, 5, 107).value(112)
    report = h.judged()
    assert report.violations == []
    figures = report.figures["counter"]
    assert (figures["unanswered"], figures["of these done"]) == (2, 1)
    assert Adds().plus(0.0, 7, 0).plus(1.0, 100).plus(1.1, 23).value(130).kinds() == set()


def test_an_add_that_is_done_twice_is_found() -> None:
    h = Adds().plus(0.0, 7, 0).plus(1.0, 100, 107).value(207)
    assert h.texts() == [
        "counter: it grew by 100, of which no unanswered add knows, the size of an acknowledged one"
    ]


def test_an_unanswered_add_explains_one_growth_only_and_none_before_it_was_made() -> None:
    h = Adds().plus(0.0, 7, 0).plus(1.0, 100).plus(2.0, 5, 107)
    assert h.value(112).kinds() == set()
    twice = Adds().plus(0.0, 7, 0).plus(1.0, 100).plus(2.0, 5, 107)
    assert twice.value(212).kinds() == {"sum"}
    before = Adds().plus(0.0, 7, 0).plus(1.0, 5, 107).plus(2.0, 100)
    assert before.value(112).kinds() == {"sum"}


def test_an_acknowledged_add_that_is_not_in_the_value_is_found() -> None:
    assert Adds().plus(0.0, 7, 0).plus(1.0, 5, 7).value(7).kinds() == {"lost"}
    assert Adds().plus(0.0, 7, 0).plus(0.05, 5, 0).value(7).kinds() == {"lost"}


def test_a_value_that_is_read_beside_the_last_adds_may_be_without_them() -> None:
    h = Adds().plus(0.0, 7, 0).plus(1.0, 5, 7)
    assert h.add(1.05, 1, "value", asked=1.02, value=7).value(12).kinds() == set()
    assert h.add(1.25, 1, "value", asked=1.2, value=7).kinds() == {"lost"}


def test_an_add_that_does_not_add_what_it_should_is_found() -> None:
    h = Adds().add(0.0, 0, "add", value=7).add(0.1, 0, "added", pre=0, post=8)
    assert "sum" in h.kinds()


def test_a_value_that_goes_back_in_time_is_found() -> None:
    assert Adds().plus(0.0, 7, 5).plus(1.0, 5, 0).value(12).kinds() == {"order"}
    assert Adds().plus(0.0, 7, 5).plus(0.05, 5, 0).value(12).kinds() == set()


def test_nodes_of_calls_that_were_killed_may_stay_and_no_others() -> None:
    def left(*names: str, killed: bool = True) -> set[str]:
        h = Adds().add(0.0, 0, "add", value=7).add(9.0, HARNESS, "left", names=list(names))
        h.add(9.0, 0, "value", asked=8.0, value=0)
        return (h.fault(0.1, "kill", hit=0) if killed else h.plus(0.1, 5, 0)).kinds()

    assert left("/soak/counter/op-1 of session 0x0") == set()
    assert left("/soak/counter/op-1 of session 0x0", "/soak/counter/op-2") == {"orphan"}
    assert "orphan" in left("/soak/counter/op-1", killed=False)
    assert left("/soak/counter/other") == {"orphan"}


# Party.


class Members(History):
    """Two workers that are healed at 10.0 and stopped at 25.0."""

    def __init__(self) -> None:
        super().__init__("party")
        for worker in (0, 1):
            self.note(0.0, worker, "start", pid=1, life=1)
            self.note(
                0.1, worker, "session", state="CONNECTED", epoch=1, id=70 + worker, password=""
            )
        self.note(10.0, HARNESS, "healed").note(25.0, HARNESS, "stopped")
        for worker in (0, 1):
            self.note(26.0, worker, "idle", pending=0)

    def view(self, t: float, worker: int, *members: str) -> Members:
        self.add(t, worker, "view", members=list(members))
        return self

    def agree(self, t: float) -> Members:
        for tenth in range(0, 100, 5):
            self.view(tenth / 10, 0, "0.1").view(tenth / 10, 1, "0.1")
        self.view(10.5, 0, "0.1").view(10.5, 1, "0.1")
        return self.view(t, 0, "0.1", "1.1").view(t, 1, "1.1", "0.1")

    def truth(self, begin: float, end: float, *sessions: int) -> Members:
        for tenth in range(round(begin * 10), round(end * 10)):
            self.add(tenth / 10, HARNESS, "truth", sessions=list(sessions), took=0.01)
        return self

    def claim(self, begin: float, end: float, worker: int, *, held: bool = True) -> Members:
        for tenth in range(round(begin * 10), round(end * 10)):
            self.add(tenth / 10 + 0.05, worker, "claim", held=held)
        return self


def test_a_party_that_agrees_in_time_is_no_violation() -> None:
    report = Members().agree(12.0).truth(0.0, 9.0, 70, 71).claim(0.5, 9.0, 0).judged()
    assert report.violations == []
    assert report.figures["party"]["agreed"] == 2.0


def test_a_party_that_agrees_late_or_not_or_only_for_a_time_is_found() -> None:
    assert Members().agree(16.5).kinds() == {"view"}
    assert Members().agree(12.0).view(13.0, 1, "1.1").kinds() == {"view"}
    assert Members().agree(12.0).view(13.0, 1, "1.1", "0.1", "2.1").kinds() == {"view"}
    assert Members().agree(12.0).view(13.0, 1, "1.1", "0.1", "0.1").kinds() == {"view"}
    report = Members().agree(12.0).note(9.0, 1, "start", pid=2, life=2).judged()
    assert report.kinds["view"] == 2
    assert report.figures["party"]["agreed"] == -1


def test_who_believes_to_be_a_member_long_after_it_is_none_is_found() -> None:
    def believing(until: float, **more: float) -> Members:
        h = Members().agree(12.0).truth(0.0, 2.0, 70, 71).truth(2.0, 9.0, 71)
        return h.claim(0.5, until, 0)

    assert believing(6.0).kinds() == set()
    report = believing(8.0).judged()
    assert [(v.kind, v.worker) for v in report.violations] == [("absent", 0)]
    assert believing(6.0).claim(6.0, 8.0, 0, held=False).kinds() == set()


def test_who_comes_back_within_the_bound_or_in_another_session_is_present() -> None:
    came_back = {"state": "CONNECTED", "epoch": 2, "id": 99, "password": ""}
    h = Members().agree(12.0).truth(0.0, 3.5, 71).truth(3.5, 9.0, 99, 71).claim(0.5, 9.0, 0)
    assert h.kinds() == {"absent"}
    assert h.note(3.4, 0, "session", **came_back).kinds() == set()
