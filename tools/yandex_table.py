"""Write docs/yandex.md: what is known of each service of sepelib.yandex, from its contract card.

python tools/yandex_table.py
"""

from collections.abc import Iterable
from pathlib import Path

from sepelib.yandex.contract import Card, cards
from sepelib.yandex.testing._fakes import TABLE

PAGE = Path(__file__).resolve().parent.parent / "docs" / "yandex.md"

CONFIDENCE = {
    "public-doc": "a published documentation has it",
    "public-code": "code that the owner of the service has published sends or reads it",
    "3rd-party": "a published package, or an issue in public, tells it from use",
    "brief": "names and a few paths are known, and no public source: a **proposed contract** too",
    "inferred": "nothing is public: a **proposed contract**, ours, each path of which can be "
    "configured (`paths`)",
}

SOURCES = {
    "BRIEF": "what was known of the service by name when its client was written; not public",
    "ID-DOC": "the documentation of Yandex ID and of its OAuth, yandex.com/dev/id",
    "PERF": "yandex/perforator on GitHub",
    "PYOTRS": "pyotrs on PyPI",
    "TRK-CLI": "yandex/yandex_tracker_client on GitHub",
    "TRK-DOC": "the API reference of Yandex Tracker",
    "TRK-ISS": "issues of yandex/yandex_tracker_client",
    "TRK-MCP": "yandex-tracker-mcp on PyPI, and its issues",
    "Y360": "the API documentation of Yandex 360",
    "YATOOL": "yandex/yatool on GitHub",
    "YCONN": "yandex-connect on PyPI",
    "YDB-CMS": "the maintenance API in ydb-platform/ydb on GitHub",
    "YDB-POD": "the client of the pod agent in ydb-platform/ydb on GitHub",
    "YDB-TVM": "the client of tvmtool in ydb-platform/ydb on GitHub",
    "YID": "yandexid on PyPI",
    "YMUS": "yandex-music on PyPI",
    "YT-AUTH": "the authentication server in ytsaurus/ytsaurus on GitHub",
    "NWSMTP": "yandex/NwSMTP on GitHub",
    "PORTO": "yandex/porto on GitHub",
    "ZN-PYPI": "znuny on PyPI",
    "ZNUNY": "znuny/Znuny on GitHub",
}


def page(known: list[Card]) -> str:
    """The whole page, in Markdown."""
    names = {row.service: row for row in TABLE}
    used = sorted({source for card in known for source in card.sources})
    parts = [
        "# Services of sepelib.yandex",
        "",
        "Written by `python tools/yandex_table.py` from the contract card in each module:",
        "`sepelib.yandex.contract.cards()`. Change the card, not this page.",
        "",
        *_table(("confidence", "what it means"), CONFIDENCE.items()),
        "",
        "A mark is the best evidence for a service; what is only inferred is listed with it.",
        "",
        *_table(
            ("service", "purpose", "confidence", "likely base URL", "auth"),
            (
                (
                    f"[{card.service}](#{card.service})",
                    card.purpose,
                    card.confidence,
                    f"`{card.base_url}`" if card.base_url else "none known",
                    card.auth,
                )
                for card in known
            ),
        ),
        "",
    ]
    for card in known:
        client, fake = names[card.service].client, names[card.service].fake
        parts += [
            f"## {card.service}",
            "",
            f"`sepelib.yandex.{card.service}.{client}`, `sepelib.yandex.testing.{fake}`.",
            "",
            *(f"* `{endpoint}`" for endpoint in card.endpoints),
            "",
            f"Inferred: {'; '.join(card.inferred) or 'nothing'}.",
            "",
            f"Sources: {', '.join(card.sources) or 'none'}.",
            "",
        ]
    parts += ["## Sources", "", *_table(("", "what"), ((s, SOURCES[s]) for s in used)), ""]
    return "\n".join(parts)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    PAGE.write_text(page(cards()), "utf-8")
