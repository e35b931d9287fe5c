"""An error in a configuration names the line of the template, whatever the template did."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import pytest

from sepelib.core.config import ConfigSyntaxError, ConfigTemplateError, DuplicateKeyError
from sepelib.core.config.template import Template

if TYPE_CHECKING:
    from .conftest import Load, Refused


def test_an_undefined_name_is_refused_at_its_line_and_column(refused: Refused) -> None:
    error = refused("a: 1\nb: {{ prot }}\n", port=80)

    assert str(error) == "cfg.yml:2:7: 'prot' is undefined; did you mean 'port'?"
    assert isinstance(error, ConfigTemplateError)
    assert (error.file, error.line, error.column) == ("cfg.yml", 2, 7)
    assert error.snippet == "b: {{ prot }}"


def test_an_undefined_name_like_no_other_says_how_to_define_it(refused: Refused) -> None:
    assert str(refused("a: {{ dc }}")) == (
        "cfg.yml:1:7: 'dc' is undefined; put it into config_context or {% set %} it"
    )


def test_an_undefined_name_is_found_among_several_tags_of_a_line(refused: Refused) -> None:
    error = refused("a: {{ x }}-{{ y }}-{{ x }}", x=1)

    assert str(error).startswith("cfg.yml:1:15: 'y' is undefined")


def test_an_undefined_name_on_a_later_line_of_an_expression_cites_that_line(
    refused: Refused,
) -> None:
    assert str(refused("a: 1\nb: {{\n  1 +\n  dc }}\n")).startswith("cfg.yml:4:3: 'dc' is")


def test_an_undefined_attribute_is_cited_where_it_is_asked_for(refused: Refused) -> None:
    assert str(refused("b: {{ net.prot }}", net={"port": 1})) == (
        "cfg.yml:1:11: 'dict object' has no attribute 'prot'"
    )


def test_an_undefined_name_in_an_if_or_a_for_cites_the_tag(refused: Refused) -> None:
    assert str(refused("a: 1\n{% if dc %}\n{% endif %}")).startswith("cfg.yml:2:7: 'dc'")
    assert str(refused("a: 1\n\n{%- for x in dc %}{% endfor %}")).startswith("cfg.yml:3:14: 'dc'")


def test_an_undefined_name_in_a_filter_cites_the_expression(refused: Refused) -> None:
    assert str(refused("a: 1\nb: {{ dc|yaml }}")).startswith("cfg.yml:2:7: 'dc' is undefined")


def test_a_default_for_an_undefined_name_is_no_error(load: Load) -> None:
    assert load("a: {{ port|default(80) }}").get() == {"a": 80}


def test_an_undefined_name_in_an_included_file_cites_that_file(refused: Refused) -> None:
    files = {"one.yml": 'b: 2\n{% include "two.yml" %}\n', "two.yml": "c: 3\nd: {{ dc }}\n"}

    error = refused("a: 1\n{% include 'one.yml' %}\n", files=files)

    assert str(error).startswith("two.yml:2:7: 'dc' is undefined")
    assert error.snippet == "d: {{ dc }}"


def test_an_undefined_name_in_a_macro_of_another_file_cites_that_file(refused: Refused) -> None:
    files = {"m.yml": "{% macro host(n) %}\nname: {{ n }}\ndc: {{ dc }}\n{% endmacro %}"}

    error = refused("{% from 'm.yml' import host %}\n{{ host('a') }}", files=files)

    assert str(error).startswith("m.yml:3:8: 'dc' is undefined")


def test_a_template_syntax_error_cites_file_and_line(refused: Refused) -> None:
    error = refused("a: 1\n{% include 'one.yml' %}", files={"one.yml": "b: 2\n\nc: {% if %}\n"})

    assert str(error) == "one.yml:3: Expected an expression, got 'end of statement block'"
    assert error.snippet == "c: {% if %}"


def test_a_failing_expression_cites_its_line_and_keeps_its_cause(refused: Refused) -> None:
    error = refused("a: 1\nb: {{ 1 / zero }}", zero=0)

    assert str(error) == "cfg.yml:2: ZeroDivisionError: division by zero"
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_a_missing_include_cites_the_include(refused: Refused) -> None:
    assert str(refused("a: 1\n{% include 'nope.yml' %}")) == (
        "cfg.yml:2: no file 'nope.yml'; files are looked for in ."
    )


def test_a_missing_include_may_be_ignored(load: Load) -> None:
    assert load("a: 1\n{% include 'nope.yml' ignore missing %}").get() == {"a": 1}


def test_files_of_folders_below_are_included_by_their_path_from_the_top(load: Load) -> None:
    files = {"conf.d/a.yml": "{% include 'conf.d/b.yml' %}", "conf.d/b.yml": "b: 1"}

    assert load("{% include './conf.d/a.yml' %}", files=files).get() == {"b": 1}


@pytest.mark.parametrize("name", ["../x.yml", "conf.d/../../x.yml", "/etc/hostname", ".."])
def test_an_include_from_outside_of_the_directory_is_refused(refused: Refused, name: str) -> None:
    error = refused("a: 1\n{% include name ignore missing %}", name=name)

    assert str(error) == (
        f"cfg.yml:2: {name!r} leads out of the directory of the configuration; "
        "name a file in it, without '..'"
    )


def test_files_that_include_each_other_are_refused_with_the_circle(refused: Refused) -> None:
    files = {"one.yml": "b: 2\n{% include 'two.yml' %}", "two.yml": "{% include 'one.yml' %}"}

    assert str(refused("a: 1\n\n{% include 'one.yml' %}", files=files)) == (
        "one.yml:2: this goes in a circle: one.yml:2 -> two.yml:1 -> one.yml:2; cut it open"
    )


def test_a_file_that_includes_itself_a_counted_number_of_times_is_fine(load: Load) -> None:
    text = "k{{ n }}: 1\n{% set n = n - 1 %}{% if n %}{% include 'cfg.yml' %}{% endif %}"

    assert set(load(text, n=3).get()) == {"k3", "k2", "k1"}


def test_a_duplicate_key_names_both_places(refused: Refused) -> None:
    error = refused("web:\n  port: 1\n  host: a\n  port: 2\n")

    assert (
        str(error) == "cfg.yml:4:3: duplicate key 'port', first at cfg.yml:2:3; remove one of them"
    )
    assert isinstance(error, DuplicateKeyError)
    assert (error.key, str(error.first), error.snippet) == ("port", "cfg.yml:2:3", "  port: 2")


def test_a_duplicate_key_in_an_included_file_names_both_files(refused: Refused) -> None:
    error = refused("a: 1\n{% include 'one.yml' %}", files={"one.yml": "b: 2\na: 3"})

    assert str(error).startswith("one.yml:2:1: duplicate key 'a', first at cfg.yml:1:1;")


def test_a_key_after_an_include_cites_its_own_file_again(refused: Refused) -> None:
    error = refused("a: 1\n{% include 'one.yml' %}\nb: 4\n", files={"one.yml": "b: 2"})

    assert str(error).startswith("cfg.yml:3:1: duplicate key 'b', first at one.yml:1:1;")


def test_a_key_repeated_by_a_loop_cites_the_line_of_the_loop(refused: Refused) -> None:
    error = refused("{% for n in [1, 2] %}\nname: {{ n }}\n{% endfor %}")

    assert str(error).startswith("cfg.yml:2:1: duplicate key 'name', first at cfg.yml:2:1;")


def test_a_key_made_by_an_expression_cites_the_expression(refused: Refused) -> None:
    error = refused("a: 1\n{% if true %}x: 2\n  {%- else %}y: 3{% endif %}\n{{ key }}: 4", key="x")

    assert str(error).startswith("cfg.yml:4:1: duplicate key 'x', first at cfg.yml:2:14;")


def test_lines_are_right_after_whitespace_control(refused: Refused) -> None:
    text = (
        "a: 1   \n\n"
        "  {%- if true %}\n\nb: 2\n{%- endif %}\n"  # b on line 5
        "{#- a\nnote -#}\n\n\n  {{- '\\n' -}}\n\n  b: 3\n"  # and on line 13
    )
    error = refused(text)

    assert str(error).startswith("cfg.yml:13:3: duplicate key 'b', first at cfg.yml:5:1;")


def test_lines_are_right_after_a_value_of_several_lines(refused: Refused) -> None:
    error = refused("a: {{ value }}\nb: 1\nb: 2\n", value='"x\n\n  y"')

    assert str(error).startswith("cfg.yml:3:1: duplicate key 'b', first at cfg.yml:2:1;")


def test_columns_are_right_behind_an_expression(refused: Refused) -> None:
    error = refused("{ {{ x }}: 1, b: {{ x }}, b: 3 }", x="some-long-name")

    assert str(error).startswith("cfg.yml:1:27: duplicate key 'b', first at cfg.yml:1:15;")


def test_an_error_in_the_output_of_a_macro_cites_the_macro(refused: Refused) -> None:
    text = "{% macro m() %}\na: 1\nb: : 2\n{% endmacro %}\n\n{{ m() }}"

    assert str(refused(text)).startswith("cfg.yml:3:4: mapping values are not allowed")


def test_an_error_in_a_captured_block_cites_the_block(refused: Refused) -> None:
    text = "{% set block %}\na: 1\na: 2\n{% endset %}\n\n{{ block }}"

    assert str(refused(text)).startswith("cfg.yml:3:1: duplicate key 'a', first at cfg.yml:2:1;")


def test_an_error_in_the_output_of_a_filter_cites_the_use_of_the_filter(refused: Refused) -> None:
    text = "x: 1\n\n{% filter upper %}\na: 1\na: 2\n{% endfilter %}"
    assert str(refused(text)).startswith("cfg.yml:3: duplicate key 'A', first at cfg.yml:3;")

    text = "{% macro m() %}\na: 1\na: 2\n{% endmacro %}\nx: 1\n{{ m()|lower }}"
    assert str(refused(text)).startswith("cfg.yml:6:1: duplicate key 'a', first at cfg.yml:6:1;")


def test_an_error_in_a_call_block_cites_the_macro_or_the_caller(refused: Refused) -> None:
    text = (
        "{% macro m() %}\na: 1\n{{ caller() }}\n{% endmacro %}\n"
        "{% call m() %}\nb: 1\na: 2{% endcall %}"
    )

    assert str(refused(text)).startswith("cfg.yml:7:1: duplicate key 'a', first at cfg.yml:2:1;")


def test_an_error_in_an_inherited_block_cites_the_file_that_wrote_it(refused: Refused) -> None:
    files = {"base.yml": "a: 1\n{% block more %}b: 1{% endblock %}\nc: 1\n"}
    text = "{% extends 'base.yml' %}\n{% block more %}\nx: 1\n{{ super() }}\nc: 2\n{% endblock %}"

    assert str(refused(text, files=files)).startswith(
        "base.yml:3:1: duplicate key 'c', first at cfg.yml:5:1;"
    )


def test_lines_of_a_raw_block_count(refused: Refused) -> None:
    text = "a: 1\n{% raw %}\nb: '{{ x }}'\nb: 2\n{% endraw %}"

    assert str(refused(text)).startswith("cfg.yml:4:1: duplicate key 'b', first at cfg.yml:3:1;")


def test_a_value_that_is_not_yaml_says_how_to_write_it(refused: Refused) -> None:
    error = refused("a: 1\nb: {{ value }}\n", value="x: y")

    assert isinstance(error, ConfigSyntaxError)
    assert str(error) == (
        "cfg.yml:2:4: mapping values are not allowed in this context; "
        "the value of this expression is not plain YAML, write {{ ...|yaml }}"
    )


def test_marks_do_not_leak_into_values(load: Load) -> None:
    text = (
        "{% set block %}one{% endset %}{% macro m(x) %}<{{ x }}>{% endmacro %}"
        "length: {{ block|length }}\nsame: {{ block == 'one' }}\nset: {{ [block, m(1)]|yaml }}\n"
        "shout: {{ block|upper ~ m(block) }}\n"
        "text: |\n  {% for i in [1, 2] %}line {{ i }}\n  {% endfor %}end {{ m('x') }}\n"
        "{% raw %}raw: '{{ not a tag }}'{% endraw %}\n"
    )

    assert load(text).get() == {
        "length": 3,
        "same": True,
        "set": ["one", "<1>"],
        "shout": "ONE<one>",
        "text": "line 1\nline 2\nend <x>\n",
        "raw": "{{ not a tag }}",
    }
    assert type(load("a: {{ b }}", b="c").get_value("a")) is str


def test_windows_line_ends_and_bom_change_neither_values_nor_places(
    load: Load, refused: Refused
) -> None:
    text = b"\xef\xbb\xbfa: {{ 1 }}\r\nt: |\r\n  x\r\n  y\r\n"

    assert load(text).get() == {"a": 1, "t": "x\ny\n"}
    assert str(refused(text + b"a: 2\r\n")).startswith(
        "cfg.yml:5:1: duplicate key 'a', first at cfg.yml:1:1;"
    )


def test_characters_outside_of_the_basic_plane_count_as_one_column(refused: Refused) -> None:
    error = refused("{'😀é': {{ 1 }}, a: 1, a: 2}")

    assert str(error).startswith("cfg.yml:1:23: duplicate key 'a', first at cfg.yml:1:17;")


def test_other_line_ends_of_unicode_do_not_count_as_lines(refused: Refused) -> None:
    error = refused("a: 'x\u2028y\u0085z'\nb: {{ 1 }}\nb: 2\n")

    assert str(error).startswith("cfg.yml:3:1: duplicate key 'b', first at cfg.yml:2:1;")


def test_a_snippet_and_a_traceback_show_no_secret(refused: Refused) -> None:
    error = refused("password: hunter2 {{ dc }}\n")
    assert error.snippet == "password: ***"
    assert "hunter2" not in "".join(traceback.format_exception(error))

    error = refused("tls:\n  private_key: |\n    hunter2 {{ dc }}\n")
    assert error.snippet == "***"

    error = refused("url: http://bob:hunter2@{{ dc }}/")
    assert error.snippet == "url: http://bob:***@{{ dc }}/"
    assert "hunter2" not in "".join(traceback.format_exception(error))


def test_a_secret_that_looks_like_yaml_is_not_shown(refused: Refused) -> None:
    for text in ("password: !hunter2", "password: *hunter2", "secrets: {a: !hunter2 x}"):
        for error in (refused(text), refused("{# #}" + text)):
            assert "hunter2" not in str(error) + repr(error)
            assert "hunter2" not in "".join(traceback.format_exception(error))


def test_the_snippet_of_a_very_long_line_is_short(refused: Refused) -> None:
    error = refused(f"a: {'x' * 100_000} {{{{ dc }}}}")

    assert str(error).startswith("cfg.yml:1:100008: 'dc' is undefined")
    assert len(error.snippet) <= 120


def test_tags_that_hide_the_columns_leave_the_lines(load: Load, refused: Refused) -> None:
    for tag in ("{% print 1 %}", "{% autoescape false %}1{% endautoescape %}"):
        error = refused("a: " + tag + "\nb: {{ 1 }}\n{{ 'b' }}: 2\n")
        assert str(error).startswith("cfg.yml:3: duplicate key 'b', first at cfg.yml:2:1;")


def test_an_autoescaped_block_escapes_values_only(load: Load) -> None:
    text = "{% autoescape true %}a: '<{{ x }}>'{% endautoescape %}\nb: '<{{ x }}>'"

    assert load(text, x="&").get() == {"a": "<&amp;>", "b": "<&>"}


EVERYTHING = """\
{#- comment
of two lines #}  {% set one = "eins" -%}

  first: {{ one }}, {{ "const" }} and more   {{- " " }}
{%- macro host(name, port=80) -%}
  <{{ name }}:{{ port }}
  {%- if port == 80 %} default{% elif port == 1 %} one{% else %} other{% endif %}>
{%- endmacro %}
{% for n in [1, 2, 3] if n != 2 recursive %}
 loop {{ loop.index }} {{ host(n, n) }} é😀 {{- one -}}
 behind  {% else %} nothing {% endfor %}
{% raw -%}  {{ raw }} {% raw2 %}
  more raw {%- endraw +%} after raw
{% set block %}captured {{ one }}
 in two lines{% endset %}{{ block }}|{{ block|upper }}|{{ block ~ "x" }}
{% macro wrap() %}[{{ caller() }}]{% endmacro %}
{% call wrap() %}call {{ one }}
 body{% endcall %}{% filter lower %}FILTERED
 LINES{% endfilter %} end of filter
{% include "inc/one.yml" %} behind {% include "none.yml" ignore missing %}the include
{% import "macros.yml" as m with context %}{{ m.pair("x") }}{% with y = 5 %}y is {{ y }}
{% endwith %}{{ [1,
  2][0] }} after an expression of two lines {{ "}}" }} 'x' {{ '{%' }} last
{% if false %}never{% endif %}

end without a line end"""


def test_every_copied_character_stands_where_its_place_says(tmp_path: Path) -> None:
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "one.yml").write_text(
        "\n\n included {{ one }}\n  x {% include 'two.yml' %} y"
    )
    (tmp_path / "two.yml").write_text("{{ one }} two {{ one }}")
    (tmp_path / "macros.yml").write_text(
        "\n{% macro pair(a) %}\n<{{ a }}\n{{ one }}>{% endmacro %}"
    )
    (tmp_path / "cfg.yml").write_text(EVERYTHING)
    loader = jinja2.FileSystemLoader(tmp_path)
    bare = jinja2.Environment(loader=loader, keep_trailing_newline=True)

    rendered = Template(str(tmp_path / "cfg.yml"), EVERYTHING).render({})

    assert rendered.text == bare.get_template("cfg.yml").render()
    copied = 0
    for offset, character in enumerate(rendered.text):
        place = rendered.place(offset)
        line = rendered.sources[place.file].split("\n")[(place.line or 0) - 1] + "\n"
        if rendered.is_literal(offset):
            assert place.column is not None
            assert line[place.column - 1] == character
            copied += 1
        elif place.column is not None:
            assert line[place.column - 1 :].startswith("{{")
    assert copied > len(rendered.text) / 2
