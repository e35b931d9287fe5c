"""What is shown: numbers, plots, and the words for who cannot see them."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from lookout import view
from lookout.judge import Rules
from lookout.ledger import Ledger
from lookout.plot import HEIGHT, WIDTH, percentile, plot
from lookout.records import History, Result
from lookout.silences import Silence
from lookout.targets import Target
from lookout.voices import Voices

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def good(latency: float) -> Result:
    return Result(NOON, latency, 200)


SILENT = Result(NOON, 1.0, None, "no complete answer within 1 s")
ERROR = Result(NOON, 0.02, 503, "answered 503 Service Unavailable")


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [0.1, 0.4, 0.2, 0.3]

    assert percentile(values, 0.5) == 0.2
    assert percentile(values, 0.95) == 0.4
    assert percentile([0.7], 0.5) == 0.7
    assert percentile([], 0.5) is None


def test_a_probe_without_an_answer_breaks_the_line_and_is_marked() -> None:
    drawn = plot([good(0.1), good(0.2), SILENT, good(0.1)], 4, None)

    assert [len(line.split()) for line in drawn.lines] == [2, 2]
    assert drawn.lines[1].split()[0] == drawn.lines[1].split()[1]  # one point, drawn as a dot
    assert drawn.failures == [WIDTH * 2.5 / 4]


def test_a_bad_answer_has_a_latency_and_is_marked() -> None:
    drawn = plot([ERROR], 4, None)

    assert len(drawn.lines) == 1
    assert len(drawn.failures) == 1


def test_the_newest_probe_stands_at_the_right_edge() -> None:
    assert plot([SILENT] * 2, 60, None).failures[-1] == WIDTH * 59.5 / 60


@pytest.mark.parametrize(
    ("slowest", "top"),
    [(0.0, 0.001), (0.0101, 0.01), (0.011, 0.02), (0.03, 0.05), (0.7, 1), (7, 10), (1.0, 1)],
)
def test_the_scale_ends_at_a_round_number_and_holds_every_point(slowest: float, top: float) -> None:
    drawn = plot([good(slowest)], 1, None)

    assert drawn.top == pytest.approx(top)
    y = float(drawn.lines[0].split()[0].partition(",")[2])
    assert 0 <= y <= HEIGHT


def test_the_limit_is_drawn_once_answers_come_near_it() -> None:
    assert plot([good(0.01)], 1, 0.5).limit is None
    near = plot([good(0.3)], 1, 0.5).limit
    assert near is not None
    assert 0 <= near <= HEIGHT


def test_a_plot_is_described_in_words() -> None:
    assert plot([], 60, None).description == "No probe yet."
    assert plot([SILENT], 60, None).description == (
        "Latency of the last 1 probes: no answer; 1 failed."
    )
    assert plot([good(0.01), good(0.5), ERROR], 60, None).description == (
        "Latency of the last 3 probes: 10 to 500 ms; 1 failed."
    )


def test_no_answer_at_all_has_no_scale() -> None:
    assert plot([SILENT], 60, 0.5).top is None


def test_the_status_is_json_without_secrets_and_its_state_is_the_worst_of_all() -> None:
    history, ledger = History(), Ledger()
    voices = Voices(history, "r1", lambda target: ("r1",))
    b_url = "http://bob:sesame@b/?token=t0ken"
    targets = [Target("a", "http://a/"), Target("b", b_url, tags=frozenset({"db"}))]
    for _ in range(2):
        history.add("b", SILENT, Rules())
    history.add("a", good(0.1), Rules())
    ledger.judge_target("b", [history.record("b")], Rules())

    silences = [
        Silence(f"SIL-{n}", frozenset({"b"}), frozenset(), end, "ann", "a move", NOON)
        for n, end in enumerate([NOON + timedelta(hours=1), NOON + timedelta(hours=2)], 1)
    ]
    status = view.status(
        targets,
        voices,
        ledger,
        silences=silences,
        origins={"a": "configuration", "b": "svn"},
        now=NOON + timedelta(seconds=90),
    )

    assert status == json.loads(json.dumps(status))
    assert status["state"] == "down"
    a, b = status["targets"]
    assert (a["state"], a["p50"], a["incident"]) == ("up", 0.1, None)
    assert (b["state"], b["p50"], b["incident"]) == ("down", None, "INC-?")
    assert [(t["origin"], t["tags"]) for t in (a, b)] == [("configuration", []), ("svn", ["db"])]
    assert a["silenced"] is None
    assert b["silenced"] == status["silences"][1]  # the one that ends last
    assert b["silenced"]["until"] == "2026-11-23T14:00:00.000+00:00"
    (incident,) = status["open_incidents"]
    assert (incident["id"], incident["duration"]) == ("INC-?", 90.0)
    assert "sesame" not in json.dumps(status)
    assert "t0ken" not in json.dumps(status)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0.0 s"), (9.96, "10.0 s"), (10, "10 s"), (60, "1 min"), (250, "4 min 10 s")),
        *((3600, "1 h"), (3661, "1 h 1 min"), (90000, "1 d 1 h"), (86430, "1 d")),
    ],
)
def test_durations_are_said_in_two_units_at_most(seconds: float, text: str) -> None:
    assert view.duration(seconds) == text


def test_latencies_are_said_in_the_unit_that_fits() -> None:
    assert [view.latency(s) for s in (None, 0.0123, 0.9994, 1.25)] == [
        *("-", "12 ms", "999 ms", "1.2 s")
    ]
