"""Build, install and check the distributions of this tree, and nothing from anywhere else.

    python tools/dists.py list               names, dependencies first
    python tools/dists.py layout             refuse files that would break the namespace
    python tools/dists.py wheels             build what changed, print the wheels
    python tools/dists.py install NAME…      the wheel with its extras and its test group
    python tools/dists.py install --all      everything at once, the examples too
    python tools/dists.py develop            the same, editable, with requirements-dev.txt
    python tools/dists.py check              look into each wheel, import it alone

Our names must never come from an index: a stranger holds one of them on the public one, and an
index beside `--find-links` wins as soon as its version is higher. So every install gets *URL
constraints* (`sepelib-util @ file:///…whl`), which pin each name to a file of this tree, and a
requirement on a `sepelib-` name that the tree does not have is refused before anything is asked.
"""

import contextlib
import email
import fcntl
import graphlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORK = Path(os.environ.get("DISTS_WORK", ROOT / ".tox" / "dists"))
WHEELS = WORK / "wheels"
LOCAL = WORK / "local.txt"  # the URL constraints
PINS = ROOT / "constraints.txt"  # third parties


class Broken(Exception):
    """The tree, or a wheel built from it, breaks a rule; the text is one line for a person."""


@dataclass(frozen=True)
class Distribution:
    """One folder of the tree with a `pyproject.toml`."""

    folder: Path

    @cached_property
    def settings(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text("utf-8"))

    @property
    def name(self) -> str:
        return str(self.settings["project"]["name"])

    @property
    def short(self) -> str:
        return self.name.removeprefix("sepelib-")

    @property
    def package(self) -> str:
        """The dotted name of the one import package inside."""
        return self.name.replace("-", ".")

    @property
    def requires(self) -> list[str]:
        return list(self.settings["project"].get("dependencies", ()))

    @property
    def extras(self) -> dict[str, list[str]]:
        return dict(self.settings["project"].get("optional-dependencies", {}))

    @property
    def test_group(self) -> list[str]:
        return list(self.settings.get("dependency-groups", {}).get("test", ()))

    @property
    def optional_modules(self) -> dict[str, str]:
        """Modules that need an extra, and the extra's name."""
        tool = self.settings.get("tool", {}).get("sepelib", {})
        return dict(tool.get("optional-modules", {}))

    @property
    def siblings(self) -> set[str]:
        """Names of our own that it requires, with or without an extra."""
        optional = [r for extra in self.extras.values() for r in extra]
        names = map(requirement_name, [*self.requires, *self.test_group, *optional])
        return {name for name in names if name.startswith("sepelib")}

    @property
    def all_extras(self) -> str:
        """`[a,b]`, or nothing."""
        return f"[{','.join(self.extras)}]" if self.extras else ""

    def fingerprint(self) -> str:
        """Changes whenever the wheel would."""
        digest = hashlib.sha256((ROOT / "VERSION").read_bytes())
        tops = [self.folder / "pyproject.toml", self.folder / "README.md"]
        for path in sorted([*tops, *self.folder.glob("src/**/*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(self.folder)}\0".encode() + path.read_bytes())
        return digest.hexdigest()


def requirement_name(requirement: str) -> str:
    match = re.match(r"\s*([A-Za-z0-9._-]+)", requirement)
    if match is None:
        raise Broken(f"not a requirement: {requirement!r}")
    return re.sub(r"[-_.]+", "-", match[1]).lower()


def distributions(*, examples: bool = False, root: Path = ROOT) -> list[Distribution]:
    """All of them, dependencies first."""
    folders = [*root.glob("sepelib-*/pyproject.toml")]
    if examples:
        folders += root.glob("examples/*/pyproject.toml")
    found = {d.name: d for d in (Distribution(path.parent) for path in folders)}
    for dist in found.values():
        if strangers := dist.siblings - set(found):
            raise Broken(f"{dist.name} requires {sorted(strangers)}: not in this tree, refused")
    graph = {name: sorted(dist.siblings) for name, dist in sorted(found.items())}
    return [found[name] for name in graphlib.TopologicalSorter(graph).static_order()]


def by_name(name: str) -> Distribution:
    for dist in distributions(examples=True):
        if name in (dist.name, dist.short):
            return dist
    known = ", ".join(d.short for d in distributions())
    raise Broken(f"no distribution {name!r} in this tree; there are: {known}")


def run(*command: object, cwd: Path | None = None) -> str:
    """Output of a command that has to work."""
    done = subprocess.run([str(c) for c in command], text=True, capture_output=True, cwd=cwd)
    if done.returncode:
        shown = " ".join(str(c).strip().partition("\n")[0] for c in command)
        raise Broken(f"{shown}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def uv(*arguments: object) -> None:
    tool = shutil.which("uv")
    if tool is None:
        raise Broken("no uv on PATH: ./dev and tox bring it along, or: pip install uv")
    try:
        # Everything is pinned, so what the cache holds is what the index would give: a second
        # run needs no network.
        run(tool, *arguments, "--quiet", "--offline")
    except Broken:
        run(tool, *arguments, "--quiet")


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """One builder at a time: `tox -p` starts several."""
    WORK.mkdir(parents=True, exist_ok=True)
    with open(WORK / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# All wheels in one process of the backend: twelve isolated builds take twenty times as long.
BUILD = """
import importlib, os, sys
backend = importlib.import_module(sys.argv[1])
for folder in sys.argv[3:]:
    os.chdir(folder)
    print(backend.build_wheel(sys.argv[2]))
"""


def wheels() -> dict[str, Path]:
    """Build the wheels whose sources changed; all wheels by distribution name."""
    dists = distributions(examples=True)
    with exclusive():
        WHEELS.mkdir(exist_ok=True)
        state_file = WORK / "state.json"
        old = json.loads(state_file.read_text()) if state_file.exists() else {}
        new = {d.name: [d.fingerprint(), old.get(d.name, ["", ""])[1]] for d in dists}
        stale = [
            d
            for d in dists
            if old.get(d.name) != new[d.name] or not (WHEELS / new[d.name][1]).is_file()
        ]
        if stale:
            for dist in stale:
                for wheel in WHEELS.glob(f"{dist.name.replace('-', '_')}-*.whl"):
                    wheel.unlink()
            built = build(stale)
            for dist, wheel_name in zip(stale, built, strict=True):
                new[dist.name][1] = wheel_name
            lines = [f"{name} @ {(WHEELS / wheel).as_uri()}\n" for name, (_, wheel) in new.items()]
            LOCAL.write_text("".join(lines))
            state_file.write_text(json.dumps(new))
        return {name: WHEELS / wheel for name, (_, wheel) in new.items()}


def build(dists: Sequence[Distribution]) -> list[str]:
    systems = [d.settings["build-system"] for d in dists]
    if any(system != systems[0] for system in systems):
        raise Broken("the distributions do not share one [build-system]")
    python = WORK / "builder" / "bin" / "python"
    if not python.exists():
        uv("venv", "--python", sys.executable, WORK / "builder")
        uv("pip", "install", "--python", python, "-c", PINS, *systems[0]["requires"])
    folders = [d.folder for d in dists]
    return run(python, "-c", BUILD, systems[0]["build-backend"], WHEELS, *folders).split()


def install(python: Path, *requirements: str) -> None:
    """Our wheels and pinned third parties into the environment of *python*."""
    wheels()
    uv("pip", "install", "--python", python, "-c", LOCAL, "-c", PINS, *requirements)


def install_for_tests(dists: Sequence[Distribution]) -> None:
    tests = [r for d in dists for r in d.test_group]
    install(Path(sys.executable), *(d.name + d.all_extras for d in dists), *tests)


def develop() -> None:
    """Every name is given as a folder of this tree, so none is looked up anywhere."""
    arguments = ["-r", str(ROOT / "requirements-dev.txt")]
    for dist in distributions(examples=True):
        arguments += ["-e", f"{dist.folder}{dist.all_extras}", *dist.test_group]
    uv("pip", "install", "--python", sys.executable, "-c", PINS, *arguments)


def layout(root: Path = ROOT) -> None:
    """What must not exist: each of these has made distributions vanish or tests run twice."""
    bad = [
        *root.glob("sepelib-*/src/sepelib/*.py"),
        *root.glob("sepelib-*/tests/**/__init__.py"),
    ]
    for dist in distributions(root=root):
        for folder in dist.folder.glob("src/sepelib/*/"):
            if folder.name not in (dist.short, "__pycache__"):
                bad.append(folder)
        for needed in ("README.md", f"src/sepelib/{dist.short}/py.typed", "tests"):
            if not (dist.folder / needed).exists():
                raise Broken(f"{dist.name} has no {needed}")
    if bad:
        raise Broken("must not exist: " + " ".join(str(p.relative_to(root)) for p in bad))


# Runs in a bare environment, so it may use nothing but the standard library.
IMPORT = """
import importlib, json, pkgutil, sys
import sepelib
assert getattr(sepelib, "__file__", None) is None, "sepelib is not a namespace"
package, optional, present = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
root = importlib.import_module(package)
names = [package] + [m.name for m in pkgutil.walk_packages(root.__path__, package + ".")]
for name in names:
    if name.endswith(".__main__"):
        continue
    extra = optional.pop(name, None)
    if extra is None or extra in present:
        importlib.import_module(name)
        continue
    wanted = f"pip install '{package.replace('.', '-')}[{extra}]'"
    try:
        importlib.import_module(name)
    except ImportError as error:
        assert wanted in str(error), f"{name}: {error!s} does not say {wanted}"
    else:
        raise AssertionError(f"{name} needs no extra, yet is listed with {extra!r}")
assert not optional, f"listed as optional, but not there: {sorted(optional)}"
"""


def check() -> str:
    """Look into each wheel; import it alone, bare and with each extra."""
    owners: dict[str, str] = {}
    version = (ROOT / "VERSION").read_text().strip()
    built = wheels()
    dists = distributions()
    for dist in dists:
        inspect_wheel(dist, built[dist.name], version, owners)
    with ThreadPoolExecutor() as pool:
        list(pool.map(import_alone, dists))
    return f"{len(dists)} wheels checked, each imported alone"


def inspect_wheel(dist: Distribution, wheel: Path, version: str, owners: dict[str, str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        info = f"sepelib_{dist.short}-{version}.dist-info/"
        metadata = email.message_from_bytes(archive.read(info + "METADATA"))
    if metadata["Version"] != version:
        raise Broken(f"{wheel.name}: version {metadata['Version']}, VERSION says {version}")
    for file in files:
        if not file.startswith((f"sepelib/{dist.short}/", info)):
            raise Broken(f"{wheel.name} ships {file}, which is not its own")
        if owners.setdefault(file, dist.name) != dist.name:
            raise Broken(f"{file} is in {owners[file]} and in {dist.name}")
    for needed in ("__init__.py", "py.typed"):
        if f"sepelib/{dist.short}/{needed}" not in files:
            raise Broken(f"{wheel.name} has no sepelib/{dist.short}/{needed}")


def import_alone(dist: Distribution) -> None:
    for extras in ([], *([extra] for extra in dist.extras)):
        folder = WORK / "alone" / "-".join([dist.short, *extras])
        python = folder / "bin" / "python"
        uv("venv", "--clear", "--python", sys.executable, folder)
        install(python, f"{dist.name}[{extras[0]}]" if extras else dist.name)
        optional, present = json.dumps(dist.optional_modules), json.dumps(extras)
        run(python, "-I", "-W", "error", "-c", IMPORT, dist.package, optional, present, cwd=folder)


def main(arguments: Sequence[str]) -> None:
    match list(arguments):
        case ["list"]:
            print(*(d.short for d in distributions()), sep="\n")
        case ["layout"]:
            layout()
        case ["wheels"]:
            print(*wheels().values(), sep="\n")
        case ["check"]:
            print(check())
        case ["install", "--all"]:
            install_for_tests(distributions(examples=True))
        case ["install", *names] if names:
            install_for_tests([by_name(name) for name in names])
        case ["develop"]:
            develop()
        case _:
            raise Broken(str(__doc__))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Broken as broken:
        sys.exit(str(broken))
