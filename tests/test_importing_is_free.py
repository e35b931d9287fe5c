"""Importing a module of ours does nothing but define names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import dists

# Runs in a fresh interpreter; prints what importing the module named by argv[1] did.
PROBE = r"""
import builtins, importlib, json, logging, os, select, signal, socket, ssl, subprocess, sys
import threading, time, warnings

did = []
FORBIDDEN = (
    "socket.", "subprocess.", "os.fork", "os.posix_spawn", "os.exec", "os.mkdir", "os.remove",
    "os.rename", "os.rmdir", "tempfile.", "shutil.", "signal.", "os.putenv",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def watch(event, arguments):
    if event.startswith(FORBIDDEN):
        did.append(event)
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
        did.append(f"open for writing: {arguments[0]}")

WATCHED = [builtins, os, select, signal, socket, ssl, subprocess, threading, time]

def attributes():
    return {f"{m.__name__}.{name}": id(value) for m in WATCHED for name, value in vars(m).items()}

def state():
    return {
        "log handlers": len(logging.root.handlers), "log level": logging.root.level,
        "warning filters": len(warnings.filters), "excepthook": id(sys.excepthook),
        "signal handlers": [str(signal.getsignal(n)) for n in signal.valid_signals()],
        "environment": dict(os.environ), "default timeout": socket.getdefaulttimeout(),
    }

for name in sys.argv[2:]:  # what others do when they are imported is not ours
    importlib.import_module(name)
loaded, before, around = set(sys.modules), attributes(), state()
sys.addaudithook(watch)
importlib.import_module(sys.argv[1])
after = attributes()
did += [f"patched {name}" for name in before if before[name] != after.get(name)]
did += [f"changed {key}" for key, value in state().items() if value != around[key]]
did += [f"started thread {t.name}" for t in threading.enumerate()[1:]]
# Without a place: what a compiled one has made while it was loaded.
new = {n for n, m in sys.modules.items() if n not in loaded and getattr(m, "__spec__", None)}
third = {name.split(".")[0] for name in new} - set(sys.stdlib_module_names) - {"sepelib"}
print(json.dumps({"did": did, "loaded": sorted(new), "third": sorted(third)}))
"""


def import_fresh(module: str, *beforehand: str) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", PROBE, module, *beforehand],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def modules() -> list[str]:
    found = []
    for dist in dists.distributions():
        source = dist.folder / "src"
        for path in sorted(source.rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            if parts[-1] != "__main__":
                found.append(".".join(parts).removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("module", modules())
def test_importing_starts_nothing_opens_nothing_and_patches_nothing(module: str) -> None:
    found = import_fresh(module)
    if found["did"] and found["third"]:
        found = import_fresh(module, *found["third"])  # requests opens a socket, for one
    assert found["did"] == []


def test_the_probe_sees_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rude.py").write_text(
        "import logging, socket, threading, time\n"
        "socket.socket().close()\n"
        f"open({str(tmp_path / 'x')!r}, 'w').close()\n"
        "time.sleep = print\n"
        "logging.basicConfig()\n"
        "threading.Thread(target=threading.Event().wait, daemon=True, name='rude').start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    did = " ".join(import_fresh("rude")["did"])

    for sign in ("socket.__new__", "open for writing", "time.sleep", "log handlers", "thread rude"):
        assert sign in did


@pytest.mark.parametrize("module", ["sepelib.zookeeper", "sepelib.mongo", "sepelib.yandex"])
def test_lazy_roots_load_no_third_party(module: str) -> None:
    assert import_fresh(module)["third"] == []


def public_modules_of_util() -> list[str]:
    named = [m for m in modules() if m.startswith("sepelib.util") and "._" not in m]
    return [m for m in named if m != "sepelib.util.pytest_plugin"]


@pytest.mark.parametrize("module", public_modules_of_util())
def test_util_loads_nothing_heavy(module: str) -> None:
    # Counted in modules, not in milliseconds: what makes an import slow is what it drags in.
    heavy = {"asyncio", "concurrent.futures", "email", "http", "inspect", "multiprocessing"}
    heavy |= {"tempfile", "unittest", "urllib.request", "xml", "difflib", "dataclasses"}
    found = import_fresh(module)

    assert heavy.isdisjoint(found["loaded"])
    assert found["third"] == []


def test_a_plugin_for_pytest_loads_no_third_party_beside_pytest_and_its_package() -> None:
    for module in (m for m in modules() if m.endswith(".pytest_plugin")):
        package = module.rpartition(".")[0]
        code = (
            f"import sys, pytest, {package}; before = set(sys.modules); import {module};"
            "new = {m.split('.')[0] for m in set(sys.modules) - before};"
            "sys.exit(' '.join(new - set(sys.stdlib_module_names) - {'sepelib'}) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, f"{module}: {done.stderr}"
