"""Contract cards."""

import copy
import pickle
from typing import Any

import pytest

from sepelib.yandex import contract
from sepelib.yandex.contract import SERVICES, Card

STAFF: dict[str, Any] = {
    "service": "staff",
    "purpose": "the directory of employees",
    "confidence": "brief",
    "sources": ("BRIEF",),
    "auth": "OAuth",
    "endpoints": ("GET /v3/persons",),
}


def test_a_card_says_what_it_was_given_and_no_more() -> None:
    card = Card(**STAFF)

    assert {name: getattr(card, name) for name in STAFF} == STAFF
    assert card.base_url is None and card.inferred == ()


def test_a_card_copies_and_pickles() -> None:
    card = Card(**{**STAFF, "inferred": ("the names of fields",), "base_url": "https://h"})

    for same in (copy.copy(card), copy.deepcopy(card), pickle.loads(pickle.dumps(card))):
        assert same == card and type(same) is Card


@pytest.mark.parametrize(
    ("confidence", "proposed"),
    [
        ("public-doc", False),
        ("public-code", False),
        ("3rd-party", False),
        ("brief", True),
        ("inferred", True),
    ],
)
def test_a_contract_of_which_nothing_is_public_is_our_proposal(
    confidence: str, proposed: bool
) -> None:
    card = Card(**{**STAFF, "confidence": confidence, "inferred": ("everything",)})

    assert card.proposed is proposed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"service": "stuff"}, "'stuff', which is not in SERVICES"),
        ({"confidence": "rumour"}, "staff: 'rumour' is none of"),
        ({"purpose": ""}, "staff: a contract card needs"),
        ({"auth": ""}, "staff: a contract card needs"),
        ({"endpoints": ()}, "staff: a contract card needs"),
        ({"sources": ()}, "staff: a contract without sources says what is inferred"),
    ],
)
def test_a_card_that_says_too_little_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Card(**{**STAFF, **change})


def test_the_card_of_no_service_is_an_error_with_the_names_of_all() -> None:
    with pytest.raises(ValueError, match=r"'stuff' is no service .*: alemate, .*, tvm"):
        contract.card("stuff")


def test_the_services_are_nineteen_in_the_order_of_their_names() -> None:
    assert len(SERVICES) == 19 and list(SERVICES) == sorted(set(SERVICES))
