"""What a process tells about itself."""

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from sepelib.metrics import Registry, process


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    unregister = process.register(made)
    yield made
    unregister()


def value_of(registry: Registry, name: str, *labels: str) -> float:
    (metric,) = (m for m in registry.snapshot()["metrics"] if m["name"] == name)
    (series,) = (s for s in metric["series"] if s["labels"] == list(labels))
    return float(series["value"] if "value" in series else series["count"])


def test_processor_time_grows_with_what_is_computed(registry: Registry) -> None:
    before = value_of(registry, "process_cpu_seconds")
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    grown = value_of(registry, "process_cpu_seconds") - before
    assert 0.05 <= grown < 5
    assert value_of(registry, "process_cpu_seconds") == pytest.approx(time.process_time(), abs=1)


def test_memory_is_that_of_this_process(registry: Registry) -> None:
    before = value_of(registry, "process_resident_memory_bytes")
    ballast = b"x" * (64 << 20)
    grown = value_of(registry, "process_resident_memory_bytes") - before
    assert len(ballast) / 2 < grown < len(ballast) * 2
    assert value_of(registry, "process_virtual_memory_bytes") > before


def test_descriptors_are_counted(registry: Registry) -> None:
    before = value_of(registry, "process_open_fds")
    ends = os.pipe()
    try:
        assert value_of(registry, "process_open_fds") == before + 2
    finally:
        for end in ends:
            os.close(end)
    assert before <= value_of(registry, "process_max_fds")


def test_the_descriptor_of_the_count_itself_is_not_counted() -> None:
    code = (
        "import os\n"
        "from sepelib.metrics import Registry, process\n"
        "registry = Registry(); process.register(registry)\n"
        "os.closerange(3, 100)\n"
        "print(*[m['series'][0]['value'] for m in registry.snapshot()['metrics']\n"
        "        if m['name'] == 'process_open_fds'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_the_start_is_when_the_process_started_and_stays() -> None:
    code = (
        "import time\n"
        "from sepelib.metrics import Registry, process\n"
        "registry = Registry(); process.register(registry)\n"
        "def start():\n"
        "    return next(m['series'][0]['value'] for m in registry.snapshot()['metrics']\n"
        "                if m['name'] == 'process_start_time_seconds')\n"
        "first = start(); time.sleep(0.05)\n"
        "assert start() == first\n"
        "print(first)\n"
    )
    before = time.time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert before - 1 <= float(done.stdout) <= time.time() + 1


def test_native_threads_are_counted() -> None:
    code = (
        "import threading\n"
        "from sepelib.metrics import Registry, process\n"
        "registry = Registry(); process.register(registry)\n"
        "done = threading.Event()\n"
        "threads = [threading.Thread(target=done.wait) for _ in range(3)]\n"
        "for t in threads: t.start()\n"
        "print(*[m['series'][0]['value'] for m in registry.snapshot()['metrics']\n"
        "        if m['name'] == 'process_threads'])\n"
        "done.set()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "4\n"


def test_garbage_collections_and_their_pauses_are_counted(registry: Registry) -> None:
    before = value_of(registry, "python_gc_collections", "2")
    pauses = value_of(registry, "python_gc_pause_seconds", "2")
    collected = value_of(registry, "python_gc_objects_collected", "2")
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    gc.collect()

    assert value_of(registry, "python_gc_collections", "2") == before + 1
    assert value_of(registry, "python_gc_pause_seconds", "2") == pauses + 1
    assert value_of(registry, "python_gc_objects_collected", "2") >= collected + 1


def test_registered_twice_is_as_once_and_unregistered_leaves_nothing(registry: Registry) -> None:
    callbacks = len(gc.callbacks)
    unregister = process.register(registry)
    assert len(gc.callbacks) == callbacks
    resident = value_of(registry, "process_resident_memory_bytes")
    assert resident < 1.5 * value_of(registry, "process_resident_memory_bytes")

    unregister()
    unregister()

    assert len(gc.callbacks) == callbacks - 1
    assert value_of(registry, "process_resident_memory_bytes") == 0
    cpu = value_of(registry, "process_cpu_seconds")
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass
    assert value_of(registry, "process_cpu_seconds") == cpu

    process.register(registry)
    assert value_of(registry, "process_resident_memory_bytes") > 0


def test_a_forked_child_reports_itself(registry: Registry) -> None:
    value_of(registry, "process_start_time_seconds")
    code = (
        "import os, time\n"
        "from sepelib.metrics import Registry, process\n"
        "registry = Registry(); process.register(registry)\n"
        "def value(name):\n"
        "    return next(m['series'][0]['value'] for m in registry.snapshot()['metrics']\n"
        "                if m['name'] == name)\n"
        "while time.process_time() < 0.2: pass\n"
        "start, cpu = value('process_start_time_seconds'), value('process_cpu_seconds')\n"
        "time.sleep(0.1)\n"
        "if os.fork() == 0:\n"
        "    while time.process_time() < 0.1: pass\n"
        "    assert 0.1 <= value('process_cpu_seconds') - cpu < 0.19\n"
        "    assert value('process_start_time_seconds') > start\n"
        "    os._exit(7)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr


def test_what_cannot_be_read_is_left_out_and_the_rest_is_told() -> None:
    code = (
        "import resource\n"
        "from sepelib.metrics import Registry, process\n"
        "registry = Registry(); process.register(registry)\n"
        "registry.snapshot()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\n"
        "registry.snapshot()\n"
        "found = {m['name']: m['series'] for m in registry.snapshot()['metrics']}\n"
        "assert found['process_resident_memory_bytes'] == []\n"
        "assert found['process_max_fds'][0]['value'] == 0\n"
        "assert found['process_cpu_seconds'][0]['value'] > 0\n"
        "assert found['metrics_faults'] != []\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dumps_from_several_threads_count_the_processor_once(registry: Registry) -> None:
    threads = [
        threading.Thread(target=lambda: [registry.snapshot() for _ in range(20)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value_of(registry, "process_cpu_seconds") <= time.process_time()


def test_all_names_are_those_that_dashboards_know(registry: Registry) -> None:
    text = registry.dump("prometheus")[0].decode()
    for name in (
        *("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"),
        *("process_virtual_memory_bytes", "process_max_fds", "process_start_time_seconds"),
        *("process_threads", "python_gc_collections_total", "python_gc_objects_collected_total"),
        "python_gc_objects_uncollectable_total",
    ):
        assert f"\n# TYPE {name} " in f"\n{text}"
