"""A reload takes all of the new configuration or nothing of it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pytest

from sepelib.core import config as module
from sepelib.core.config import Config, ConfigError, ConfigTypeError, Diff, DuplicateKeyError
from sepelib.core.exceptions import LogicalError
from sepelib.core.testing import fresh_config

if TYPE_CHECKING:
    from .conftest import Layered

BASE = "web: {port: 80, host: a}\nlog: {level: info}\nhosts: [a]\nn: {{ n }}\n"


@pytest.fixture
def config(layered: Layered) -> Config:
    return layered(BASE, "log: {level: debug}\n", config_context={"n": 1})


def write(name: str, text: str) -> None:
    Path(name).write_text(text)


def test_a_reload_tells_what_is_different(config: Config) -> None:
    write(
        "cfg.yml", "web: {port: 81, x.y: {z: 1}, e: {}}\nlog: {level: info}\nhosts: [b]\nn: {{ n }}"
    )
    write("1.yml", "new: {a: 1, b: {c: 2}}")

    diff = config.reload()

    assert set(diff.changed) == {"web.port", "hosts", "log.level"}
    assert set(diff.added) == {("web", "x.y", "z"), "web.e", "new.a", "new.b.c"}
    assert diff.removed == ("web.host",)
    assert config.get_value("web.port") == 81
    assert [config.get_value(key) for key in diff.added] == [1, {}, 1, 2]


def test_nothing_new_is_a_false_diff_and_calls_nobody(config: Config) -> None:
    calls: list[Diff] = []
    config.on_reload(calls.append)

    diff = config.reload()

    assert diff == ((), (), ()) and not diff
    assert calls == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a: 1", "a: true", (("a",), (), ())),
        ("a: 1", "a: 1.0", (("a",), (), ())),
        ("a: .nan", "a: .nan", ((), (), ())),
        ("a: [1, {b: 2}]", "a: [1, {b: 2}]", ((), (), ())),
        ("a: [1, {b: 2}]", "a: [1, {b: true}]", (("a",), (), ())),
        ("a: {b: 1}", "a: null", (("a",), (), ())),
        ("a: null", "a: {b: {c: 1}}", (("a",), (), ())),
        ("a: {}", "a: {b: {c: 1}}", ((), ("a.b.c",), ())),
        ("a: {b: 1}", "a: {}", ((), (), ("a.b",))),
        ("", "a: {}", ((), ("a",), ())),
        ("a: {b: {}}", "", ((), (), ("a.b",))),
        ("1: x", "1: y", (("1",), (), ())),
        ("a: x", "{{ 'a' }}: x  # moved", ((), (), ())),
    ],
)
def test_what_counts_as_a_difference(
    layered: Layered, old: str, new: str, expected: tuple[Any, ...]
) -> None:
    config = layered(old)
    write("cfg.yml", new)

    assert config.reload() == expected


def test_a_reload_reads_with_the_arguments_of_the_load(
    layered: Layered, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Mapping[str, Any]] = []
    monkeypatch.setenv("APP_WEB__HOST", "env")
    config = layered(
        BASE,
        config_context={"n": 1},
        env_prefix="APP",
        overrides={"web.port": 1},
        validate=seen.append,
    )
    write("cfg.yml", BASE + "more: {{ n }}")
    monkeypatch.setenv("APP_WEB__HOST", "changed")

    diff = config.reload()

    assert diff == (("web.host",), ("more",), ())
    assert config.get_value("web") == {"port": 1, "host": "changed"}
    assert len(seen) == 2 and seen[1] == config.get()


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: {{ no }}", "- a", "a: [", "web: {port: [1]}"])
def test_a_bad_file_keeps_the_old_tree_and_calls_nobody(config: Config, text: str) -> None:
    calls: list[Diff] = []
    config.on_reload(calls.append)
    before, origin = config.get(), config.explain("web.port")
    write("1.yml", text)

    with pytest.raises(ConfigError):
        config.reload()

    assert config.get() is before
    assert config.explain("web.port") == origin
    assert calls == []
    write("1.yml", "web: {port: 82}")
    assert set(config.reload().changed) == {"web.port", "log.level"}
    assert len(calls) == 1


def test_a_file_that_is_gone_keeps_the_old_tree(config: Config) -> None:
    os.unlink("1.yml")

    with pytest.raises(ConfigError, match=r"^1\.yml: no such file"):
        config.reload()
    assert config.get_value("log.level") == "debug"


def test_what_validate_refuses_keeps_the_old_tree(layered: Layered) -> None:
    def validate(tree: Mapping[str, Any]) -> None:
        if tree["a"] > 1:
            raise ValueError("a is too large")

    config = layered("a: 1", validate=validate)
    calls: list[Diff] = []
    config.on_reload(calls.append)
    write("cfg.yml", "a: 2")

    with pytest.raises(ValueError, match="a is too large"):
        config.reload()
    assert config.get_value("a") == 1 and calls == []
    with pytest.raises(ValueError, match="a is too large"):
        Config().load("cfg.yml", validate=validate)


def test_validate_cannot_change_what_it_sees(layered: Layered) -> None:
    def validate(tree: Any) -> None:
        tree["a"] = 2

    with pytest.raises(TypeError, match="read-only"):
        layered("a: 1", validate=validate)


def test_a_reload_before_a_load_is_a_bug() -> None:
    with pytest.raises(LogicalError, match=r"call config\.load"):
        Config().reload()


def test_callbacks_are_called_for_their_keys_after_the_swap(config: Config) -> None:
    calls: list[tuple[str, Any]] = []
    for name, keys in (
        ("log", ["log"]),
        ("level", ["log.level"]),
        ("tuple", [("log", "level")]),
        ("deeper", ["log.level.x"]),
        ("web", ["web"]),
        ("lo", ["lo"]),
        ("several", ["web", "log"]),
    ):
        config.on_reload(
            lambda diff, name=name: calls.append((name, config.get_value("log.level"))), keys=keys
        )
    config.on_reload(lambda diff: calls.append(("all", diff.changed)))
    write("1.yml", "log: {level: error}")

    config.reload()

    assert calls == [
        *((name, "error") for name in ("log", "level", "tuple", "deeper", "several")),
        ("all", ("log.level",)),
    ]


def test_a_callback_hears_of_a_section_that_comes_or_goes(config: Config) -> None:
    calls: list[Diff] = []
    config.on_reload(calls.append, keys=("new.section", "web.port"))

    write("1.yml", "new: {section: {a: 1}}")
    config.reload()
    write("1.yml", "web: !delete\n")
    config.reload()

    assert [diff.added for diff in calls] == [("new.section.a",), ()]
    assert set(calls[1].removed) == {"new.section.a", "web.port", "web.host"}


def test_one_failing_callback_does_not_stop_the_rest(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Diff] = []

    def fail(diff: Diff) -> None:
        raise ValueError("not now")

    config.on_reload(fail)
    config.on_reload(calls.append)
    write("1.yml", "")

    diff = config.reload()

    assert calls == [diff]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "sepelib.core.config"
    assert "fail" in record.getMessage() and record.exc_info is not None
    assert config.get_value("log.level") == "info"


def test_a_cancelled_callback_is_not_caught(config: Config) -> None:
    class Cancelled(BaseException):
        pass

    def cancel(diff: Diff) -> None:
        raise Cancelled

    config.on_reload(cancel)
    write("1.yml", "")

    with pytest.raises(Cancelled):
        config.reload()
    assert config.get_value("log.level") == "info", "the new tree was in force before"


def test_a_subscription_ends_once_and_alone(config: Config) -> None:
    calls: list[Diff] = []
    end_first, _ = config.on_reload(calls.append), config.on_reload(calls.append)
    write("1.yml", "")
    config.reload()
    assert len(calls) == 2
    end_first()
    end_first()
    write("1.yml", "log: {level: x}")
    config.reload()

    assert len(calls) == 3


def test_a_callback_may_end_itself(config: Config) -> None:
    calls: list[Diff] = []

    def once(diff: Diff) -> None:
        calls.append(diff)
        end()

    end = config.on_reload(once)
    config.on_reload(calls.append)
    for text in ("", "log: {level: x}"):
        write("1.yml", text)
        config.reload()

    assert len(calls) == 3


def test_one_key_for_the_list_of_keys_is_a_bug(config: Config) -> None:
    with pytest.raises(LogicalError, match="keys is a list of keys, not 'log'"):
        config.on_reload(print, keys="log")


def test_a_load_in_its_place_calls_nobody(config: Config) -> None:
    calls: list[Diff] = []
    config.on_reload(calls.append)
    write("cfg.yml", "a: 1")
    config.load("cfg.yml", replace=True)

    assert calls == []


def test_the_functions_of_the_module_reload_the_configuration_of_the_process(
    layered: Layered,
) -> None:
    layered("a: 1\ntoken: x", "a: 2")
    calls: list[Diff] = []
    with fresh_config():
        module.load("cfg.yml", overlays=["1.yml"])
        end = module.on_reload(calls.append, keys=("a",))
        write("1.yml", "a: 3")
        assert module.reload().changed == ("a",)
        assert str(module.explain("a")) == "1.yml:1:4"
        assert module.to_dict() == {"a": 3, "token": "***"}
        assert module.dump(mask=False, fmt="json") == '{\n  "a": 3,\n  "token": "x"\n}\n'
        end()
    assert len(calls) == 1


def test_a_reload_inside_of_an_override_ends_with_it(config: Config) -> None:
    with config.override({"web.port": 1}):
        write("1.yml", "log: {level: error}")
        assert set(config.reload().changed) == {"web.port", "log.level"}
        assert config.get_value("web.port") == 80
    assert config.get_value("log.level") == "debug"


def test_a_value_of_a_bad_type_after_a_reload_names_its_new_place(config: Config) -> None:
    write("1.yml", "\n\nweb: {port: x}")
    config.reload()

    with pytest.raises(ConfigTypeError, match=r"^1\.yml:3:13: web\.port"):
        config.get_value("web.port", type=int)


# Compiled templates


def test_an_unchanged_template_is_compiled_once(
    layered: Layered, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    compile = jinja2.Environment.compile

    def counted(self: jinja2.Environment, source: Any, name: Any = None, *rest: Any) -> Any:
        if name != "one.yml":
            compiled.append(name)
        return compile(self, source, name, *rest)

    monkeypatch.setattr(jinja2.Environment, "compile", counted)
    Path("one.yml").write_text("x: {{ env('X_TEST', 1) }}\n")
    config = layered("a: {{ 1 }}\n{% include 'one.yml' %}", "b: {{ 1 }}")
    monkeypatch.setenv("X_TEST", "2")

    assert config.reload().changed == ("x",), "what a template asks for is asked for anew"
    assert compiled == ["cfg.yml", "1.yml"]
    write("one.yml", "x: 3\ny: {{ 4 }}\ny: {{ 4 }}\n")
    with pytest.raises(DuplicateKeyError, match=r"^one\.yml:3:1: duplicate key 'y', first at one"):
        config.reload()
    assert compiled == ["cfg.yml", "1.yml", "cfg.yml"]
    write("one.yml", "x: 5\n")
    config.reload()
    assert (config.get_value("x"), compiled[3:]) == (5, ["cfg.yml"])
    os.unlink("one.yml")
    with pytest.raises(ConfigError, match=r"^cfg\.yml:2: no file 'one\.yml'"):
        config.reload()


def test_places_and_values_are_the_same_after_many_reloads(layered: Layered) -> None:
    config = layered("{% for n in range(3) %}\nk{{ n }}: {{ n }}\n{% endfor %}end: x\n")
    place = config.explain("k2")
    for _ in range(3):
        assert not config.reload()

    assert config.explain("k2") == place
    assert str(config.explain("end")) == "cfg.yml:3:18"


# Readers and others that reload


def test_readers_see_a_whole_tree_while_others_reload(layered: Layered) -> None:
    config = layered("a: {x: 0, y: 0}\nb: {{ 0 }}")
    done, torn = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            pair = config.get_value("a")
            if pair["x"] != pair["y"]:
                torn.append(pair)
            time.sleep(0)

    def reload() -> None:
        for _ in range(30):
            config.reload()
            time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=each) for each in (read, read, reload, reload)]
    try:
        for thread in threads:
            thread.start()
        for n in range(1, 31):
            write("new.yml", f"a: {{x: {n}, y: {n}}}\nb: {{{{ {n} }}}}")
            os.replace("new.yml", "cfg.yml")
            time.sleep(0)
        for thread in threads[2:]:
            thread.join()
    finally:
        done.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    config.reload()
    assert torn == []
    assert config.get() == {"a": {"x": 30, "y": 30}, "b": 30}


def test_a_slow_reload_does_not_put_an_older_tree_over_a_newer(layered: Layered) -> None:
    config = layered("a: 1")
    turns: list[int] = []

    def validate(tree: Mapping[str, Any]) -> None:
        turns.append(tree["a"])
        if tree["a"] == 2:  # it has read its file, and before it is done another reload is
            write("cfg.yml", "a: 3")
            config.reload()

    config.load("cfg.yml", validate=validate, replace=True)
    write("cfg.yml", "a: 2")

    diff = config.reload()

    assert turns == [1, 2, 3, 3]
    assert config.get_value("a") == 3
    assert not diff, "the other one has told it"
