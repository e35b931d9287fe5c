"""Answers that are kept: who waits for another one's load is told so by an error of ours."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sepelib.util.deadline import deadline
from sepelib.yandex.errors import DeadlineExceeded
from sepelib.yandex.testing import YandexFakes

ASKS: dict[str, Callable[[Any], object]] = {
    "staff": lambda client: client.groups_of("ann"),
    "gencfg": lambda client: client.groups(),
    "nanny": lambda client: client.snapshot("web", "snapshot-1"),
}


@pytest.mark.parametrize("service", ASKS)
def test_who_waits_too_long_for_the_load_of_another_one(
    yandex_fakes: YandexFakes, service: str
) -> None:
    yandex_fakes.nanny.add_service("web")
    fake, client, ask = yandex_fakes[service], yandex_fakes.client(service), ASKS[service]
    fake.faults.next("*", delay=1.0)
    found: list[object] = []
    first = threading.Thread(target=lambda: found.append(ask(client)))
    first.start()
    try:
        end = time.monotonic() + 20.0
        while not fake.calls and time.monotonic() < end:
            time.sleep(0.005)
        with pytest.raises(DeadlineExceeded, match=f"{service} .*another caller"), deadline(0.05):
            ask(client)
    finally:
        first.join(20.0)
    assert len(found) == 1 and ask(client) == found[0]
    assert len(fake.calls) == 1
