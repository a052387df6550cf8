"""Prices on the console: shown by model, set one at a time."""

import html

import pytest

from app.storage.audit import actions_before
from app.storage.prices import list_prices
from tests.console.running import Console

_PRICE = {"model": "kimi", "since": "2026-01-31", "input": "0.6", "output": "$2.5", "cached": "0.15"}


def test_a_price_is_set_shown_and_written_down(console: Console) -> None:
    """What is left out of cached input costs the same as other input; viewers see it and change nothing."""
    page = "/console/prices"
    with console.signed_in("admin") as admin, console.signed_in("viewer") as viewer:
        assert "No prices." in admin.client.get(page).text
        assert admin.post(page, **_PRICE).headers["location"] == page
        assert admin.post(page, **_PRICE | {"since": "2026-02-28", "cached": " "}).status_code == 303
        shown = viewer.client.get(page).text
        assert shown.index("2026-02-28") < shown.index("2026-01-31")
        for price in ("$0.6", "$2.5", "$0.15"):
            assert f">{price}</td>" in shown
        assert 'name="input"' not in shown
        rows = [(row["model"], row["input"], row["output"], row["cached"]) for row in console.done(list_prices)]
        assert rows == [("kimi", 600, 2500, 150), ("kimi", 600, 2500, 600)]
        assert "One image</th>" not in shown
        images = {"model": "dall-e-3", "since": "2026-01-31", "input": "0", "output": "0", "image": "0.04"}
        assert admin.post(page, **images, cache_write="3.75", character="15").status_code == 303
        shown = viewer.client.get(page).text
        assert "One image</th>" in shown
        for price in ("$0.04", "$3.75", "$15"):
            assert f">{price}</td>" in shown
        row = console.done(list_prices)[0]
        assert (row["image"], row["cache_write"], row["character"], row["search"]) == (40_000_000, 3750, 15_000, 0)
        actions = console.done(actions_before, None, subject="prices")
        assert [one["actor"] for one in actions] == [f"person:{admin.login.login.person_id}"] * 3


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("model", " ", "1 to 200 characters"),
        ("model", "x" * 201, "1 to 200 characters"),
        ("model", "a\x1b[31m", "1 to 200 characters"),
        ("since", "tomorrow", "'tomorrow' is not a date"),
        ("since", "0001-01-01", "'0001-01-01' is not a date"),
        ("input", "", "'' is not a price"),
        ("input", "nan", "'nan' is not a price"),
        ("output", "-1", "'-1' is not a price"),
        ("cached", "1e9", "'1e9' is not a price"),
    ],
)
def test_what_is_no_price_is_refused(console: Console, field: str, text: str, message: str) -> None:
    """By what is wrong with it, above the form, which keeps what was typed."""
    before = console.done(list_prices)
    with console.signed_in("admin") as admin:
        refused = admin.post("/console/prices", **_PRICE | {field: text})
    assert refused.status_code == 400
    assert message in html.unescape(refused.text)
    assert field == "since" or 'value="2026-01-31"' in refused.text
    assert console.done(list_prices) == before
