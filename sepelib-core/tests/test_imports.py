"""What an import loads, counted and not timed."""

import subprocess
import sys

import pytest

HEAVY = {"jinja2", "yaml", "pytest", "gevent", "logging", "socket", "threading", "subprocess"}

MODULES = {
    "configuration",
    "difference",
    "errors",
    "frozen",
    "layers",
    "request",
    "secrecy",
    "source",
}
MODULES |= {"source", "units", "values"}


def loaded_after(program: str) -> set[str]:
    """The modules that *program* leaves in a fresh interpreter."""
    child = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(child.stdout.split())


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("from sepelib.core import constants", {"constants"}),
        ("from sepelib.core.exceptions import Error, LogicalError", {"exceptions"}),
        (
            "from sepelib.core import config",
            {
                "config",
                *(f"config.{name}" for name in MODULES),
                "exceptions",
            },
        ),
    ],
)
def test_an_import_loads_nothing_heavy(program: str, expected: set[str]) -> None:
    loaded = loaded_after(program)

    assert not loaded & HEAVY
    loaded -= {"sepelib.util", "sepelib.util.secrets"}
    assert {name for name in loaded if name.startswith("sepelib.")} == {
        "sepelib.core",
        *(f"sepelib.core.{name}" for name in expected),
    }


def test_jinja_is_loaded_by_the_first_file_with_a_tag_and_yaml_by_the_first_file(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    plain = tmp_path_factory.mktemp("plain") / "cfg.yml"
    plain.write_text("a: 1\n")
    templated = tmp_path_factory.mktemp("templated") / "cfg.yml"
    templated.write_text("a: {{ 1 }}\n")
    program = "from sepelib.core import config; config.load({!r})"

    assert loaded_after(program.format(str(plain))) & {"yaml", "jinja2"} == {"yaml"}
    assert loaded_after(program.format(str(templated))) & {"yaml", "jinja2"} == {"yaml", "jinja2"}


def test_testing_needs_no_pytest_and_the_plugin_says_what_it_needs() -> None:
    assert "pytest" not in loaded_after("import sepelib.core.testing")

    child = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['pytest'] = None\n"
         "import sepelib.core.pytest_plugin"],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert child.stderr.splitlines()[-1] == (
        "ImportError: sepelib.core.pytest_plugin needs pytest: pip install 'sepelib-core[pytest]'"
    )
