"""Values that YAML 1.1 reads as nobody expects are told, each at its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sepelib.core.config import ConfigSyntaxError
from sepelib.core.exceptions import LogicalError

if TYPE_CHECKING:
    from .conftest import Layered


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NO", "NO is read as the bool false; quote it if it is text, else write false"),
        ("on", "on is read as the bool true; quote it if it is text, else write true"),
        ("0644", "0644 is read as the number 420; quote it if it is text, else write 420"),
        ("1_000", "1_000 is read as the number 1000; quote it if it is text, else write 1000"),
        (
            "12:30:45",
            "12:30:45 is read as the number 45045; quote it if it is text, else write 45045",
        ),
        ("1:30.5", "1:30.5 is read as the number 90.5; quote it if it is text, else write 90.5"),
        ("0b101", "0b101 is read as the number 5; quote it if it is text, else write 5"),
        ("1.10", "1.10 is read as the number 1.1; quote it if it is text, else write 1.1"),
        ("0o644", "0o644 is read as text; quote it if it is text, else write 420"),
        ("1e3", "1e3 is read as text; quote it if it is text, else write 1000.0"),
        ("-1.5E3", "-1.5E3 is read as text; quote it if it is text, else write -1500.0"),
    ],
)
def test_an_ambiguous_value_is_one_warning_with_its_place(
    layered: Layered, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    layered(f"a: 1\nb: [{text}]\n")

    assert caplog.messages == [f"cfg.yml:2:5: {said}"]
    assert [(r.name, r.levelname) for r in caplog.records] == [("sepelib.core.config", "WARNING")]


@pytest.mark.parametrize(
    "text",
    [
        *("true", "False", "TRUE", "0", "-12", "+7", "0x1F", "1.5", "-0.5", "10.0", ".5", "5."),
        *(
            "1.05",
            "1.0e+16",
            "1.5e-7",
            "100.25",
            ".inf",
            "-.inf",
            ".nan",
            "~",
            "null",
            "2020-01-02",
        ),
        *("'NO'", '"0644"', "!!bool yes", "!!int 0644", "!!str NO", "text", "1.2.3", "v1.10"),
        *("127.0.0.1", "10.0.0.0/8", "1m30s", "0o9", "e3", "|\n NO", ">\n 0644", "!secret NO"),
        *("12:3x", "1-2", "no way", "y", "n", "2001:db8::1"),
    ],
)
def test_a_clear_value_is_no_warning(
    layered: Layered, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    layered(f"a: {text}\n")

    assert caplog.messages == []


def test_an_ambiguous_key_is_told_too(layered: Layered, caplog: pytest.LogCaptureFixture) -> None:
    layered("de: 1\nno: 2\n")

    assert caplog.messages == [
        "cfg.yml:2:1: no is read as the bool false; quote it if it is text, else write false"
    ]


def test_a_line_that_a_loop_repeats_is_told_once(
    layered: Layered, caplog: pytest.LogCaptureFixture
) -> None:
    layered("{% for n in range(3) %}\nk{{ n }}: yes\n{% endfor %}\n")

    assert [message.split(" is read")[0] for message in caplog.messages] == ["cfg.yml:2:11: yes"]


def test_the_value_of_an_expression_is_not_shown_and_the_filter_ends_it(
    layered: Layered, caplog: pytest.LogCaptureFixture
) -> None:
    context = {"country": "NO", "mode": "0644"}
    layered("a: {{ country }}\nb: {{ mode|yaml }}\n", config_context=context)

    assert caplog.messages == [
        "cfg.yml:1:4: the value of this expression is read as a bool; write {{ ...|yaml }}"
    ]


def test_the_value_of_a_secret_is_not_shown(
    layered: Layered, caplog: pytest.LogCaptureFixture
) -> None:
    layered("password: 0644\ntokens:\n- 1e3\n")

    assert caplog.messages == [
        "cfg.yml:1:11: this value is read as a number; quote it if it is text",
        "cfg.yml:3:3: this value is read as text; quote it if it is text",
    ]


def test_ambiguous_values_can_be_errors(layered: Layered) -> None:
    with pytest.raises(ConfigSyntaxError) as caught:
        layered("a: 1\n", "\nb: {c: NO}", ambiguous="error")

    assert str(caught.value) == (
        "1.yml:2:8: NO is read as the bool false; quote it if it is text, else write false"
    )
    assert caught.value.snippet == "b: {c: NO}"


def test_ambiguous_values_can_be_meant(layered: Layered, caplog: pytest.LogCaptureFixture) -> None:
    assert layered("a: NO\n", ambiguous="yaml11").get() == {"a": False}
    assert caplog.messages == []


def test_another_word_for_what_to_do_is_a_bug(layered: Layered) -> None:
    with pytest.raises(LogicalError, match=r"ambiguous is one of .*, not 'ignore'"):
        layered("a: NO\n", ambiguous="ignore")


def test_a_load_that_fails_warns_of_nothing(
    layered: Layered, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigSyntaxError):
        layered("a: NO\na: 1\n")

    assert caplog.messages == []
