"""The tree of errors."""

import re

import pytest

from app.domain import errors
from app.domain.errors import GatewayError

_TREE_LINE = re.compile(r"^ {4}(?P<indent>(?:│   |    )*)[├└]── (?P<name>\w+)(?: +(?P<status>\d{3}))?", re.MULTILINE)


def _classes() -> dict[str, type[GatewayError]]:
    members = [member for member in vars(errors).values() if isinstance(member, type)]
    return {
        member.__name__: member for member in members if issubclass(member, GatewayError) and member != GatewayError
    }


def _tree() -> list[tuple[str, str, str | None]]:
    """Name, parent and status of each class that the module's docstring draws."""
    path = ["GatewayError"]
    rows = []
    for line in _TREE_LINE.finditer(errors.__doc__ or ""):
        path[len(line["indent"]) // 4 + 1 :] = [line["name"]]
        rows.append((line["name"], path[-2], line["status"]))
    return rows


@pytest.mark.parametrize(("name", "parent", "status"), _tree())
def test_each_error_is_what_the_tree_says(name: str, parent: str, status: str | None) -> None:
    """The tree in the module's docstring tells the truth about each class's parent and status."""
    kind = _classes()[name]
    assert [base.__name__ for base in kind.__bases__] == [parent]
    if status is not None:
        assert kind.status == int(status)


def test_the_tree_shows_every_error() -> None:
    """No class is missing in the tree, and none is in it twice."""
    assert sorted(name for name, _, _ in _tree()) == sorted(name for name in _classes() if _is_error(name))


def _is_error(name: str) -> bool:
    return issubclass(_classes()[name], GatewayError)


@pytest.mark.parametrize(
    ("name", "status", "kind", "code"),
    [
        ("InvalidRequest", 400, "invalid_request_error", None),
        ("ContextTooLong", 400, "invalid_request_error", "context_length_exceeded"),
        ("MessageRefused", 400, "invalid_request_error", "content_filter"),
        ("PreviousResponseNotFound", 400, "invalid_request_error", "previous_response_not_found"),
        ("InvalidApiKey", 401, "invalid_request_error", "invalid_api_key"),
        ("ModelNotFound", 404, "invalid_request_error", "model_not_found"),
        ("SessionNotFound", 404, "invalid_request_error", "session_not_found"),
        ("SessionBusy", 409, "invalid_request_error", "session_busy"),
        ("BodyTooLarge", 413, "invalid_request_error", "request_too_large"),
        ("HeadersTooLarge", 431, "invalid_request_error", "headers_too_large"),
        ("UpstreamRateLimited", 429, "rate_limit_error", "upstream_rate_limited"),
        ("UpstreamModelMissing", 404, "invalid_request_error", "model_not_found"),
        ("UpstreamKeyRejected", 502, "server_error", "upstream_key_rejected"),
        ("UpstreamQuotaExhausted", 502, "server_error", "upstream_quota_exhausted"),
        ("InternalError", 500, "server_error", "internal_error"),
        ("SiteChanged", 502, "server_error", "site_changed"),
        ("EmptyReply", 502, "server_error", "empty_reply"),
        ("UnexpectedReply", 502, "server_error", "unexpected_reply"),
        ("UpstreamRefused", 502, "server_error", "upstream_refused"),
        ("CloudflareChallenge", 503, "server_error", "cloudflare_challenge"),
        ("NonceMissing", 503, "server_error", "nonce_missing"),
        ("NonceRejected", 503, "server_error", "nonce_rejected"),
        ("UpstreamUnavailable", 503, "server_error", "upstream_unavailable"),
        ("UpstreamBlocked", 503, "server_error", "upstream_blocked"),
        ("GatewayOverloaded", 503, "server_error", "gateway_overloaded"),
        ("GatewayStopping", 503, "server_error", "gateway_stopping"),
        ("SessionStoreUnavailable", 503, "server_error", "session_store_unavailable"),
        ("UpstreamTimeout", 504, "server_error", "upstream_timeout"),
    ],
)
def test_each_error_says_on_the_wire_what_clients_rely_on(name: str, status: int, kind: str, code: str | None) -> None:
    """Status, `type` and `code` are the ones that the documentation promises to OpenAI clients."""
    error = _classes()[name]("Something went wrong.")
    assert (error.status, error.type, error.code) == (status, kind, code)
    assert (error.message, str(error)) == ("Something went wrong.", "Something went wrong.")
    assert (error.param, error.retry_after) == (None, None)


def test_a_code_of_its_own_stays_with_the_one_error() -> None:
    """Overriding the code of one error changes no other error of its class."""
    special = errors.BreakerOpen("No.", code="upstream_timeout", param="messages", retry_after=2.5)
    assert (special.code, special.param, special.retry_after) == ("upstream_timeout", "messages", 2.5)
    assert errors.BreakerOpen("No.").code == "upstream_unavailable"


@pytest.mark.parametrize(
    ("name", "is_outage", "is_transient"),
    [
        ("UpstreamRateLimited", False, False),
        ("UpstreamModelMissing", False, False),
        ("UpstreamKeyRejected", False, False),
        ("UpstreamQuotaExhausted", False, False),
        ("UnexpectedReply", False, False),
        ("SiteChanged", False, False),
        ("UpstreamRefused", False, False),
        ("EmptyReply", False, False),
        ("UpstreamUnavailable", True, True),
        ("UpstreamBlocked", True, False),
        ("CloudflareChallenge", True, False),
        ("NonceMissing", True, False),
        ("NonceRejected", True, False),
        ("BreakerOpen", False, False),
        ("UpstreamTimeout", True, False),
    ],
)
def test_each_upstream_error_knows_what_it_means_for_others(name: str, is_outage: bool, is_transient: bool) -> None:
    """What counts against the upstream's health, and what is worth another try at once, is part of the class."""
    kind = _classes()[name]
    assert issubclass(kind, errors.UpstreamError)
    assert (kind.is_outage, kind.is_transient) == (is_outage, is_transient)
    assert kind.shuts_out == (name == "CloudflareChallenge")


@pytest.mark.parametrize(
    "name",
    ["SiteChanged", "UpstreamRefused", "UpstreamModelMissing", "UpstreamKeyRejected", "UpstreamQuotaExhausted"],
)
def test_sdks_are_told_not_to_repeat_what_will_fail_again(name: str) -> None:
    """Permanent faults at the upstream forbid the SDKs' own retries."""
    assert _classes()[name].should_retry is False


def test_sdks_follow_their_own_rule_otherwise() -> None:
    """No error asks for a retry that the SDKs would not make by themselves."""
    assert {kind.should_retry for kind in _classes().values()} == {None, False}
    assert GatewayError.should_retry is None
