"""The page of the services is what their contract cards say."""

from sepelib.yandex.contract import Card, cards
from tools import yandex_table


def test_the_page_is_what_the_cards_say() -> None:
    assert yandex_table.PAGE.read_text("utf-8") == yandex_table.page(cards()), (
        "run: python tools/yandex_table.py"
    )


def test_a_card_becomes_a_row_and_a_section() -> None:
    card = Card(
        service="iss",
        purpose="this | that",
        confidence="public-code",
        sources=("PORTO",),
        auth="none",
        endpoints=("GET|PUT /v1/x", "GET /v1/y"),
        base_url="https://iss.example",
        inferred=("one", "another"),
    )

    page = yandex_table.page([card])

    row = "| [iss](#iss) | this \\| that | public-code | `https://iss.example` | none |"
    assert row in page.splitlines()
    section = page[page.index("## iss") :]
    assert "`sepelib.yandex.iss.IssClient`, `sepelib.yandex.testing.FakeIss`." in section
    assert "* `GET|PUT /v1/x`\n* `GET /v1/y`\n" in section
    assert "Inferred: one; another.\n\nSources: PORTO.\n" in section
    assert "| PORTO | yandex/porto on GitHub |" in section and "ZNUNY" not in page
