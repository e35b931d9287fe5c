"""Who may know whom: read from the sources and from what each distribution declares."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import dists
from tools.dists import Distribution

EVERY = dists.distributions()
# What is imported under another name than it is installed.
INSTALLED_AS = {"bson": "pymongo", "yaml": "pyyaml"}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Dotted names that a module imports, anywhere in it, and whether they run at import."""
    tree = ast.parse(path.read_text("utf-8"))
    lazy = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef) or for_type_checkers(outer)
        for node in ast.walk(outer)
    }
    package = dotted(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in lazy
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{whole}.{alias.name}", id(node) not in lazy


def for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def dotted(path: Path) -> str:
    parts = path.parts[path.parts.index("src") + 1 :]
    return ".".join(parts).removesuffix(".py").removesuffix(".__init__")


def sources(dist: Distribution) -> list[Path]:
    found = sorted((dist.folder / "src").rglob("*.py"))
    assert found, f"{dist.name} has no sources"
    return found


def allowed(dist: Distribution) -> set[str]:
    match dist.short:
        case "util" | "metrics":
            return set()
        case "core" | "subprocess":
            return {"sepelib-util"}
        case _:
            return {"sepelib-core", "sepelib-util"}


@pytest.mark.parametrize("dist", EVERY, ids=lambda d: d.short)
def test_requirements_point_only_to_core_and_util(dist: Distribution) -> None:
    assert dist.siblings <= allowed(dist)


@pytest.mark.parametrize("dist", EVERY, ids=lambda d: d.short)
def test_sources_import_only_what_their_distribution_declares(dist: Distribution) -> None:
    declared = {dists.requirement_name(r) for r in dist.requires}
    for path in sources(dist):
        extra = dist.optional_modules.get(dotted(path))
        here = declared | {dists.requirement_name(r) for r in dist.extras.get(extra or "", ())}
        for name, _ in imports(path):
            top, *rest = name.split(".")
            if top == "sepelib":
                sibling = f"sepelib-{rest[0]}" if rest else "sepelib"
                assert sibling in here | {dist.name}, f"{path}: {name}"
            elif top not in sys.stdlib_module_names:
                assert INSTALLED_AS.get(top, top).lower() in here, f"{path}: {name}"


def test_util_requires_nothing_and_imports_the_standard_library_only() -> None:
    util = dists.by_name("util")
    assert util.requires == []
    for path in sources(util):
        if dotted(path) not in util.optional_modules:
            tops = {name.split(".")[0] for name, _ in imports(path)}
            assert tops <= {*sys.stdlib_module_names, "sepelib"}, path


def test_metrics_requires_nothing_and_subprocess_only_util() -> None:
    assert dists.by_name("metrics").requires == []
    assert [dists.requirement_name(r) for r in dists.by_name("subprocess").requires] == [
        "sepelib-util"
    ]


@pytest.mark.parametrize("dist", EVERY, ids=lambda d: d.short)
def test_imports_inside_a_distribution_run_one_way(dist: Distribution) -> None:
    modules = {dotted(path): path for path in sources(dist)}
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for target, at_import in imports(path):
            known = target if target in modules else target.rpartition(".")[0]
            if at_import and known in modules and known != name:
                graph[name].add(known)
    order: list[str] = []
    while ready := [n for n in graph if n not in order and graph[n] <= set(order)]:
        order += ready
    assert set(order) == set(graph), f"a circle among {sorted(set(graph) - set(order))}"


def test_nobody_owns_the_namespace() -> None:
    assert not list(dists.ROOT.glob("sepelib-*/src/sepelib/__init__.py"))


def test_there_are_the_twelve() -> None:
    assert {d.short for d in EVERY} == {
        *("core", "gevent", "http", "mongo", "zookeeper", "flask"),
        *("rpc", "yandex", "util", "metrics", "vcs", "subprocess"),
    }


def test_requirements_among_the_twelve_are_ranges_around_the_one_version() -> None:
    from packaging.requirements import Requirement

    version = (dists.ROOT / "VERSION").read_text().strip()
    for dist in EVERY:
        for text in dist.requires:
            requirement = Requirement(text)
            if requirement.name.startswith("sepelib-"):
                operators = {s.operator for s in requirement.specifier}
                assert operators == {">=", "<"}, f"{dist.name}: {text}"
                assert requirement.specifier.contains(version), f"{dist.name}: {text}"
