import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sepelib.util.text import (
    human_duration,
    human_size,
    parse_duration,
    parse_size,
    to_text,
    truncate,
)

steady = settings(derandomize=True, max_examples=200, deadline=None)

NOT_DURATIONS = [
    "",
    " ",
    "s",
    "-5s",
    "+5s",
    "nan",
    "inf",
    "1e3",
    "5x",
    "5S",
    "1m30",
    "30 1m",
    "1,5s",
]
NOT_DURATIONS += ["1s1m", "1s1s", "1us 1µs", "٣s", "1.s", ".5s", "1..5s", "1h-5m", "9" * 401]
NOT_SIZES = [
    "",
    "B",
    "-1",
    "nan",
    "inf",
    "1e3",
    "16M",
    "16K",
    "16Mb",
    "16mib",
    "1KB",
    "1.5",
    "1.5B",
]
NOT_SIZES += ["1kB 1B", "٣kB", "16 M iB", "1 kB x", "9" * 401]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("1m30s", 90.0), ("250ms", 0.25), ("1.5h", 5400.0), ("1d", 86400.0), ("2w", 1209600.0)],
        *[("30", 30.0), ("0", 0.0), ("0s", 0.0), ("0.5", 0.5), (" 1d 12h ", 129600.0)],
        *[("5us", 5e-6), ("5µs", 5e-6), ("5μs", 5e-6), ("7ns", 7e-9), ("1 h 1 ns", 3600.000000001)],
        *[("1.1ms", 0.0011), ("0.3s", 0.3), ("1.5m 0.5s", 90.5), ("00030s", 30.0)],
    ],
)
def test_a_duration_is_read_as_the_nearest_float_of_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", NOT_DURATIONS)
def test_what_is_no_duration_is_named_in_one_line_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration: ") as caught:
        parse_duration(text)

    said = str(caught.value)
    assert repr(text)[:20] in said and "1m30s" in said and "ms" in said
    assert len(said.splitlines()) == 1 and len(said) < 250


def test_a_duration_that_no_float_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration("9" * 400)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[("0", 0), ("4096", 4096), ("512B", 512), ("10kB", 10_000), ("3MB", 3_000_000)],
        *[("16MiB", 16 << 20), ("1.5 GiB", 3 << 29), (" 1TiB ", 1 << 40), ("2PiB", 2 << 50)],
        *[("1GB", 10**9), ("1TB", 10**12), ("1PB", 10**15), ("1KiB", 1024), ("0.3kB", 300)],
        *[("0.0005kB", 1), ("0.0004kB", 0), ("9007199254740993B", 2**53 + 1)],
    ],
)
def test_a_size_is_read_exactly_and_a_fraction_to_the_nearest_byte(text: str, size: int) -> None:
    found = parse_size(text)

    assert found == size and type(found) is int


