"""Waits for what takes its time end by themselves, whatever the service says of its state."""

import inspect
from typing import Any

import pytest

from sepelib.yandex.errors import WaitTimeout
from sepelib.yandex.testing import YandexFakes

pytestmark = pytest.mark.yandex(transport="both")

WAITS = {
    "alemate": ("wait", ("g",), "get", "status"),
    "center_robot": ("wait", ("7",), "get_command", "status"),
    "clustermaster": ("wait", ("merge",), "target", "state"),
    "iss": ("wait_state", ("web", "7"), "state", "by_actual"),
    "nanny": ("wait_state", ("web", "s", "online"), "current_state", "snapshots"),
}


@pytest.mark.parametrize("service", WAITS)
@pytest.mark.parametrize("state", [["done"], {"a": 1}, None, True, 7, "done?"])
def test_a_wait_without_a_limit_of_its_own_ends(
    yandex_fakes: YandexFakes, service: str, state: object
) -> None:
    method, args, op, field = WAITS[service]
    clock = yandex_fakes.clock
    client: Any = yandex_fakes.client(service, clock=clock, sleep=clock.sleep)
    # A status that is asked for, so that the fake need not know what is waited for.
    fake = yandex_fakes[service]
    fake.strict = False
    fake.faults.on(op, status=200, json={field: state})
    with pytest.raises(WaitTimeout) as caught:
        getattr(client, method)(*args)
    assert caught.value.timeout == 600.0 and 600.0 <= clock.now < 660.0


@pytest.mark.parametrize("service", WAITS)
def test_the_limit_of_a_wait_follows_what_is_waited_for(
    yandex_fakes: YandexFakes, service: str
) -> None:
    method, args, _, _ = WAITS[service]
    client = yandex_fakes.client(service)
    names = [
        name
        for name, parameter in inspect.signature(getattr(client, method)).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert "timeout" in names[len(args) :]
