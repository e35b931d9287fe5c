"""Files laid over one another, and where each value comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sepelib.core.config import (
    Config,
    ConfigError,
    ConfigSyntaxError,
    ConfigTemplateError,
    ConfigTypeError,
    MissingValueError,
    Origin,
)
from sepelib.core.exceptions import LogicalError

if TYPE_CHECKING:
    from .conftest import Layered

BASE = """\
web:
  http: {host: localhost, port: 80}
  admin: null
hosts: [a, b]
level: info
"""


def refusal(layered: Layered, *texts: str, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        layered(*texts, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mappings_are_merged_and_all_else_is_replaced(layered: Layered) -> None:
    config = layered(BASE, "web: {http: {port: 81}}\nhosts: [c]\nnew: {x: 1}\n", "level: debug\n")

    assert config.get() == {
        "web": {"http": {"host": "localhost", "port": 81}, "admin": None},
        "hosts": ["c"],
        "level": "debug",
        "new": {"x": 1},
    }


def test_an_overlay_is_a_template_with_the_same_names(layered: Layered, tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_text("level: {{ level }}")

    config = layered(BASE, "{% include 'one.yml' %}", config_context={"level": "debug"})

    assert config.get_value("level") == "debug"
    said = refusal(layered, BASE, "level: info\nweb: {{ wbe }}\n")
    assert said.startswith("1.yml:2:9: 'wbe' is undefined")


def test_an_overlay_may_lie_in_another_directory_and_includes_from_there(
    layered: Layered, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "local.yml").write_text("{% include 'more.yml' %}")
    (tmp_path / "etc" / "more.yml").write_text("level: debug\nweb: 5")

    said = refusal(layered, BASE, overlays=["etc/local.yml"])

    assert said.startswith("etc/more.yml:2:6: web is a single value")


def test_a_missing_overlay_is_an_error(layered: Layered, tmp_path: Path) -> None:
    assert refusal(layered, BASE, overlays=["no.yml"]) == (
        f"no.yml: no such file; the working directory is {tmp_path}"
    )


def test_one_path_for_the_list_of_overlays_is_a_bug(layered: Layered) -> None:
    for overlays in ("1.yml", Path("1.yml")):
        with pytest.raises(LogicalError, match=r"^overlays is a list of paths, not "):
            layered(BASE, overlays=overlays)


def test_an_empty_overlay_changes_nothing(layered: Layered) -> None:
    assert layered(BASE, "", "# nothing\n").get() == layered(BASE).get()


def test_append_adds_to_a_list(layered: Layered) -> None:
    config = layered(BASE, "hosts: !append [c, {n: 1}]", "hosts: !append\n- d\n")

    assert config.get_value("hosts") == ["a", "b", "c", {"n": 1}, "d"]
    assert [str(config.explain(f"hosts.{n}")) for n in range(5)] == [
        *("cfg.yml:4:9", "cfg.yml:4:12", "1.yml:1:17", "1.yml:1:20", "2.yml:2:3"),
    ]
    assert type(config.get_value("hosts")) is type(layered(BASE).get_value("hosts"))


def test_append_to_nothing_or_null_is_the_list(layered: Layered) -> None:
    config = layered(BASE, "web: {admin: !append [x]}\nnew: {list: !append [y]}\n")

    assert config.get_value("web.admin") == ["x"]
    assert config.get_value("new.list") == ["y"]


def test_append_to_something_else_names_both_places(layered: Layered) -> None:
    assert refusal(layered, BASE, "web: !append [x]") == (
        "1.yml:1:6: web is !append over a mapping at cfg.yml:2:3; make both alike"
    )
    assert refusal(layered, BASE, "level: !append [x]").startswith(
        "1.yml:1:8: level is !append over a single value at cfg.yml:5:8"
    )


def test_delete_takes_a_key_away(layered: Layered) -> None:
    config = layered(BASE, "web: {http: {port: !delete }}\nhosts: !delete\n", "hosts: {a: 1}\n")

    assert config.get_value("web.http") == {"host": "localhost"}
    assert config.get_value("hosts") == {"a": 1}, "what is gone may come back as something else"
    with pytest.raises(MissingValueError, match=r"it has host$"):
        config.explain("web.http.port")


def test_delete_of_nothing_is_refused(layered: Layered) -> None:
    said = "no 'web.prot' below, so there is nothing to !delete; remove this line"

    assert refusal(layered, BASE, "level: x\nweb: {prot: !delete }") == f"1.yml:2:13: {said}"
    assert refusal(layered, BASE, "new: {x: !delete }").startswith("1.yml:1:10: no 'new.x' below")


def test_a_tag_that_touches_the_next_sign_is_refused_with_advice(layered: Layered) -> None:
    assert refusal(layered, BASE, "web: {http: !delete}") == (
        "1.yml:1:20: did not find expected whitespace or line break "
        "while scanning a tag that begins at 1.yml:1:13; put a blank after the tag"
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hosts: [a, !delete ]", "1.yml:1:8: "),
        ("hosts:\n- {a: {b: !append [1]}}", "1.yml:2:1: "),
        ("a: &x {b: !append [1]}\nhosts: [*x]", "1.yml:2:8: "),
    ],
)
def test_orders_in_a_list_are_refused(layered: Layered, text: str, place: str) -> None:
    assert refusal(layered, BASE, text) == (
        f"{place}!append or !delete in a list; a list replaces the one below as a whole"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !append [1]", "1:4: !append is for overlays; there is nothing below this file"),
        ("a: !delete", "1:4: !delete is for overlays; there is nothing below this file"),
        ("!secret {a: 1}", "1:1: !secret cannot stand here; "),
        ("{!delete : 1}", "1:2: !delete cannot stand here; "),
        ("{!secret a: 1}", "1:2: !secret cannot stand here; "),
        ("a: !append x", "1:4: !append cannot stand here; "),
        ("a: !append {b: 1}", "1:4: !append cannot stand here; "),
        ("a: !delete x", "1:4: !delete cannot stand here; "),
    ],
)
def test_an_order_where_it_means_nothing_is_refused(
    layered: Layered, text: str, message: str
) -> None:
    assert refusal(layered, text).startswith(f"cfg.yml:{message}")


@pytest.mark.parametrize(
    ("over", "what"),
    [
        ("web: 5", "1.yml:1:6: web is a single value over a mapping at cfg.yml:2:3"),
        ("web: [5]", "1.yml:1:6: web is a list over a mapping at cfg.yml:2:3"),
        ("level: {a: 1}", "1.yml:1:8: level is a mapping over a single value at cfg.yml:5:8"),
        ("hosts: a", "1.yml:1:8: hosts is a single value over a list at cfg.yml:4:8"),
        (
            "web: {http: {port: [1]}}",
            "1.yml:1:20: web.http.port is a list over a single value at cfg.yml:2:33",
        ),
    ],
)
def test_values_of_different_shapes_name_both_places(
    layered: Layered, over: str, what: str
) -> None:
    with pytest.raises(ConfigTypeError) as caught:
        layered(BASE, over)

    assert str(caught.value) == f"{what}; make both alike"
    assert caught.value.snippet == over


def test_null_replaces_anything_and_is_replaced_by_anything(layered: Layered) -> None:
    config = layered(BASE, "web: null\nhosts: ~\nlevel:\n", "web: [1]\nhosts: {a: 1}\n")

    assert config.get() == {"web": [1], "hosts": {"a": 1}, "level": None}


def test_anchors_and_merge_keys_work_in_an_overlay(layered: Layered) -> None:
    config = layered(BASE, "base: &x {port: 1}\nweb: {http: {<<: *x}}\n")

    assert config.get_value("web.http") == {"host": "localhost", "port": 1}


def test_errors_after_a_merge_name_the_file_of_the_value(layered: Layered) -> None:
    config = layered(BASE, "\nweb: {http: {port: x}}\n")

    for key, place in (("web.http.port", "1.yml:2:20"), ("web.http.host", "cfg.yml:2:16")):
        with pytest.raises(ConfigTypeError) as caught:
            config.get_value(key, type=int)
        assert str(caught.value) == f"{place}: {key} must be int, not str"
        assert caught.value.snippet != ""
    with pytest.raises(MissingValueError, match=r"^cfg\.yml:2:9: no 'web\.http\.prot'"):
        config.get_value("web.http.prot")


def test_explain_tells_the_layer_and_what_was_replaced(layered: Layered) -> None:
    os.environ["CFG_WEB__HTTP__PORT"] = "83"
    try:
        config = layered(
            BASE,
            "web: {http: {port: 81}}",
            "\nweb: {http: {port: 82}}",
            env_prefix="CFG",
            overrides={"web.http.port": 84},
        )
    finally:
        del os.environ["CFG_WEB__HTTP__PORT"]

    assert config.get_value("web.http.port") == 84
    origin = config.explain("web.http.port")
    assert origin[:4] == ("override", None, None, "override")
    assert origin.replaced == (
        Origin("environment variable CFG_WEB__HTTP__PORT", None, None, "env"),
        Origin("2.yml", 2, 20, "overlay"),
        Origin("1.yml", 1, 20, "overlay"),
        Origin("cfg.yml", 2, 33, "default"),
    )
    assert [str(each) for each in origin.replaced][1:] == [
        *("2.yml:2:20", "1.yml:1:20", "cfg.yml:2:33"),
    ]


def test_explain_without_overlays_is_the_one_place(layered: Layered) -> None:
    config = layered(BASE)

    assert config.explain("hosts.1") == Origin("cfg.yml", 4, 12, "default")
    assert config.explain("web") == Origin("cfg.yml", 2, 3, "default")
    assert config.explain(()) == Origin("cfg.yml", 1, 1, "default")
    with pytest.raises(MissingValueError, match="did you mean 'level'"):
        config.explain("levle")
    with config.override({"level": 1, "new.x": 2}):
        assert config.explain("level") == Origin(
            None, None, None, "override", (Origin("cfg.yml", 5, 8, "default"),)
        )
        assert config.explain("new.x").layer == "override"
        assert config.explain("hosts") == Origin("cfg.yml", 4, 8, "default")


def test_explain_before_loading_is_a_bug() -> None:
    with pytest.raises(LogicalError, match=r"call config\.load"):
        Config().explain("a")
    with Config().override({"a": 1}):
        pass
    config = Config()
    with config.override({"a": 1}):
        assert config.explain(()).layer == config.explain("a").layer == "override"


def test_other_overlays_are_other_arguments(layered: Layered, tmp_path: Path) -> None:
    config = layered(BASE, "level: a", "level: b")

    assert config.load("./cfg.yml", overlays=[tmp_path / "1.yml", "2.yml"]) is config
    for overlays in (["2.yml", "1.yml"], ["1.yml"], []):
        with pytest.raises(LogicalError, match="with other arguments"):
            config.load("cfg.yml", overlays=overlays)


def test_an_overlay_that_is_not_yaml_is_refused_with_its_own_place(layered: Layered) -> None:
    with pytest.raises(ConfigSyntaxError) as caught:
        layered(BASE, "a: 1\na: 2\n")

    assert str(caught.value) == (
        "1.yml:2:1: duplicate key 'a', first at 1.yml:1:1; remove one of them"
    )
    assert refusal(layered, BASE, "- a").startswith("1.yml:1:1: the file holds a list;")


def test_a_template_error_in_an_overlay_is_one(layered: Layered) -> None:
    with pytest.raises(ConfigTemplateError, match=r"^1\.yml:2: "):
        layered(BASE, "a: 1\n{% if %}")
