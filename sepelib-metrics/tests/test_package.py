"""What can be said of this distribution before its code is here."""

from importlib.metadata import metadata

import sepelib.metrics


def test_it_says_what_it_will_hold_and_offers_no_names_yet() -> None:
    doc = sepelib.metrics.__doc__
    assert doc is not None and doc.startswith(metadata("sepelib-metrics")["Summary"])
    assert [name for name in vars(sepelib.metrics) if not name.startswith("_")] == []
