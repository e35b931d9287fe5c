"""``env``, ``read_file`` and ``|b64`` in a template."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sepelib.core.config import ConfigError, ConfigTemplateError
from sepelib.util.secrets import Secret

if TYPE_CHECKING:
    from .conftest import Load, Refused


def test_a_variable_is_put_in(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DC", "x #y")

    assert load("a: {{ env('DC')|yaml }}\nb: {{ env('NO_SUCH', 5) }}").get() == {
        "a": "x #y",
        "b": 5,
    }


def test_a_default_of_none_is_null_and_not_an_empty_text(load: Load) -> None:
    assert load("a: {{ env('NO_SUCH', none)|yaml }}").get() == {"a": None}


def test_a_variable_that_is_not_set_is_an_error_at_its_place(refused: Refused) -> None:
    error = refused("a: 1\nb: {{ env('NO_SUCH') }}")

    assert str(error) == (
        "cfg.yml:2:7: environment variable NO_SUCH is not set; "
        "set it or write env('NO_SUCH', default)"
    )
    assert isinstance(error, ConfigTemplateError)
    assert error.snippet == "b: {{ env('NO_SUCH') }}"
    assert str(refused("{% include 'x' %}", files={"x": "\na: {{ env('NO_SUCH') }}"})).startswith(
        "x:2:7: environment variable NO_SUCH"
    )


def test_a_name_of_the_context_hides_the_function(load: Load) -> None:
    assert load("a: {{ env }}", env="production").get() == {"a": "production"}


def test_a_file_is_read_beside_the_configuration_without_its_last_line_end(load: Load) -> None:
    files = {"sub/one.yml": "a: {{ read_file('secret')|yaml }}", "secret": "x #y\n\n"}

    assert load("{% include 'sub/one.yml' %}", files=files).get() == {"a": "x #y\n"}


def test_a_file_may_be_anywhere(load: Load, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("run") / "password"
    path.write_text("hunter2")

    assert load("a: {{ read_file(path) }}", path=str(path)).get() == {"a": "hunter2"}


def test_a_file_that_cannot_be_read_is_an_error_at_the_call(
    refused: Refused, load: Load, tmp_path: Path
) -> None:
    assert str(refused("a: 1\nb: {{ 1 }} {{ read_file('no') }}")).startswith(
        "cfg.yml:2:15: read_file('no'): no such file"
    )
    (tmp_path / "big").write_bytes(b"x" * ((1 << 20) + 1))
    assert str(refused("a: {{ read_file('big') }}")) == (
        "cfg.yml:1:7: read_file('big'): is larger than 1048576 bytes"
    )
    (tmp_path / "big").write_bytes(b"x" * (1 << 20))
    assert len(load("a: {{ read_file('big') }}").get_value("a")) == 1 << 20
    assert str(refused("a: {{ read_file('/dev/zero') }}")).endswith("is larger than 1048576 bytes")


def test_the_content_of_a_file_is_in_no_error(refused: Refused) -> None:
    files = {"pw": "hunter22\n"}
    for text in (
        "a: {{ read_file('pw') + 1 }}",
        "a: {{ {}[read_file('pw')] }}",
        "{% include read_file('pw') %}",
        "a: {{ read_file('pw')|int + read_file('pw') }}",
        "a: {{ read_file('pw') }}: x",
        "a: @{{ read_file('pw') }}",
        "a: !{{ read_file('pw') }} x",
        "a: *{{ read_file('pw') }}",
    ):
        error = refused(text, files=files)
        assert "hunter22" not in str(error) + repr(error) + error.snippet
        assert "hunter22" not in "".join(traceback.format_exception(error))


def test_secrets_of_the_context_are_in_no_error(refused: Refused) -> None:
    context: dict[str, Any] = {"db": {"password": "hunter22"}, "token": Secret("tokentoken")}
    for text in (
        "a: {{ {}[db.password] }}",
        "{% include db.password %}",
        "a: {{ [][db.password] }}",
        "a: {{ fail(db['password']) }}",
        "a: {{ fail(token.reveal()) }}",
    ):

        def fail(value: str) -> None:
            raise ValueError(f"what is {value!r}?")

        error = refused(text, fail=fail, **context)
        shown = str(error) + repr(error) + "".join(traceback.format_exception(error))
        assert "hunter22" not in shown and "tokentoken" not in shown


def test_the_words_of_an_error_are_shown_unless_the_line_has_a_secret(refused: Refused) -> None:
    def fail(value: str) -> None:
        raise ValueError(f"what is\n{value!r}?")

    assert str(refused("a: {{ fail('x') }}", fail=fail)) == "cfg.yml:1: ValueError: what is 'x'?"
    assert str(refused("pass: {{ fail('x') }}", fail=fail)) == (
        "cfg.yml:1: ValueError, whose words are not shown on a line with a secret"
    )


def test_base64(load: Load, refused: Refused) -> None:
    text = "a: {{ x|b64 }}\nb: {{ y|b64 }}\nc: {{ 'é'|b64 }}"

    assert load(text, x="user:pass", y=b"\x00\xff").get() == {
        **{"a": "dXNlcjpwYXNz", "b": "AP8=", "c": "w6k="}
    }
    assert str(refused("a: {{ x|b64 }}", x=5)).endswith("|b64 takes text or bytes, not type int")
    assert str(refused("a: {{ x|b64 }}")).startswith("cfg.yml:1:7: 'x' is undefined")


def test_a_secret_object_is_written_as_a_secret(load: Load, refused: Refused) -> None:
    config = load("a: {{ x|yaml }}\nb: [{{ x|yaml }}]", x=Secret("hunter2: #"))

    assert config.get() == {"a": "hunter2: #", "b": ["hunter2: #"]}
    assert config.to_dict() == {"a": "***", "b": ["***"]}
    assert "hunter" not in str(refused("a: {{ x|yaml }}", x=Secret(b"hunter2")))


def test_files_are_found_from_where_the_program_was_when_it_loaded(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"one.yml": "b: {{ read_file('two') }}", "two": "x"}
    config = load("a: 1\n{% include 'one.yml' %}", files=files)
    monkeypatch.chdir("/")

    assert not config.reload()
    (tmp_path / "two").write_text("y")
    assert config.reload().changed == ("b",)
    os.unlink(tmp_path / "cfg.yml")
    with pytest.raises(ConfigError, match=r"^cfg\.yml: no such file; the working directory is /.+"):
        config.reload()
