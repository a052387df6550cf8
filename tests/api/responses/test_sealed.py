"""How a vendor's additions to a thought travel."""

import pytest

from app.api.responses.sealed import sealed, unsealed


def test_what_is_sealed_can_be_unsealed() -> None:
    """Whatever they consist of, the details come back as they were."""
    details = [{"type": "reasoning.text", "text": "Hm, 👋🏽.", "signature": "a+/="}, {"data": None}]
    assert unsealed(sealed(details)) == details


@pytest.mark.parametrize(
    "text", [None, 7, "", "gAAAAABotherwise", "details1.?", "details1.eA", "details1.e30=", "details1.é"]
)
def test_what_others_have_sealed_means_nothing(text: object) -> None:
    """Another vendor's, a broken one and nothing at all are passed over."""
    assert unsealed(text) == []
