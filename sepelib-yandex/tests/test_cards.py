"""Every service says what is known of its contract, and says so where nothing is."""

from importlib import import_module

import pytest

from sepelib.yandex import contract
from sepelib.yandex.contract import SERVICES

PROPOSED = "Proposed contract"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_a_card_of_its_own(service: str) -> None:
    assert contract.card(service).service == service


@pytest.mark.parametrize("service", SERVICES)
def test_a_contract_of_which_nothing_is_public_says_so_in_its_first_line(service: str) -> None:
    first = (import_module(f"sepelib.yandex.{service}").__doc__ or "").partition("\n")[0]

    assert first.startswith(PROPOSED) is contract.card(service).proposed


def test_the_seven_small_ones_are_proposals() -> None:
    small = {
        "alemate",
        "auth_qe",
        "center_robot",
        "clustermaster",
        "its",
        "shardtracker",
        "timeline",
    }

    assert small <= {card.service for card in contract.cards() if card.proposed}


def test_a_public_contract_names_where_it_is_public() -> None:
    for card in contract.cards():
        if card.confidence.startswith("public"):
            assert set(card.sources) - {"BRIEF"}, card.service