@pytest.mark.parametrize("text", NOT_SIZES)
def test_what_is_no_size_is_named_in_one_line_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match="not a size: ") as caught:
        parse_size(text)

    said = str(caught.value)
    assert repr(text)[:20] in said and "kB" in said and "MiB" in said
    assert len(said.splitlines()) == 1 and len(said) < 250


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0s"), (90, "1m30s"), (60, "1m"), (59.96, "1m"), (59.94, "59.9s"), (0.25, "250ms")],
        *[(1.5344, "1.53s"), (0.9996, "1s"), (2.5e-7, "250ns"), (9.999e-7, "1us"), (1e-12, "0s")],
        *[(3599.7, "1h"), (7500, "2h5m"), (86399, "1d"), (273600, "3d4h"), (1e9, "11574d2h")],
        *[(-90, "-1m30s"), (-0.0, "0s"), (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")],
        (10**400, "inf"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units_or_three_digits(
    seconds: float, text: str
) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *[(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1.5KiB"), (16 << 20, "16MiB")],
        *[((1 << 20) - 1, "1MiB"), (1023 << 10, "1023KiB"), (123_456, "121KiB"), (2.6, "3B")],
        *[(5 << 60, "5120PiB"), (-1536, "-1.5KiB"), (math.nan, "nan"), (math.inf, "inf")],
        (-(10**400), "-inf"),
    ],
)
def test_a_size_is_shown_in_powers_of_1024_with_three_digits(size: float, text: str) -> None:
    assert human_size(size) == text


@steady
@given(st.floats(0, 1e12))
@example(59.95)
@example(0.99949999)
@example(86_399.5)
def test_what_is_shown_of_a_duration_is_read_back_within_what_it_shows(seconds: float) -> None:
    shown = human_duration(seconds)
    lost = abs(parse_duration(shown) - seconds)

    if seconds < 60:
        assert lost <= max(0.00501 * seconds, 0.501e-9)
    else:
        smaller = 0.5 if seconds < 3600 else 30 if seconds < 86_400 else 1800
        assert lost <= smaller * 1.001


@steady
@given(st.integers(0, 1 << 70))
@example((1 << 20) - 1)
@example(1000 << 10)
def test_what_is_shown_of_a_size_is_read_back_within_half_a_percent(size: int) -> None:
    assert abs(parse_size(human_size(size)) - size) <= 0.00501 * size


@steady
@given(st.one_of(st.floats(0, 1e12), st.integers(0, 1 << 70)))
def test_what_is_shown_and_read_is_shown_the_same(number: float) -> None:
    for show, parse in ((human_duration, parse_duration), (human_size, parse_size)):
        once = show(number)
        assert show(parse(once)) == once


@steady
@given(st.text(alphabet="0123456789. dhmsunwkKMGTPiBµ-\n", max_size=12))
def test_any_text_is_a_number_or_one_line_of_refusal(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            found = parse(text)
        except ValueError as e:
            found, said = 0, str(e)
            assert said.splitlines() == [said]
        assert 0 <= found < math.inf


@pytest.mark.parametrize("parse", [parse_duration, parse_size])
@pytest.mark.parametrize("text", ["1" + " " * 100_000 + "x", "1s" * 50_000, "1." * 50_000])
def test_a_long_text_is_refused_without_delay(parse: Any, text: str) -> None:
    with pytest.raises(ValueError, match="not a ") as caught:
        parse(text)

    assert len(str(caught.value)) < 250


def test_a_cut_text_says_how_much_is_gone() -> None:
    assert truncate("x" * 1000, 30) == "x" * 16 + "...(984 more)"
    assert truncate("x" * 30, 30) == "x" * 30
    assert truncate("abcdef", 3) == "abc"  # no room for the note
    assert truncate("abc", 0) == ""
    with pytest.raises(ValueError, match="-1"):
        truncate("abc", -1)


@pytest.mark.parametrize(
    "cluster",
    [
        "e\u0301",
        "\U0001f469\u200d\U0001f680",
        "\U0001f44d\U0001f3fd",
        "\ud83d\ude00",
        "\u2764\ufe0f",
    ],
    ids=["accent", "joined", "skin tone", "surrogates", "variation"],
)
def test_what_is_seen_as_one_character_is_not_parted(cluster: str) -> None:
    text = cluster * 200
    for length in range(20, 30):
        kept, note, _ = truncate(text, length).partition("...(")
        assert note and len(kept) % len(cluster) == 0
    for length in range(2, 6):
        assert len(truncate(text, length)) % len(cluster) == 0


@steady
@given(st.text(max_size=200), st.integers(0, 150))
def test_a_cut_text_fits_and_begins_as_the_whole(text: str, length: int) -> None:
    cut = truncate(text, length)
    kept, note, count = cut.rpartition("...(")

    assert len(cut) <= length or cut == text
    if note and cut != text:
        assert text.startswith(kept) and int(count.split()[0]) == len(text) - len(kept)
    else:
        assert text.startswith(cut)


def test_a_cut_in_endless_accents_ends() -> None:
    assert truncate("e" + "\u0301" * 1000, 100).startswith("e\u0301")


class Mute:
    def __str__(self) -> str:
        raise ZeroDivisionError


class Sly(str):
    def __str__(self) -> str:
        return self

    def encode(self, *args: object, **options: object) -> bytes:
        raise ZeroDivisionError


class NoText:
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[("a", "a"), (b"\xd0\xbf", "п"), (b"a\xff", "a\\xff"), (bytearray(b"a"), "a"), (5, "5")],
        *[(memoryview(b"abcd")[::2], "ac"), (None, "None"), (ValueError("x"), "x")],
        (Mute(), "<Mute whose text fails with ZeroDivisionError>"),
        (NoText(), "<NoText whose text fails with TypeError>"),
    ],
)
def test_everything_has_a_text(value: object, text: str) -> None:
    assert to_text(value) == text


def test_a_text_is_a_plain_str() -> None:
    assert type(to_text(Sly("a"))) is str


def test_a_released_view_has_a_text() -> None:
    view = memoryview(b"abc")
    view.release()

    assert to_text(view) == "<memoryview whose text fails with ValueError>"


def test_cancellation_passes_through_a_text() -> None:
    class Cancelled:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_text(Cancelled())
